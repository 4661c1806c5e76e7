package kube

import (
	"regexp"
	"strings"
	"sync"
	"testing"
)

// complaint is a line of level warning, error or fatal that has to do with the store.
var complaint = regexp.MustCompile(`^[WEF]\d{4} .*(?i:etcd|mvcc|grpc|rpc error|storage|cacher|reflector|watch|revision|lease|compact)`)

// excused are such lines that say nothing against the store, each with the reason.
var excused = []struct {
	line   *regexp.Regexp
	reason string
}{
	{
		regexp.MustCompile(`Skipping API \S+ because it has no resources`),
		"a group of the API whose name has the word storage in it",
	},
	{
		regexp.MustCompile(`Failed to ensure lease exists, will retry" err="(namespaces .* not found|leases.* already exists)`),
		"two parts of an apiserver, or two apiservers, start at once",
	},
	{
		regexp.MustCompile(`Failed to update lease" err="Operation cannot be fulfilled on leases\.coordination\.k8s\.io .*apiserver-`),
		"apiservers are named after their host, so two on one host write the same object in turn",
	},
	{
		regexp.MustCompile(`failed to sync with latest state: context canceled`),
		"an apiserver that is stopped ends its watches",
	},
	{
		regexp.MustCompile(`Resetting endpoints for master service`),
		"said whenever an apiserver comes or goes",
	},
	{
		regexp.MustCompile(`Unhandled Error.*(etcdserver: request is too large|trying to send message larger than max)`),
		"a test writes what is too large and expects its refusal",
	},
	{
		regexp.MustCompile(`watch chan error: etcdserver: mvcc: required revision has been compacted`),
		"a test opens a watch at a compacted version and expects its refusal",
	},
}

// complaintLog remembers up to where the logs were looked at.
type complaintLog struct {
	mu   sync.Mutex
	seen map[*Apiserver]int
}

// Complaints are new lines in the apiservers' logs that complain about the store.
func (c *Cluster) Complaints() []string {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	if c.log.seen == nil {
		c.log.seen = map[*Apiserver]int{}
	}
	var found []string
	for _, a := range c.Apiservers {
		log := a.Log()
		end := strings.LastIndexByte(log, '\n') + 1
		for line := range strings.Lines(log[c.log.seen[a]:end]) {
			if complaint.MatchString(line) && !isExcused(line) {
				found = append(found, strings.TrimSpace(line))
			}
		}
		c.log.seen[a] = end
	}
	return found
}

func isExcused(line string) bool {
	for _, e := range excused {
		if e.line.MatchString(line) {
			return true
		}
	}
	return false
}

// expectNoComplaint fails the test for each new complaint. On a shared cluster it may be another
// test's doing; one that should not be there fails one of them all the same.
func (c *Cluster) expectNoComplaint(t *testing.T) {
	t.Helper()
	for _, line := range c.Complaints() {
		t.Errorf("the apiserver's log complains: %s", line)
	}
}

// ForgiveComplaints passes over what was logged so far: a body calls it when it had killed the store.
func (c *Cluster) ForgiveComplaints() { c.Complaints() }
