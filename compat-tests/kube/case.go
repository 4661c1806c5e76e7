package kube

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"etched.local/compat-tests/harness"
)

// Deadline is how long a body waits for one answer or event: beside others on a busy machine.
const Deadline = time.Minute

// Case is a body's view of the cluster it runs on.
type Case struct {
	*testing.T
	*Cluster
	// Namespace of its own, already made.
	Namespace string

	mu    sync.Mutex
	notes []string
}

var kinds = []harness.Kind{harness.Etcd, harness.Etched}

// OnOwn runs the body on a fresh cluster of each kind.
func OnOwn(t *testing.T, options Options, body func(c *Case)) {
	t.Helper()
	onBoth(t, body, func(t *testing.T, kind harness.Kind) *Cluster { return start(t, kind, options) })
}

func onBoth(t *testing.T, body func(*Case), cluster func(*testing.T, harness.Kind) *Cluster) {
	t.Helper()
	t.Parallel()
	notes := map[harness.Kind][]string{}
	for _, kind := range kinds {
		t.Run(string(kind), func(sub *testing.T) {
			c := &Case{T: sub, Cluster: cluster(sub, kind), Namespace: namespaceOf(t.Name())}
			c.Must(http.StatusCreated, http.MethodPost, "/api/v1/namespaces", named(c.Namespace))
			body(c)
			c.expectNoComplaint(sub)
			notes[kind] = c.notes
			if kind == harness.Etched {
				compare(sub, notes[harness.Etcd], notes[harness.Etched])
			}
		})
	}
}

// compare fails where the notes differ; nothing is excused.
func compare(t *testing.T, etcd, etched []string) {
	t.Helper()
	for i := range max(len(etcd), len(etched)) {
		one, other := "nothing", "nothing"
		if i < len(etcd) {
			one = etcd[i]
		}
		if i < len(etched) {
			other = etched[i]
		}
		if one != other {
			t.Errorf("DIFFERENCE at note %d:\n    etcd   %s\n    etched %s", i+1, one, other)
		}
	}
}

var capital = regexp.MustCompile(`[A-Z]`)

// namespaceOf is a test's name as a namespace.
func namespaceOf(test string) string {
	name := capital.ReplaceAllStringFunc(strings.TrimPrefix(test, "Test"), func(letter string) string {
		return "-" + strings.ToLower(letter)
	})
	return strings.TrimSuffix(strings.TrimPrefix(name, "-")[:min(len(name)-1, 60)], "-")
}

var masked = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "<uid>"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "<address>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`), "<time>"},
	{regexp.MustCompile(`(?i)(resourceversion in (?:the precondition|record) )\(\d+\)`), "$1(<version>)"},
	{regexp.MustCompile(`(?i)(resource ?version:? ?)\d+(, current: \d+)?`), "$1<version>"},
}

// Notef adds a line to what is compared between the servers; ids, times and versions do not matter.
func (c *Case) Notef(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	for _, m := range masked {
		line = m.pattern.ReplaceAllString(line, m.by)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, line)
}

// Apiserver is the first apiserver.
func (c *Case) Apiserver() *Apiserver { return c.Apiservers[0] }

// Context ends at the deadline of one call.
func (c *Case) Context() context.Context {
	ctx, cancel := context.WithTimeout(c.T.Context(), Deadline)
	c.Cleanup(cancel)
	return ctx
}

// Ask sends a request that must be answered, with whatever code.
func (c *Case) Ask(method, path string, body any) Answer {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.T.Context(), Deadline)
	defer cancel()
	answer, err := c.Apiserver().Ask(ctx, method, path, body)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

// Must sends a request that must be answered with this code.
func (c *Case) Must(code int, method, path string, body any) Object {
	c.Helper()
	answer := c.Ask(method, path, body)
	if answer.Code != code {
		c.Fatalf("%s %s: %d instead of %d: %.600s", method, path, answer.Code, code, answer.Body)
	}
	object, err := into[Object](answer)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	return object
}

// Get reads what must be there.
func (c *Case) Get(path string) Object {
	c.Helper()
	return c.Must(http.StatusOK, http.MethodGet, path, nil)
}

// List reads a list; the query stands in the path.
func (c *Case) List(path string) List {
	c.Helper()
	answer := c.Ask(http.MethodGet, path, nil)
	if answer.Code != http.StatusOK {
		c.Fatalf("list %s: %d: %.600s", path, answer.Code, answer.Body)
	}
	return need(into[List](answer))
}

// Refused sends a request that must be refused with this code and reason; the text is noted.
func (c *Case) Refused(code int, reason, method, path string, body any) Status {
	c.Helper()
	answer := c.Ask(method, path, body)
	status, err := into[Status](answer)
	if err != nil || answer.Code != code || status.Reason != reason {
		c.Fatalf("%s %s: %d %q instead of %d %q: %.600s", method, path, answer.Code, status.Reason, code, reason, answer.Body)
	}
	c.Notef("%s: %d %s: %s", method, status.Code, status.Reason, status.Message)
	return status
}

// Eventually asks until the condition holds; for states that no event announces.
func (c *Case) Eventually(what string, holds func() bool) {
	c.Helper()
	harness.Within(c, Deadline, what, holds)
}

// Watch opens a watch that ends with the test.
func (c *Case) Watch(path string) *Watch {
	c.Helper()
	watch, err := c.Apiserver().OpenWatch(c.T.Context(), path)
	if err != nil {
		c.Fatalf("%s: %v", path, err)
	}
	c.Cleanup(watch.Stop)
	return watch
}

// Next is the next event of a watch.
func (c *Case) Next(watch *Watch) Event {
	c.Helper()
	select {
	case event, open := <-watch.Events:
		if !open {
			c.Fatal("the watch ended")
		}
		return event
	case <-time.After(Deadline):
		c.Fatalf("no event within %v", Deadline)
	}
	return Event{}
}

// Path of this kind of objects in the body's namespace; `group` is v1 or group/version.
func (c *Case) Path(group, resource string, names ...string) string {
	prefix := "/apis/" + group
	if group == "v1" {
		prefix = "/api/v1"
	}
	return strings.Join(append([]string{prefix, "namespaces", c.Namespace, resource}, names...), "/")
}

// ConfigMaps is the path of the body's ConfigMaps, or of the one named.
func (c *Case) ConfigMaps(names ...string) string { return c.Path("v1", "configmaps", names...) }

// configMap is a ConfigMap with one value.
func configMap(name, value string) Object {
	return Object{"metadata": Object{"name": name}, "data": Object{"value": value}}
}

func named(name string) Object { return Object{"metadata": Object{"name": name}} }

// query appends parameters to a path.
func query(path string, pairs ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		values.Set(pairs[i], pairs[i+1])
	}
	return path + "?" + values.Encode()
}

func split(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	return host, port
}
