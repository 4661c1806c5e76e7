package main

import (
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// The checker itself must be able to fail: each story below is one that a server must never tell.

func put(key string, number int, revision, created, count int64) *mvccpb.Event {
	value := valueOf(writeID{writer: 1, number: number}, 100)
	return &mvccpb.Event{Kv: &mvccpb.KeyValue{
		Key: []byte(key), Value: []byte(value), ModRevision: revision, CreateRevision: created, Version: count,
	}}
}

func remove(key string, revision int64) *mvccpb.Event {
	return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision}}
}

func sent(number int, key string) keyChange {
	return keyChange{key: key, write: writeID{writer: 1, number: number}}
}

func TestHistoryRefusesWhatMustNotHappen(t *testing.T) {
	damaged := put("a", 1, 2, 2, 1)
	damaged.Kv.Value[50] ^= 1
	first := intent{[]keyChange{sent(1, "a")}, 2}
	cases := []struct {
		name    string
		sent    []intent
		events  []*mvccpb.Event
		refusal string
	}{
		{"what was sent and told as it was", []intent{first}, []*mvccpb.Event{put("a", 1, 2, 2, 1)}, ""},
		{"an unanswered write that did not happen", []intent{{[]keyChange{sent(1, "a")}, 0}}, nil, ""},
		{"an acknowledged write that is lost", []intent{first}, nil, "stands at revision 0, want 2"},
		{"a gap between revisions", []intent{first}, []*mvccpb.Event{put("a", 1, 3, 3, 1)}, "gap"},
		{"a write at another revision than acknowledged", []intent{{first.changes, 3}},
			[]*mvccpb.Event{put("a", 1, 2, 2, 1)}, "want 3"},
		{"a value that nobody sent", nil, []*mvccpb.Event{put("a", 1, 2, 2, 1)}, "sent to"},
		{"a value under another key", []intent{first}, []*mvccpb.Event{put("b", 1, 2, 2, 1)}, "sent to"},
		{"a damaged value", []intent{first}, []*mvccpb.Event{damaged}, "damaged"},
		{"one write twice", []intent{first},
			[]*mvccpb.Event{put("a", 1, 2, 2, 1), put("a", 1, 3, 2, 2)}, "again"},
		{"a wrong version counter", []intent{first}, []*mvccpb.Event{put("a", 1, 2, 2, 2)}, "version"},
		{"a delete that nobody asked for", []intent{first},
			[]*mvccpb.Event{put("a", 1, 2, 2, 1), remove("a", 3)}, "nobody asked"},
		{"an acknowledged delete that is lost", []intent{first, {[]keyChange{{key: "a", deleted: true}}, 3}},
			[]*mvccpb.Event{put("a", 1, 2, 2, 1)}, "delete of \"a\" at revision 3 is lost"},
		{"half a transaction", []intent{{[]keyChange{sent(1, "a"), sent(2, "b")}, 0}},
			[]*mvccpb.Event{put("a", 1, 2, 2, 1)}, "stands at revision 0, want 2"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := tell(c.sent, c.events); !strings.Contains(got, c.refusal) || (c.refusal == "") != (got == "") {
				t.Errorf("the history says %q, want %q", got, c.refusal)
			}
		})
	}
}

func tell(intents []intent, events []*mvccpb.Event) string {
	h := newHistory()
	h.learn(intents)
	for _, event := range events {
		if err := h.absorb(event, map[string]int64{}); err != nil {
			return err.Error()
		}
	}
	if err := h.settle(intents); err != nil {
		return err.Error()
	}
	return ""
}

func TestHistoryKnowsEveryRevisionOfAKey(t *testing.T) {
	h := newHistory()
	deletion := intent{[]keyChange{{key: "a", deleted: true}}, 3}
	h.learn([]intent{{[]keyChange{sent(1, "a")}, 2}, {[]keyChange{sent(2, "a")}, 4}})
	for _, event := range []*mvccpb.Event{put("a", 1, 2, 2, 1), remove("a", 3), put("a", 2, 4, 4, 1)} {
		acknowledged := map[string]int64{deleteID("a", 3): 3}
		if err := h.absorb(event, acknowledged); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.settle([]intent{deletion}); err != nil {
		t.Fatal(err)
	}
	for revision, there := range map[int64]bool{1: false, 2: true, 3: false, 4: true, 9: true} {
		if _, got := h.at("a", revision); got != there {
			t.Errorf("at revision %d: there %v, want %v", revision, got, there)
		}
	}
	if h.same("a", 2, []*mvccpb.KeyValue{put("a", 1, 2, 2, 1).Kv}) != nil {
		t.Error("the version of revision 2 is refused")
	}
	if h.same("a", 4, []*mvccpb.KeyValue{put("a", 1, 2, 2, 1).Kv}) == nil {
		t.Error("an old version passes for the present one")
	}
}
