package kube

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How the writers of a test that kills something write.
const (
	writers = 6
	// requestTimeout ends a request that a killed program will not answer.
	requestTimeout = 10 * time.Second
	retryPause     = 20 * time.Millisecond
)

// ledger is what the apiservers acknowledged while something was killed.
type ledger struct {
	mu sync.Mutex
	// created are the names of objects that were acknowledged; each name is tried once.
	created map[string]bool
	// tried are the names of objects that may be there: no answer came.
	tried map[string]bool
	// acked is each writer's last acknowledged value of its own object; sent the last one sent.
	acked, sent []int
	refusals    []string
}

func (l *ledger) locked(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// refused keeps an answer that should not have come.
func (l *ledger) refused(what string, answer Answer) {
	l.locked(func() { l.refusals = append(l.refusals, fmt.Sprintf("%s: %d %s", what, answer.Code, answer.Body)) })
}

// acknowledged is how many writes were.
func (l *ledger) acknowledged() (sum int) {
	l.locked(func() {
		sum = len(l.created)
		for _, n := range l.acked {
			sum += n
		}
	})
	return sum
}

// writing is writers at work; stop ends them.
type writing struct {
	*ledger
	cancel context.CancelFunc
	group  sync.WaitGroup
}

// StartWriters starts writers. Each makes one new object and gives its own object the next value, in
// turn and for ever; what is not answered with success it leaves or tries again.
func (c *Case) StartWriters() *writing {
	c.Helper()
	ctx, cancel := context.WithCancel(c.T.Context())
	w := &writing{cancel: cancel, ledger: &ledger{
		created: map[string]bool{}, tried: map[string]bool{}, acked: make([]int, writers), sent: make([]int, writers),
	}}
	for i := range writers {
		c.Must(http.StatusCreated, http.MethodPost, c.ConfigMaps(), configMap(ownName(i), "0"))
		w.group.Go(func() { c.write(ctx, w.ledger, i) })
	}
	c.Cleanup(w.stop)
	return w
}

func ownName(writer int) string { return fmt.Sprintf("own-%d", writer) }

func (w *writing) stop() {
	w.cancel()
	w.group.Wait()
}

func (c *Case) write(ctx context.Context, l *ledger, writer int) {
	own := ownObject{ledger: l, apiserver: c.Apiservers[writer%len(c.Apiservers)], writer: writer, path: c.ConfigMaps(ownName(writer))}
	for round := 0; ctx.Err() == nil; round++ {
		name := fmt.Sprintf("new-%d-%05d", writer, round)
		l.locked(func() { l.tried[name] = true })
		answer, err := askBriefly(own.apiserver, http.MethodPost, c.ConfigMaps(), configMap(name, "1"))
		switch {
		case err == nil && answer.Code == http.StatusCreated:
			l.locked(func() { l.created[name] = true })
		case err == nil && answer.Code < 500:
			l.refused(name, answer)
		}
		if !own.advance() {
			time.Sleep(retryPause) // there is nobody to answer; not a wait for anything
		}
	}
}

// askBriefly does not end along with the writers: the outcome would be unknown for no reason.
func askBriefly(a *Apiserver, method, path string, body any) (Answer, error) {
	ctx, done := context.WithTimeout(context.Background(), requestTimeout)
	defer done()
	return a.Ask(ctx, method, path, body)
}

// ownObject is a counter that one writer alone advances, by compare-and-swap: a request of which
// nothing was heard can do no harm when it is carried out late.
type ownObject struct {
	*ledger
	apiserver *Apiserver
	path      string
	writer    int
	version   string
}

// advance gives it the next value; false when there was no answer.
func (o *ownObject) advance() bool {
	if o.version == "" && !o.read() {
		return false
	}
	next := o.acked[o.writer] + 1 // only this goroutine writes it
	o.locked(func() { o.sent[o.writer] = next })
	object := configMap(ownName(o.writer), strconv.Itoa(next))
	object["metadata"].(Object)["resourceVersion"] = o.version
	o.version = ""
	answer, err := askBriefly(o.apiserver, http.MethodPut, o.path, object)
	if err != nil || answer.Code >= 500 {
		return false
	}
	if answer.Code == http.StatusOK {
		o.version = textAt(need(into[Object](answer)), "metadata", "resourceVersion")
		o.locked(func() { o.acked[o.writer] = next })
	} else if answer.Code != http.StatusConflict {
		o.refused(o.path, answer)
	}
	return true
}

// read finds out what has become of it: no less than what was acknowledged, no more than what was sent.
func (o *ownObject) read() bool {
	answer, err := askBriefly(o.apiserver, http.MethodGet, o.path, nil)
	if err != nil || answer.Code >= 500 {
		return false
	}
	object, err := into[Object](answer)
	value, notNumber := strconv.Atoi(textAt(object, "data", "value"))
	if err != nil || notNumber != nil || value < o.acked[o.writer] || value > o.sent[o.writer] {
		o.refused(fmt.Sprintf("after %d acknowledged and %d sent", o.acked[o.writer], o.sent[o.writer]), answer)
		return false
	}
	o.version = textAt(object, "metadata", "resourceVersion")
	o.locked(func() { o.acked[o.writer] = value })
	return true
}

// AwaitWrites waits until this many more writes are acknowledged.
func (c *Case) AwaitWrites(w *writing, more int) {
	c.Helper()
	until := w.acknowledged() + more
	c.Eventually(fmt.Sprintf("%d more writes", more), func() bool { return w.acknowledged() >= until })
}

// ExpectAcknowledged expects every acknowledged write in a list of now, and nothing that was not tried.
func (c *Case) ExpectAcknowledged(w *writing) {
	c.Helper()
	items := map[string]string{}
	for _, item := range c.List(c.ConfigMaps()).Items {
		items[item.Metadata.Name] = item.Data["value"]
	}
	for name := range w.created {
		if items[name] != "1" {
			c.Errorf("%s was acknowledged and is not there", name)
		}
	}
	for i := range writers {
		value, err := strconv.Atoi(items[ownName(i)])
		if err != nil || value < w.acked[i] || value > w.sent[i] {
			c.Errorf("%s is %q; acknowledged %d, sent %d", ownName(i), items[ownName(i)], w.acked[i], w.sent[i])
		}
		delete(items, ownName(i))
	}
	for name := range items {
		if !w.tried[name] {
			c.Errorf("nobody made %s", name)
		}
	}
	for _, refusal := range w.refusals {
		c.Errorf("a writer was told: %s", refusal)
	}
	c.Logf("%d writes acknowledged, %d objects", w.acknowledged(), len(items))
}

// witness follows a watch, resumes it where it ended, and keeps what it saw. When the apiserver has begun
// anew it knows nothing of versions before, and says so: then the witness lists, as every client must.
type witness struct {
	mu      sync.Mutex
	added   map[string]int
	last    map[string]string
	version string
	opened  int
	relists int
	broken  []string
	cancel  context.CancelFunc
	done    chan struct{}
}

// StartWitness watches the body's ConfigMaps from this version on.
func (c *Case) StartWitness(a *Apiserver, version string) *witness {
	ctx, cancel := context.WithCancel(c.T.Context())
	w := &witness{added: map[string]int{}, last: map[string]string{}, version: version, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			if w.follow(ctx, a, c.ConfigMaps()) {
				w.relist(a, c.ConfigMaps())
			}
			time.Sleep(retryPause) // the apiserver may be down
		}
	}()
	c.Cleanup(func() { cancel(); <-w.done })
	return w
}

// follow watches until the watch ends; whether its version was too old.
func (w *witness) follow(ctx context.Context, a *Apiserver, path string) (expired bool) {
	watch, err := a.OpenWatch(ctx, query(path, "resourceVersion", w.version))
	if err != nil {
		return strings.Contains(err.Error(), "too old")
	}
	defer watch.Stop()
	w.mu.Lock()
	w.opened++
	w.mu.Unlock()
	for event := range watch.Events {
		if event.Type == "ERROR" && event.Object.Code == http.StatusGone {
			return true
		}
		w.see(event)
	}
	return false
}

func (w *witness) relist(a *Apiserver, path string) {
	answer, err := askBriefly(a, http.MethodGet, path, nil)
	if err != nil || answer.Code != http.StatusOK {
		return // the next watch is refused as this one was
	}
	list := need(into[List](answer))
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, item := range list.Items {
		w.added[item.Metadata.Name] = 1
		w.last[item.Metadata.Name] = item.Data["value"]
	}
	w.version = list.Metadata.ResourceVersion
	w.relists++
}

func (w *witness) see(event Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	meta := event.Object.Metadata
	switch {
	case event.Type == "ERROR":
		w.broken = append(w.broken, event.Object.Message)
		return
	case revision(meta.ResourceVersion) <= revision(w.version):
		w.broken = append(w.broken, fmt.Sprintf("%s of version %s after %s", meta.Name, meta.ResourceVersion, w.version))
	case event.Type == "ADDED":
		w.added[meta.Name]++
	}
	w.version, w.last[meta.Name] = meta.ResourceVersion, event.Object.Data["value"]
}

// ExpectWitnessed expects that the watch has seen all acknowledged writes, each creation once. The
// writers have stopped, and the object `last` was made after them.
func (c *Case) ExpectWitnessed(w *witness, l *writing) {
	c.Helper()
	c.Eventually("the watch is at the end", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.added["last"] == 1
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range l.created {
		if w.added[name] != 1 {
			c.Errorf("the watch saw the creation of %s %d times", name, w.added[name])
		}
	}
	for i := range writers {
		if value := w.last[ownName(i)]; value == "" || need(strconv.Atoi(value)) < l.acked[i] {
			c.Errorf("the watch saw %s become %q; acknowledged %d", ownName(i), value, l.acked[i])
		}
	}
	for _, broken := range w.broken {
		c.Errorf("the watch said: %s", broken)
	}
	c.Logf("the watch was opened %d times, its start listed %d times, %d creations seen", w.opened, w.relists, len(w.added))
}
