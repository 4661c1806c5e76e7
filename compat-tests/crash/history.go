package main

import (
	"fmt"
	"sort"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// intent is one request as it was sent: the keys it changes, in the order of its operations. A
// delete has the zero writeID.
type intent struct {
	changes []keyChange
	// acknowledged is the revision that the answer named, 0 when no answer came: such a request may
	// have happened or not.
	acknowledged int64
}

type keyChange struct {
	key     string
	write   writeID
	deleted bool
}

// version is one change of one key as the server tells it.
type version struct {
	revision, created, count int64
	write                    writeID
	deleted                  bool
}

// history is the reference: everything ever sent, and everything the server has said happened. The
// server's side is read revision by revision and never read again, so a change of the past shows
// when old revisions are asked for later.
type history struct {
	sent     map[writeID]string
	happened map[writeID]int64
	keys     map[string][]version
	// verified is the last revision whose events were read; floor is the compacted revision.
	verified, floor int64
	// mayDelete counts, by key, deletes whose answer never came.
	mayDelete map[string]int
}

func newHistory() *history {
	return &history{
		sent: map[writeID]string{}, happened: map[writeID]int64{}, keys: map[string][]version{},
		mayDelete: map[string]int{}, verified: 1,
	}
}

// learn adds what was sent since the last check. It comes before absorb, which refuses what nobody sent.
func (h *history) learn(intents []intent) {
	for _, each := range intents {
		for _, change := range each.changes {
			switch {
			case !change.deleted:
				h.sent[change.write] = change.key
			case each.acknowledged == 0:
				h.mayDelete[change.key]++
			}
		}
	}
}

// absorb takes the next event and checks it against its key's past and against what was sent.
func (h *history) absorb(event *mvccpb.Event, acknowledgedDeletes map[string]int64) error {
	kv := event.Kv
	key := string(kv.Key)
	if kv.ModRevision != h.verified && kv.ModRevision != h.verified+1 {
		return fmt.Errorf("revision %d follows %d: a gap", kv.ModRevision, h.verified)
	}
	h.verified = kv.ModRevision
	past := h.keys[key]
	if event.Type == mvccpb.Event_DELETE {
		if len(past) == 0 || past[len(past)-1].deleted {
			return fmt.Errorf("revision %d deletes %q, which is not there", kv.ModRevision, key)
		}
		if acknowledgedDeletes[deleteID(key, kv.ModRevision)] == 0 {
			if h.mayDelete[key]--; h.mayDelete[key] < 0 {
				return fmt.Errorf("revision %d deletes %q: nobody asked for it", kv.ModRevision, key)
			}
		}
		h.keys[key] = append(past, version{revision: kv.ModRevision, deleted: true})
		return nil
	}
	next, err := h.accept(kv)
	if err != nil {
		return err
	}
	if before, twice := h.happened[next.write]; twice {
		return fmt.Errorf("%v happened at revision %d and again at %d", next.write, before, kv.ModRevision)
	}
	h.happened[next.write] = kv.ModRevision
	h.keys[key] = append(past, next)
	return nil
}

// accept checks that a put's value was sent for its key and that its counters continue the past.
func (h *history) accept(kv *mvccpb.KeyValue) (version, error) {
	key := string(kv.Key)
	write, err := parseValue(string(kv.Value))
	if err != nil {
		return version{}, fmt.Errorf("key %q at revision %d: %w", key, kv.ModRevision, err)
	}
	if owner, known := h.sent[write]; !known || owner != key {
		return version{}, fmt.Errorf("key %q has %v at revision %d: sent to %q", key, write, kv.ModRevision, owner)
	}
	want := version{revision: kv.ModRevision, created: kv.ModRevision, count: 1, write: write}
	if past := h.keys[key]; len(past) > 0 && !past[len(past)-1].deleted {
		want.created, want.count = past[len(past)-1].created, past[len(past)-1].count+1
	}
	if kv.CreateRevision != want.created || kv.Version != want.count {
		return version{}, fmt.Errorf("key %q at revision %d: created %d, version %d; want %d, %d",
			key, kv.ModRevision, kv.CreateRevision, kv.Version, want.created, want.count)
	}
	return want, nil
}

// settle checks every request against what happened: acknowledged ones at their revision, the others
// as a whole or not at all.
func (h *history) settle(intents []intent) error {
	for _, each := range intents {
		at := each.acknowledged
		for i, change := range each.changes {
			if change.deleted {
				if at != 0 && !h.deletedAt(change.key, at) {
					return fmt.Errorf("acknowledged delete of %q at revision %d is lost", change.key, at)
				}
				continue
			}
			if each.acknowledged == 0 && i == 0 {
				at = h.happened[change.write]
			}
			if got := h.happened[change.write]; got != at {
				return fmt.Errorf("%v of %q stands at revision %d, want %d (acknowledged: %d)",
					change.write, change.key, got, at, each.acknowledged)
			}
		}
	}
	return nil
}

func (h *history) deletedAt(key string, revision int64) bool {
	past := h.keys[key]
	i := sort.Search(len(past), func(i int) bool { return past[i].revision >= revision })
	return i < len(past) && past[i].revision == revision && past[i].deleted
}

// at gives a key's version at a revision; false when it was not there.
func (h *history) at(key string, revision int64) (version, bool) {
	past := h.keys[key]
	i := sort.Search(len(past), func(i int) bool { return past[i].revision > revision })
	if i == 0 || past[i-1].deleted {
		return version{}, false
	}
	return past[i-1], true
}

// same compares one answer with what the history says stands at a revision.
func (h *history) same(key string, revision int64, kvs []*mvccpb.KeyValue) error {
	want, there := h.at(key, revision)
	if !there {
		if len(kvs) != 0 {
			return fmt.Errorf("key %q is there at revision %d, but it was deleted", key, revision)
		}
		return nil
	}
	if len(kvs) != 1 {
		return fmt.Errorf("key %q is missing at revision %d: want %v", key, revision, want)
	}
	kv := kvs[0]
	write, err := parseValue(string(kv.Value))
	if err != nil {
		return fmt.Errorf("key %q at revision %d: %w", key, revision, err)
	}
	got := version{kv.ModRevision, kv.CreateRevision, kv.Version, write, false}
	if got != want || string(kv.Key) != key {
		return fmt.Errorf("key %q at revision %d is %v, want %v", key, revision, got, want)
	}
	return nil
}

// sameState compares a whole store's present content with the history.
func (h *history) sameState(kvs []*mvccpb.KeyValue) error {
	for _, kv := range kvs {
		if err := h.same(string(kv.Key), h.verified, []*mvccpb.KeyValue{kv}); err != nil {
			return err
		}
	}
	live := 0
	for key := range h.keys {
		if _, there := h.at(key, h.verified); there {
			live++
		}
	}
	if live != len(kvs) {
		return fmt.Errorf("the store holds %d keys, want %d", len(kvs), live)
	}
	return nil
}

func deleteID(key string, revision int64) string { return fmt.Sprintf("%s@%d", key, revision) }
