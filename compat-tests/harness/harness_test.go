package harness

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func transcript(steps map[string][]Line) *Transcript {
	t := &Transcript{}
	for name, lines := range steps {
		t.addUnder(name, lines)
	}
	return t
}

func TestEveryKindOfDifferenceIsFound(t *testing.T) {
	etcd := transcript(map[string][]Line{
		"same": {{"a", "1"}}, "value": {{"a", "1"}}, "line": {{"a", "1"}, {"b", "2"}}, "extra": {}, "only etcd": {},
	})
	etched := transcript(map[string][]Line{
		"same": {{"a", "1"}}, "value": {{"a", "2"}}, "line": {{"a", "1"}}, "extra": {{"c", "3"}}, "only etched": {},
	})
	found := map[Difference]bool{}
	for _, d := range Compare(etcd, etched) {
		found[d] = true
	}
	for _, d := range []Difference{
		{"value", "a", "1", "2"}, {"line", "b", "2", absent}, {"extra", "c", absent, "3"},
		{"only etcd", "missing step", "there", absent}, {"only etched", "step too many", absent, "there"},
	} {
		if !found[d] {
			t.Errorf("not found: %v", d)
		}
		delete(found, d)
	}
	if len(found) != 0 {
		t.Errorf("found what is none: %v", found)
	}
}

func TestAMessageIsRenderedWithEveryFieldThatIsThere(t *testing.T) {
	answer := &pb.RangeResponse{Header: &pb.ResponseHeader{}, Count: 2, Kvs: []*mvccpb.KeyValue{
		{Key: []byte("a"), ModRevision: 5}, {Key: []byte{0xff}, Value: []byte("v")}}}
	answer.ProtoReflect().SetUnknown([]byte{0x98, 0x06, 0x01})
	want := []Line{
		{"header", "{}"}, {"kvs[0].key", `"a"`}, {"kvs[0].mod_revision", "5"},
		{"kvs[1].key", "hex ff"}, {"kvs[1].value", `"v"`}, {"count", "2"}, {".unknown", "980601"},
	}
	got := render(answer)
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("got %v\nexpected %v", got, want)
		}
	}
}

func TestNamesReplaceIdsOnlyWhereIdsStand(t *testing.T) {
	transcript := &Transcript{names: map[string]string{"7": "<lease>", "127.0.0.1:2379": "<client>"}, term: 2}
	transcript.add("step", []Line{{"ID", "7"}, {"count", "7"}, {"raft_term", "4"}, {"url", "http://127.0.0.1:2379/x"}})
	want := []Line{{"ID", "<lease>"}, {"count", "7"}, {"raft_term", "start+2"}, {"url", "http://<client>/x"}}
	for i, line := range transcript.Steps[0].Lines {
		if line != want[i] {
			t.Errorf("got %v, expected %v", line, want[i])
		}
	}
}

func TestTheListOfDifferencesIsWellFormed(t *testing.T) {
	rules, err := loadRules()
	if err != nil {
		t.Fatal(err)
	}
	if allowed(rules, "TestAny", Difference{"01 status", "dbSize", "1", "2"}) == nil {
		t.Error("the size of the file is not excused")
	}
	if r := allowed(rules, "TestAny", Difference{"01 status", "revision", "1", "2"}); r != nil {
		t.Errorf("a revision is excused by line %d", r.number)
	}
}
