package api

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	. "etched.local/compat-tests/harness"
)

const (
	duplicate  = "etcdserver: duplicate key given in txn request"
	tooManyOps = "etcdserver: too many operations in txn request"
)

func put(key, value string) *pb.RequestOp {
	return putOp(&pb.PutRequest{Key: []byte(key), Value: []byte(value)})
}

func putOp(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func get(key string) *pb.RequestOp { return getOp(&pb.RangeRequest{Key: []byte(key)}) }

func getOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func del(key, end string) *pb.RequestOp {
	return delOp(&pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)})
}

func delOp(r *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}

func nested(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

func then(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: ops} }

func version(key string, result pb.Compare_CompareResult, version int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Result: result, Target: pb.Compare_VERSION,
		TargetUnion: &pb.Compare_Version{Version: version}}
}

func TestTxnWritesShareOneRevisionAndReadWhatWasWrittenBefore(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "0")
		c.Put("b", "0")
		Ask(c, "reads and writes in order", c.KV.Txn, then(
			get("a"), put("a", "1"), get("a"), del("b", ""), get("b"), put("c", "1"), getOp(all())))
		Ask(c, "prev_kv inside", c.KV.Txn, then(
			putOp(&pb.PutRequest{Key: []byte("a"), Value: []byte("2"), PrevKv: true}),
			delOp(&pb.DeleteRangeRequest{Key: []byte("c"), PrevKv: true}),
			putOp(&pb.PutRequest{Key: []byte("d"), PrevKv: true})))
		Ask(c, "nested writes in place", c.KV.Txn, then(
			put("n1", ""), nested(then(put("n2", ""), nested(then(put("n3", ""), getOp(all()))), get("n3"))),
			put("n4", ""), nested(&pb.TxnRequest{Failure: []*pb.RequestOp{put("no", "")}})))
		Ask(c, "deletes of one revision", c.KV.Txn, then(del("n1", ""), del("n2", "n4"), get("n2")))
		Ask(c, "deletes that overlap", c.KV.Txn, then(del("a", "b"), del("a", "")))
		c.Everything("end")
		Ask(c, "within the revision of the txn", c.KV.Range, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: 6})
	})
}

func TestTxnThatChangesNothingKeepsTheRevision(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "0")
		for name, request := range map[string]*pb.TxnRequest{
			"empty": {}, "compare only": {Compare: []*pb.Compare{version("a", pb.Compare_EQUAL, 1)}},
			"false compare only": {Compare: []*pb.Compare{version("a", pb.Compare_EQUAL, 9)}},
			"delete of nothing":  then(del("zz", "")), "read": then(get("a")),
			"nested empty": then(nested(&pb.TxnRequest{})), "nested read": then(nested(then(get("a")))),
			"write in the other branch": {Failure: []*pb.RequestOp{put("a", "1")}},
			"serializable":              then(getOp(&pb.RangeRequest{Key: []byte("a"), Serializable: true})),
		} {
			answer, err := c.KV.Txn(c.Context(), request)
			if err != nil {
				c.Fatal(err)
			}
			if answer.Header.Revision != 2 {
				c.Errorf("%s moved the revision to %d", name, answer.Header.Revision)
			}
			c.RecordUnder(name, answer)
		}
	})
}

func TestTxnRangeOptionsWorkAsOutside(t *testing.T) {
	OnBoth(t, func(c *Case) {
		fruits(c)
		sorted := all()
		sorted.SortTarget, sorted.SortOrder, sorted.Limit = pb.RangeRequest_VALUE, pb.RangeRequest_DESCEND, 3
		counted := all()
		counted.CountOnly = true
		keys := all()
		keys.KeysOnly, keys.MinModRevision = true, 8
		old := all()
		old.Revision = 5
		Ask(c, "read only", c.KV.Txn, then(getOp(sorted), getOp(counted), getOp(keys), getOp(old)))
		Ask(c, "beside a write", c.KV.Txn, then(getOp(sorted), put("grape", "z"), getOp(sorted), getOp(counted), getOp(keys), getOp(old)))
		bad := all()
		bad.SortOrder = 7
		Refuse(c, "bad sort", c.KV.Txn, then(getOp(bad)), codes.InvalidArgument, badSort)
		Refuse(c, "bad sort in the other branch", c.KV.Txn, &pb.TxnRequest{Failure: []*pb.RequestOp{getOp(bad)}}, codes.InvalidArgument, badSort)
		Refuse(c, "bad sort in a nested txn", c.KV.Txn, then(nested(then(getOp(bad)))), codes.InvalidArgument, badSort)
	})
}

func TestTxnChecksEverythingAgainstTheStateBefore(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "0")
		at := func(revision int64) *pb.RequestOp {
			return getOp(&pb.RangeRequest{Key: []byte("a"), Revision: revision})
		}
		keep := putOp(&pb.PutRequest{Key: []byte("new"), IgnoreValue: true})
		keepLease := putOp(&pb.PutRequest{Key: []byte("new"), Value: []byte("x"), IgnoreLease: true})
		leased := putOp(&pb.PutRequest{Key: []byte("b"), Lease: 404})
		for _, r := range []struct {
			name    string
			request *pb.TxnRequest
			code    codes.Code
			text    string
		}{
			{"range at the revision of the txn itself", then(put("a", "1"), at(3)), codes.OutOfRange, future},
			{"range in the future", then(at(9)), codes.OutOfRange, future},
			{"negative range on a store never compacted", then(at(-2)), codes.OutOfRange, compacted},
			{"the same beside a write", then(put("b", ""), at(-2)), codes.OutOfRange, compacted},
			{"ignore_value of a missing key", then(put("b", "1"), keep), codes.InvalidArgument, keyNotFound},
			{"ignore_lease of a missing key", then(keepLease), codes.InvalidArgument, keyNotFound},
			{"ignore_value after a nested put of the key", then(nested(then(put("m", ""))), keep), codes.InvalidArgument, keyNotFound},
			{"unknown lease", then(put("a", "1"), leased), codes.NotFound, leaseNotFound},
			{"unknown lease in a nested txn", then(put("a", "1"), nested(then(leased))), codes.NotFound, leaseNotFound},
			{"empty key of a put", then(put("", "1")), codes.InvalidArgument, emptyKey},
			{"empty key of a range", then(get("")), codes.InvalidArgument, emptyKey},
			{"empty key of a delete", then(del("", "")), codes.InvalidArgument, emptyKey},
			{"empty key of a compare", &pb.TxnRequest{Compare: []*pb.Compare{version("", 0, 0)}}, codes.InvalidArgument, emptyKey},
			{"empty key in the branch not taken", &pb.TxnRequest{Failure: []*pb.RequestOp{put("", "")}}, codes.InvalidArgument, emptyKey},
			{"empty key in a nested txn", then(nested(then(get("")))), codes.InvalidArgument, emptyKey},
			{"empty key of a nested compare", then(nested(&pb.TxnRequest{Compare: []*pb.Compare{version("", 0, 0)}})), codes.InvalidArgument, emptyKey},
			{"value with ignore_value", then(putOp(&pb.PutRequest{Key: []byte("a"), Value: []byte("v"), IgnoreValue: true})), codes.InvalidArgument, valueProvided},
			{"lease with ignore_lease", then(putOp(&pb.PutRequest{Key: []byte("a"), Lease: 1, IgnoreLease: true})), codes.InvalidArgument, leaseProvided},
			{"op without a request", then(&pb.RequestOp{}), codes.InvalidArgument, keyNotFound},
			{"op without a request after a put", then(put("x", ""), &pb.RequestOp{}), codes.InvalidArgument, keyNotFound},
			{"nested op without a request", then(nested(then(&pb.RequestOp{}))), codes.InvalidArgument, keyNotFound},
		} {
			Refuse(c, r.name, c.KV.Txn, r.request, r.code, r.text)
		}
		Ask(c, "revision -1 is not below the floor", c.KV.Txn, then(at(-1)))
		Ask(c, "checks of the branch not taken do not count", c.KV.Txn, &pb.TxnRequest{Failure: []*pb.RequestOp{leased, keep, at(9)}})
		Ask(c, "a nested compare does not see the put before", c.KV.Txn, then(put("n", "1"), nested(&pb.TxnRequest{
			Compare: []*pb.Compare{version("n", pb.Compare_EQUAL, 0)}, Success: []*pb.RequestOp{get("n")}})))
		c.Everything("only the last txn wrote")
	})
}

func TestTxnRefusesMoreOperationsThanAllowed(t *testing.T) {
	many := func(n int) (ops []*pb.RequestOp) {
		for i := range n {
			ops = append(ops, put(fmt.Sprintf("k%04d", i), ""))
		}
		return ops
	}
	gets := func(n int) (ops []*pb.RequestOp) {
		for range n {
			ops = append(ops, get("a"))
		}
		return ops
	}
	compares := func(n int) (list []*pb.Compare) {
		for range n {
			list = append(list, version("a", pb.Compare_GREATER, -1))
		}
		return list
	}
	OnBoth(t, func(c *Case) {
		Ask(c, "128 of each", c.KV.Txn, &pb.TxnRequest{Compare: compares(128), Success: many(128), Failure: many(128)})
		Refuse(c, "129 compares", c.KV.Txn, &pb.TxnRequest{Compare: compares(129)}, codes.InvalidArgument, tooManyOps)
		Refuse(c, "129 in then", c.KV.Txn, then(many(129)...), codes.InvalidArgument, tooManyOps)
		Refuse(c, "129 in else", c.KV.Txn, &pb.TxnRequest{Failure: many(129)}, codes.InvalidArgument, tooManyOps)
		Ask(c, "nested gets what is left", c.KV.Txn, then(put("a", ""), nested(then(many(126)...))))
		Refuse(c, "nested above what is left", c.KV.Txn, then(put("a", ""), nested(then(many(127)...))), codes.InvalidArgument, tooManyOps)
		Ask(c, "two nested ones count alone", c.KV.Txn, then(nested(then(many(126)...)), nested(then(gets(126)...))))
		deep := then(put("deep", ""))
		for range 127 {
			deep = then(nested(deep))
		}
		Ask(c, "128 deep", c.KV.Txn, deep)
		Refuse(c, "129 deep", c.KV.Txn, then(nested(deep)), codes.InvalidArgument, tooManyOps)
		c.Everything("end")
	})
}

func TestMaxTxnOpsFlagSetsTheLimit(t *testing.T) {
	OnBoth(t, func(c *Case) {
		Ask(c, "three", c.KV.Txn, then(put("a", ""), put("b", ""), put("c", "")))
		Refuse(c, "four", c.KV.Txn, then(put("a", ""), put("b", ""), put("c", ""), put("d", "")), codes.InvalidArgument, tooManyOps)
	}, "--max-txn-ops", "3")
}

func TestTxnDuplicateKeyTable(t *testing.T) {
	k := func() *pb.RequestOp { return put("k", "v") }
	group := func(ops ...*pb.RequestOp) *pb.RequestOp { return nested(then(ops...)) }
	either := func(a, b []*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: a, Failure: b} }
	OnBoth(t, func(c *Case) {
		for _, r := range []struct {
			name    string
			request *pb.TxnRequest
		}{
			{"put and put", then(k(), k())},
			{"put and delete", then(k(), del("k", ""))},
			{"delete and put", then(del("k", ""), k())},
			{"put and delete of a range over it", then(k(), del("a", "z"))},
			{"delete of a range and put inside", then(del("a", "z"), k())},
			{"delete of a range from the key on and put", then(del("k", "l"), k())},
			{"put and nested put", then(k(), group(k()))},
			{"nested put and put", then(group(k()), k())},
			{"put and nested delete", then(k(), group(del("k", "")))},
			{"delete and nested put", then(del("k", ""), group(k()))},
			{"delete of a range and nested put", then(del("a", "z"), group(k()))},
			{"nested put and later delete", then(group(k()), del("k", ""))},
			{"nested put and later nested put", then(group(k()), group(k()))},
			{"nested delete and later nested put", then(group(del("k", "")), group(k()))},
			{"nested put in else and put", then(nested(either(nil, []*pb.RequestOp{k()})), k())},
			{"twice in else", either(nil, []*pb.RequestOp{k(), k()})},
			{"three deep", then(k(), group(group(group(k()))))},
		} {
			Refuse(c, r.name, c.KV.Txn, r.request, codes.InvalidArgument, duplicate)
		}
		Ask(c, "nothing was written", c.KV.Range, all())
		for _, r := range []struct {
			name    string
			request *pb.TxnRequest
		}{
			{"delete and overlapping delete", then(del("k", "l"), del("a", "z"), del("k", ""))},
			{"put in then, put in else", either([]*pb.RequestOp{k()}, []*pb.RequestOp{k()})},
			{"put in then and else of one nested txn", then(nested(either([]*pb.RequestOp{k()}, []*pb.RequestOp{k()})))},
			{"nested put and later nested delete", then(group(k()), group(del("k", "")))},
			{"put just outside the deleted range", then(del("a", "k"), k())},
			{"put at the end of the deleted range", then(k(), del("j", "k"))},
			{"get and put", then(get("k"), k(), get("k"))},
			{"delete to the open end and put", then(del("a", "\x00"), put("a", "1"), put("b", "1"))},
			{"delete of everything and put", then(del("\x00", "\x00"), put("a", "2"))},
			{"put and delete to the open end", then(put("b", "3"), del("a", "\x00"))},
		} {
			Ask(c, r.name, c.KV.Txn, r.request)
			c.Everything("after " + r.name)
		}
	})
}

func TestTxnComparesEveryTargetWithEveryOperator(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Grant(50, 600)
		c.Put("a", "m")
		c.Put("a", "m")
		if _, err := c.KV.Put(c.Context(), &pb.PutRequest{Key: []byte("a"), Value: []byte("m"), Lease: 50}); err != nil {
			c.Fatal(err)
		}
		targets := map[string]func(*pb.Compare, int64){
			"version": func(p *pb.Compare, n int64) {
				p.Target, p.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: n}
			},
			"create": func(p *pb.Compare, n int64) {
				p.Target, p.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: n}
			},
			"mod": func(p *pb.Compare, n int64) {
				p.Target, p.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: n}
			},
			"lease": func(p *pb.Compare, n int64) {
				p.Target, p.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: n}
			},
			"value": func(p *pb.Compare, n int64) {
				p.Target, p.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: []byte(map[bool]string{true: "m", false: "a"}[n%2 == 0])}
			},
			"value without union": func(p *pb.Compare, _ int64) { p.Target = pb.Compare_VALUE },
			"mod with a version": func(p *pb.Compare, n int64) {
				p.Target, p.TargetUnion = pb.Compare_MOD, &pb.Compare_Version{Version: n}
			},
			"unknown target": func(p *pb.Compare, n int64) { p.Target = 9 },
		}
		for name, set := range targets {
			for _, key := range []string{"a", "missing"} {
				for result := pb.Compare_CompareResult(-1); result <= 5; result++ {
					for _, n := range []int64{-1, 0, 2, 3, 4, 50, 51} {
						compare := &pb.Compare{Key: []byte(key), Result: result}
						set(compare, n)
						answer, err := c.KV.Txn(c.Context(), &pb.TxnRequest{Compare: []*pb.Compare{compare}})
						if err != nil {
							c.Fatal(err)
						}
						c.RecordUnder(fmt.Sprintf("%s of %s %v %d", name, key, result, n), &pb.TxnResponse{Succeeded: answer.Succeeded})
					}
				}
			}
		}
	})
}

func TestTxnComparesARangeByEveryKeyInIt(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		c.Put("b", "1")
		c.Put("b", "1")
		c.Put("c", "2")
		for _, r := range []struct {
			name, key, end string
			result         pb.Compare_CompareResult
			n              int64
			holds          bool
		}{
			{"all above", "a", "d", pb.Compare_GREATER, 0, true},
			{"not all equal", "a", "d", pb.Compare_EQUAL, 1, false},
			{"an empty range is a zero key", "x", "y", pb.Compare_EQUAL, 0, true},
			{"an empty range is not above zero", "x", "y", pb.Compare_GREATER, 0, false},
			{"open end", "a", "\x00", pb.Compare_GREATER, 0, true},
			{"open end below", "b", "\x00", pb.Compare_LESS, 2, false},
			{"end below key", "c", "a", pb.Compare_EQUAL, 0, true},
			{"everything", "\x00", "\x00", pb.Compare_LESS, 3, true},
		} {
			compare := version(r.key, r.result, r.n)
			compare.RangeEnd = []byte(r.end)
			answer := Ask(c, r.name, c.KV.Txn, &pb.TxnRequest{Compare: []*pb.Compare{compare}})
			if answer.Succeeded != r.holds {
				c.Errorf("%s: %v", r.name, answer.Succeeded)
			}
		}
		value := func(key, end, value string, result pb.Compare_CompareResult) *pb.Compare {
			return &pb.Compare{Key: []byte(key), RangeEnd: []byte(end), Result: result, Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte(value)}}
		}
		Ask(c, "values all equal", c.KV.Txn, &pb.TxnRequest{Compare: []*pb.Compare{value("a", "c", "1", pb.Compare_EQUAL)}})
		Ask(c, "values not all equal", c.KV.Txn, &pb.TxnRequest{Compare: []*pb.Compare{value("a", "d", "1", pb.Compare_EQUAL)}})
		Ask(c, "value of an empty range", c.KV.Txn, &pb.TxnRequest{Compare: []*pb.Compare{value("x", "y", "1", pb.Compare_NOT_EQUAL)}})
		Ask(c, "all compares must hold", c.KV.Txn, &pb.TxnRequest{
			Compare: []*pb.Compare{version("a", pb.Compare_EQUAL, 1), version("b", pb.Compare_EQUAL, 1)},
			Success: []*pb.RequestOp{get("a")}, Failure: []*pb.RequestOp{get("b")}})
	})
}

func TestTxnDeleteThenPutThatKeepsTheValueIsNoCrash(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		request := then(del("a", "\x00"), putOp(&pb.PutRequest{Key: []byte("a"), IgnoreValue: true}))
		if !c.Server.Real() { // real etcd panics on it, now and at every restart
			if _, err := c.KV.Txn(c.Context(), request); err == nil {
				c.Error("accepted")
			}
		}
		c.Everything("still serves")
	})
}
