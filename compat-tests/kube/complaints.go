package kube

import (
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
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
		regexp.MustCompile(`unable to sync kubernetes service: Operation cannot be fulfilled on endpoints`),
		"two apiservers write the list of their addresses at once, and the later one tries again",
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

// unanswered are lines that an apiserver writes when a request of its own has had no answer for so long
// that it gave up.
var unanswered = regexp.MustCompile(`unable to return a response in the time allotted|Post-timeout activity`)

// givingUp is how long after the end of an outage an apiserver may still write of what it began before: its
// --request-timeout in the tests that kill the store, and time to write it.
const givingUp = 15 * time.Second

// complaintLog remembers up to where the logs were looked at.
type complaintLog struct {
	mu   sync.Mutex
	seen map[*Apiserver]int
	// outageEnded is when ForgiveComplaints was called last.
	outageEnded time.Time
}

// Complaints are new lines in the apiservers' logs that complain about the store.
func (c *Cluster) Complaints() []string {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	if c.log.seen == nil {
		c.log.seen = map[*Apiserver]int{}
	}
	forgiven := func(line string) bool {
		return isExcused(line) || (unanswered.MatchString(line) && time.Since(c.log.outageEnded) < givingUp)
	}
	var found []string
	for _, a := range c.Apiservers {
		log := a.Log()
		end := strings.LastIndexByte(log, '\n') + 1
		for line := range strings.Lines(log[c.log.seen[a]:end]) {
			if complaint.MatchString(line) && !forgiven(line) {
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

// ForgiveComplaints passes over what was logged so far, and over what will be said of requests that got no
// answer: a body calls it when it had killed the store and that is back.
func (c *Cluster) ForgiveComplaints() {
	c.Complaints()
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.log.outageEnded = time.Now()
}
