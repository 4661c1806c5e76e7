package api

import (
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	. "etched.local/compat-tests/harness"
)

const (
	compacted = "etcdserver: mvcc: required revision has been compacted"
	future    = "etcdserver: mvcc: required revision is a future revision"
	emptyKey  = "etcdserver: key is not provided"
	badSort   = "etcdserver: invalid sort option"
)

// fruits leaves keys whose orders by key, version, create, mod revision and value all differ, some
// with a lease, one deleted and one made anew.
func fruits(c *Case) {
	lease := c.Grant(77, 600)
	for _, key := range []string{"fig", "apple", "date", "cherry", "banana"} {
		c.Put(key, "v-"+key[1:])
	}
	for _, key := range []string{"date", "apple", "date", "banana"} {
		c.Put(key, "w-"+key[2:])
	}
	if _, err := c.KV.Put(c.Context(), &pb.PutRequest{Key: []byte("cherry"), Value: []byte("leased"), Lease: lease}); err != nil {
		c.Fatal(err)
	}
	c.Delete("fig")
	c.Put("fig", "again")
}

func all() *pb.RangeRequest { return &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}} }

func TestRangeBoundsNameOneKeyARangeOrEverything(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, key := range []string{"a", "a\x00", "a\x00\x00", "ab", "b", "c", "\x00", "\x00\x01", "\xff", "\xff\xff"} {
			c.Put(key, key)
		}
		for _, b := range []struct{ name, key, end string }{
			{"one key", "a", ""}, {"a missing key", "aa", ""}, {"a prefix", "a", "b"},
			{"from a key on", "b", "\x00"}, {"all", "\x00", "\x00"}, {"the zero key", "\x00", ""},
			{"end equal to key", "a", "a"}, {"end below key", "b", "a"},
			{"two zero bytes are an ordinary end", "\x00", "\x00\x00"},
			{"two zero bytes end after a", "a", "\x00\x00"},
			{"up to the last byte", "a", "\xff"}, {"from the last byte", "\xff", "\x00"},
			{"last byte alone", "\xff", "\xff\x00"},
		} {
			request := &pb.RangeRequest{Key: []byte(b.key), RangeEnd: []byte(b.end)}
			Ask(c, b.name, c.KV.Range, request)
			request.CountOnly = true
			Ask(c, b.name+", counted", c.KV.Range, request)
		}
		Refuse(c, "empty key", c.KV.Range, &pb.RangeRequest{}, codes.InvalidArgument, emptyKey)
		Refuse(c, "empty key with end", c.KV.Range, &pb.RangeRequest{RangeEnd: []byte{0}}, codes.InvalidArgument, emptyKey)
	})
}

func TestRangeSortsByEveryTargetInEveryOrderWithEveryLimit(t *testing.T) {
	OnBoth(t, func(c *Case) {
		fruits(c)
		for target := range pb.RangeRequest_SortTarget_name {
			for order := range pb.RangeRequest_SortOrder_name {
				for _, limit := range []int64{-1, 0, 1, 2, 5, 6} {
					request := all()
					request.SortTarget = pb.RangeRequest_SortTarget(target)
					request.SortOrder = pb.RangeRequest_SortOrder(order)
					request.Limit = limit
					ordered(c, "", request)
					request.KeysOnly = true
					ordered(c, ", keys only", request)
				}
			}
		}
	})
}

// ordered asks once; map iteration above is random, so steps are named by their options and noted
// only for the comparison by a sorted name.
func ordered(c *Case, suffix string, request *pb.RangeRequest) {
	c.Helper()
	answer, err := c.KV.Range(c.Context(), request)
	if err != nil {
		c.Fatal(err)
	}
	c.RecordUnder(fmt.Sprintf("%v %v limit %d%s", request.SortTarget, request.SortOrder, request.Limit, suffix), answer)
}

func TestRangeSortedWithoutAnOrderFetchesLimitPlusOneByKeyThenSorts(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, key := range []string{"d", "c", "b", "a"} {
			c.Put(key, "1")
		}
		request := all()
		request.SortTarget, request.Limit = pb.RangeRequest_MOD, 2
		if got := Keys(Ask(c, "no order", c.KV.Range, request)); got != "c b" {
			c.Errorf("no order: %s", got)
		}
		request.SortOrder = pb.RangeRequest_ASCEND
		if got := Keys(Ask(c, "ascending", c.KV.Range, request)); got != "d c" {
			c.Errorf("ascending: %s", got)
		}
	})
}

func TestRangeKeepsKeyOrderAmongEqualSortValues(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for i := range 10 {
			c.Put(fmt.Sprintf("k%02d", i), "same")
		}
		for _, order := range []pb.RangeRequest_SortOrder{pb.RangeRequest_ASCEND, pb.RangeRequest_DESCEND} {
			request := all()
			request.SortTarget, request.SortOrder = pb.RangeRequest_VERSION, order
			Ask(c, order.String(), c.KV.Range, request)
		}
	})
}

func TestRangeRefusesUnknownSortOptions(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		for _, r := range []*pb.RangeRequest{
			{Key: []byte("a"), SortOrder: 3}, {Key: []byte("a"), SortOrder: -1},
			{Key: []byte("a"), SortTarget: 5}, {Key: []byte("a"), SortTarget: -1},
			{Key: []byte("a"), SortTarget: 99, SortOrder: 1},
		} {
			Refuse(c, fmt.Sprint("order ", r.SortOrder, " target ", r.SortTarget), c.KV.Range, r, codes.InvalidArgument, badSort)
		}
	})
}

func TestRangeFiltersByRevisionAfterCounting(t *testing.T) {
	OnBoth(t, func(c *Case) {
		fruits(c)
		for _, limit := range []int64{0, 1, 2} {
			for revision := int64(1); revision <= 15; revision += 2 {
				for name, r := range map[string]*pb.RangeRequest{
					"min mod": {MinModRevision: revision}, "max mod": {MaxModRevision: revision},
					"min create": {MinCreateRevision: revision}, "max create": {MaxCreateRevision: revision},
					"mod window":    {MinModRevision: revision, MaxModRevision: revision + 3},
					"create window": {MinCreateRevision: revision, MaxCreateRevision: revision + 2, SortOrder: pb.RangeRequest_DESCEND},
				} {
					r.Key, r.RangeEnd, r.Limit = []byte{0}, []byte{0}, limit
					answer, err := c.KV.Range(c.Context(), r)
					if err != nil {
						c.Fatal(err)
					}
					c.RecordUnder(fmt.Sprintf("%s %d limit %d", name, revision, limit), answer)
				}
			}
		}
	})
}

func TestRangeAtARevisionShowsThatRevision(t *testing.T) {
	OnBoth(t, func(c *Case) {
		fruits(c)
		for revision := int64(1); revision <= 13; revision++ {
			request := all()
			request.Revision = revision
			Ask(c, fmt.Sprint("revision ", revision), c.KV.Range, request)
			request.Limit = 2
			Ask(c, fmt.Sprint("revision ", revision, " limit 2"), c.KV.Range, request)
			request.KeysOnly = true
			Ask(c, fmt.Sprint("revision ", revision, " limit 2 keys only"), c.KV.Range, request)
			request.CountOnly = true
			Ask(c, fmt.Sprint("revision ", revision, " counted"), c.KV.Range, request)
			Ask(c, fmt.Sprint("revision ", revision, " one key"), c.KV.Range, &pb.RangeRequest{Key: []byte("date"), Revision: revision})
		}
		for _, revision := range []int64{-1, -100} {
			request := all()
			request.Revision = revision
			Ask(c, fmt.Sprint("revision ", revision), c.KV.Range, request)
		}
		for _, revision := range []int64{14, 1000, 1<<63 - 1} {
			Refuse(c, fmt.Sprint("revision ", revision), c.KV.Range, &pb.RangeRequest{Key: []byte("a"), Revision: revision}, codes.OutOfRange, future)
		}
		c.Delete("date")
		Ask(c, "deleted now", c.KV.Range, &pb.RangeRequest{Key: []byte("date")})
		Ask(c, "there before", c.KV.Range, &pb.RangeRequest{Key: []byte("date"), Revision: 13})
	})
}

func TestRangeKeysOnlyLeavesValueAndLeaseOut(t *testing.T) {
	OnBoth(t, func(c *Case) {
		fruits(c)
		one := &pb.RangeRequest{Key: []byte("cherry"), KeysOnly: true}
		if answer := Ask(c, "index only", c.KV.Range, one); answer.Kvs[0].Lease != 0 || answer.Kvs[0].Value != nil {
			c.Errorf("lease or value shown: %v", answer)
		}
		one.SortTarget = pb.RangeRequest_VALUE
		if answer := Ask(c, "sorted by value", c.KV.Range, one); answer.Kvs[0].Lease != 77 {
			c.Errorf("no lease: %v", answer)
		}
		one.CountOnly = true
		Ask(c, "keys and count only", c.KV.Range, one)
		many := all()
		many.CountOnly, many.Limit = true, 2
		Ask(c, "count only ignores limit", c.KV.Range, many)
		many.CountOnly, many.Serializable = false, true
		Ask(c, "serializable", c.KV.Range, many)
	})
}

func TestRangeStreamSendsKeysInChunksAndTheHeaderLast(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for i := range 57 {
			c.Put(fmt.Sprintf("k%03d", i), fmt.Sprint("value ", i))
		}
		c.Delete("k007")
		base := func() *pb.RangeRequest { return &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")} }
		for name, change := range map[string]func(*pb.RangeRequest){
			"all": func(*pb.RangeRequest) {}, "limit": func(r *pb.RangeRequest) { r.Limit = 23 },
			"limit below a chunk": func(r *pb.RangeRequest) { r.Limit = 3 },
			"limit above all":     func(r *pb.RangeRequest) { r.Limit = 100 },
			"keys only":           func(r *pb.RangeRequest) { r.KeysOnly = true },
			"count only":          func(r *pb.RangeRequest) { r.CountOnly = true },
			"old revision":        func(r *pb.RangeRequest) { r.Revision = 31 },
			"ascending by key":    func(r *pb.RangeRequest) { r.SortOrder = pb.RangeRequest_ASCEND },
			"few keys by mod revision": func(r *pb.RangeRequest) {
				r.RangeEnd, r.SortTarget = []byte("k007"), pb.RangeRequest_MOD
			},
			"serializable":  func(r *pb.RangeRequest) { r.Serializable = true },
			"nothing found": func(r *pb.RangeRequest) { r.Key, r.RangeEnd = []byte("x"), []byte("y") },
			"one key":       func(r *pb.RangeRequest) { r.Key, r.RangeEnd = []byte("k003"), nil },
			"end below key": func(r *pb.RangeRequest) { r.Key, r.RangeEnd = []byte("y"), []byte("x") },
		} {
			request := base()
			change(request)
			for i, chunk := range chunks(c, request) {
				c.RecordUnder(fmt.Sprintf("%s, chunk %02d", name, i), chunk)
			}
		}
	})
}

func TestRangeStreamChunksFollowTheEncodedSize(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for i := range 40 {
			c.Put(fmt.Sprintf("k%03d", i), string(make([]byte, 100_000)))
		}
		sent := 0
		received := chunks(c, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
		for _, chunk := range received {
			sent += len(chunk.Kvs)
			c.RecordUnder(fmt.Sprintf("at key %03d", sent), &pb.RangeResponse{Count: int64(len(chunk.Kvs))})
		}
		if last := received[len(received)-1]; sent != 40 || last.Count != 40 || last.Header == nil {
			c.Errorf("%d keys sent, last chunk count %d header %v", sent, last.Count, last.Header)
		}
	})
}

func TestRangeStreamRefusesWhatItCannotSendInChunks(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("k", "1")
		c.Put("k", "2")
		if _, err := c.KV.Compact(c.Context(), &pb.CompactionRequest{Revision: 3}); err != nil {
			c.Fatal(err)
		}
		key := []byte("k")
		for _, r := range []struct {
			name    string
			request *pb.RangeRequest
			code    codes.Code
			text    string
		}{
			{"empty key", &pb.RangeRequest{}, codes.InvalidArgument, emptyKey},
			{"bad order", &pb.RangeRequest{Key: key, SortOrder: 9}, codes.InvalidArgument, badSort},
			{"descending", &pb.RangeRequest{Key: key, SortOrder: pb.RangeRequest_DESCEND}, codes.Unimplemented, "RangeStream does not support custom sort orders"},
			{"by mod ascending", &pb.RangeRequest{Key: key, SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_MOD}, codes.Unimplemented, "RangeStream does not support custom sort orders"},
			{"min mod", &pb.RangeRequest{Key: key, MinModRevision: 1}, codes.Unimplemented, "RangeStream does not support revision filters"},
			{"max mod", &pb.RangeRequest{Key: key, MaxModRevision: 1}, codes.Unimplemented, "RangeStream does not support revision filters"},
			{"min create", &pb.RangeRequest{Key: key, MinCreateRevision: 1}, codes.Unimplemented, "RangeStream does not support revision filters"},
			{"max create", &pb.RangeRequest{Key: key, MaxCreateRevision: 1}, codes.Unimplemented, "RangeStream does not support revision filters"},
			{"compacted", &pb.RangeRequest{Key: key, Revision: 2}, codes.OutOfRange, compacted},
			{"future", &pb.RangeRequest{Key: key, Revision: 4}, codes.OutOfRange, future},
		} {
			stream, err := c.KV.RangeStream(c.Context(), r.request)
			if err == nil {
				_, err = stream.Recv()
			}
			c.Refused(r.name, err, r.code, r.text)
		}
	})
}

// With more keys than one chunk etcd repeats and loses keys here, or sends one chunk of any size, so
// only the other server is asked.
func TestRangeStreamWithASortTargetOrANegativeLimitSendsWhatRangeAnswers(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for i := range 50 {
			c.Put(fmt.Sprintf("k%02d", 49-i), string(make([]byte, 50_000)))
		}
		if c.Server.Real() {
			return
		}
		sorted, negative := all(), all()
		sorted.SortTarget, negative.Limit = pb.RangeRequest_MOD, -1
		for name, r := range map[string]*pb.RangeRequest{"by mod revision": sorted, "negative limit": negative} {
			whole, err := c.KV.Range(c.Context(), r)
			if err != nil {
				c.Fatal(err)
			}
			received := chunks(c, r)
			var keys []string
			for _, chunk := range received {
				keys = append(keys, Keys(chunk))
			}
			last := received[len(received)-1]
			if strings.Join(keys, " ") != Keys(whole) || last.Count != whole.Count || len(received) < 2 {
				c.Errorf("%s: %d chunks, count %d: %v", name, len(received), last.Count, keys)
			}
		}
	})
}

func chunks(c *Case, request *pb.RangeRequest) []*pb.RangeResponse {
	c.Helper()
	stream, err := c.KV.RangeStream(c.Context(), request)
	if err != nil {
		c.Fatal(err)
	}
	var received []*pb.RangeResponse
	for {
		chunk, err := stream.Recv()
		if err != nil {
			if err.Error() != "EOF" {
				c.Fatal(err)
			}
			return received
		}
		received = append(received, chunk.RangeResponse)
	}
}
