package main

import (
	"context"
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	connections          = 8
	writersPerConnection = 2
	keysPerWriter        = 40
)

// writer sends one request at a time to keys that are its own, so it always knows what it must find.
type writer struct {
	id     int
	number int
	random *rand.Rand
	// current is the revision at which each key was last seen to change, 0 for absent.
	current map[string]int64
	// intents are what it sent since the last check.
	intents []intent
	failure error
}

func newWriters(seed int64) []*writer {
	writers := make([]*writer, connections*writersPerConnection)
	for i := range writers {
		writers[i] = &writer{
			id: i + 1, random: rand.New(rand.NewSource(seed + int64(i))), current: map[string]int64{},
		}
	}
	return writers
}

func (w *writer) key() string { return fmt.Sprintf("w%02d/k%02d", w.id, w.random.Intn(keysPerWriter)) }

// put makes the next value of this writer: mostly small, now and then large enough to fill WAL
// segments and to be torn across pages.
func (w *writer) put(key string) (keyChange, clientv3.Op) {
	w.number++
	id := writeID{writer: w.id, number: w.number}
	size := 256
	switch chance := w.random.Intn(100); {
	case chance == 0:
		size = 64 << 10
	case chance < 10:
		size = 4 << 10
	}
	return keyChange{key: key, write: id}, clientv3.OpPut(key, valueOf(id, size))
}

// run sends requests until one is not answered, which is how it notices the end of the server.
func (w *writer) run(ctx context.Context, client *clientv3.Client, acknowledged func()) {
	for ctx.Err() == nil && w.failure == nil {
		if !w.step(ctx, client) {
			return
		}
		acknowledged()
	}
}

// step sends one request and notes it with its answer; false when none came.
func (w *writer) step(ctx context.Context, client *clientv3.Client) bool {
	key := w.key()
	switch chance := w.random.Intn(100); {
	case chance < 12 && w.current[key] != 0:
		response, err := client.Do(ctx, clientv3.OpDelete(key))
		var revision int64
		if err == nil {
			revision = response.Del().Header.Revision
			if response.Del().Deleted != 1 {
				w.failure = fmt.Errorf("delete of %q at %d deleted nothing: its acknowledged put is lost",
					key, revision)
			}
		}
		return w.note(intent{[]keyChange{{key: key, deleted: true}}, revision})
	case chance < 30:
		return w.transaction(ctx, client, key)
	default:
		change, op := w.put(key)
		response, err := client.Do(ctx, op)
		var revision int64
		if err == nil {
			revision = response.Put().Header.Revision
		}
		return w.note(intent{[]keyChange{change}, revision})
	}
}

// transaction changes two keys if the first stands where this writer saw it last, and it must.
func (w *writer) transaction(ctx context.Context, client *clientv3.Client, key string) bool {
	other := w.key()
	for other == key {
		other = w.key()
	}
	first, firstOp := w.put(key)
	second, secondOp := w.put(other)
	response, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", w.current[key])).
		Then(firstOp, secondOp).Commit()
	var revision int64
	if err == nil {
		revision = response.Header.Revision
		if !response.Succeeded {
			w.failure = fmt.Errorf("key %q is not at revision %d, where it was acknowledged", key, w.current[key])
		}
	}
	return w.note(intent{[]keyChange{first, second}, revision})
}

func (w *writer) note(done intent) bool {
	w.intents = append(w.intents, done)
	if done.acknowledged == 0 {
		return false
	}
	for _, change := range done.changes {
		w.current[change.key] = done.acknowledged
		if change.deleted {
			w.current[change.key] = 0
		}
	}
	return w.failure == nil
}

// load runs all writers until `target` requests are acknowledged and then calls `end`, which stops
// the server under them; it returns when every writer has noticed.
func load(writers []*writer, clients []*clientv3.Client, target int64, end func()) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var done atomic.Int64
	reached := make(chan struct{})
	var group sync.WaitGroup
	for i, each := range writers {
		group.Add(1)
		go func() {
			defer group.Done()
			each.run(ctx, clients[i%len(clients)], func() {
				if done.Add(1) == target {
					close(reached)
				}
			})
		}()
	}
	idle := make(chan struct{})
	go func() { group.Wait(); close(idle) }()
	select {
	case <-reached:
	case <-idle: // every writer failed before the target: their errors say why
	}
	end()
	cancel()
	<-idle
	for _, each := range writers {
		if each.failure != nil {
			return each.failure
		}
	}
	return nil
}
