package api

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	. "etched.local/compat-tests/harness"
)

const (
	keyNotFound   = "etcdserver: key not found"
	valueProvided = "etcdserver: value is provided"
	leaseProvided = "etcdserver: lease is provided"
	leaseNotFound = "etcdserver: requested lease not found"
)

func TestAFreshStoreHasRevisionOneAndTheFirstWriteGetsTwo(t *testing.T) {
	OnBoth(t, func(c *Case) {
		if empty := c.Everything("fresh"); empty.Header.Revision != 1 {
			c.Errorf("fresh store at revision %d", empty.Header.Revision)
		}
		first := Ask(c, "first put", c.KV.Put, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")})
		if first.Header.Revision != 2 {
			c.Errorf("first write has revision %d", first.Header.Revision)
		}
		Ask(c, "second put", c.KV.Put, &pb.PutRequest{Key: []byte("a")})
		Ask(c, "header of an old revision is the current one", c.KV.Range, &pb.RangeRequest{Key: []byte("a"), Revision: 2})
	})
}

func TestPutOptionsKeepValueOrLeaseAndShowThePreviousPair(t *testing.T) {
	OnBoth(t, func(c *Case) {
		a, put := []byte("a"), c.KV.Put
		c.Grant(10, 600)
		c.Grant(20, 600)
		Ask(c, "prev_kv of a new key", put, &pb.PutRequest{Key: a, Value: []byte("1"), Lease: 10, PrevKv: true})
		Ask(c, "prev_kv", put, &pb.PutRequest{Key: a, Value: []byte("2"), Lease: 10, PrevKv: true})
		Ask(c, "ignore_value", put, &pb.PutRequest{Key: a, IgnoreValue: true, PrevKv: true})
		Ask(c, "after ignore_value", c.KV.Range, &pb.RangeRequest{Key: a})
		Ask(c, "lease again", put, &pb.PutRequest{Key: a, Value: []byte("3"), Lease: 10})
		Ask(c, "ignore_lease", put, &pb.PutRequest{Key: a, Value: []byte("4"), IgnoreLease: true})
		Ask(c, "both ignored", put, &pb.PutRequest{Key: a, IgnoreValue: true, IgnoreLease: true, PrevKv: true})
		Ask(c, "after both", c.KV.Range, &pb.RangeRequest{Key: a})
		Ask(c, "another lease takes it over", put, &pb.PutRequest{Key: a, Value: []byte("5"), Lease: 20})
		Ask(c, "left the first lease", c.Lease.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: 30, Keys: true})
		Ask(c, "empty value", put, &pb.PutRequest{Key: a})
		Ask(c, "detached", c.KV.Range, &pb.RangeRequest{Key: a})
		Ask(c, "binary", put, &pb.PutRequest{Key: []byte{0, 0xff, 0}, Value: []byte{0xfe, 0}})
		Ask(c, "prev_kv of an empty value", put, &pb.PutRequest{Key: a, Value: []byte("6"), PrevKv: true})
		c.Everything("end")
	})
}

func TestPutRefusesWhatContradictsItself(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		a, v := []byte("a"), []byte("v")
		for _, r := range []struct {
			name    string
			request *pb.PutRequest
			code    codes.Code
			text    string
		}{
			{"empty key", &pb.PutRequest{Value: v}, codes.InvalidArgument, emptyKey},
			{"empty key with other faults", &pb.PutRequest{Value: v, IgnoreValue: true, Lease: 9}, codes.InvalidArgument, emptyKey},
			{"ignore_value with a value", &pb.PutRequest{Key: a, Value: v, IgnoreValue: true}, codes.InvalidArgument, valueProvided},
			{"ignore_lease with a lease", &pb.PutRequest{Key: a, Lease: 9, IgnoreLease: true}, codes.InvalidArgument, leaseProvided},
			{"both", &pb.PutRequest{Key: a, Value: v, Lease: 9, IgnoreValue: true, IgnoreLease: true}, codes.InvalidArgument, valueProvided},
			{"ignore_value of no key", &pb.PutRequest{Key: v, IgnoreValue: true}, codes.InvalidArgument, keyNotFound},
			{"ignore_lease of no key", &pb.PutRequest{Key: v, Value: v, IgnoreLease: true}, codes.InvalidArgument, keyNotFound},
			{"unknown lease", &pb.PutRequest{Key: a, Value: v, Lease: 9}, codes.NotFound, leaseNotFound},
			{"negative lease", &pb.PutRequest{Key: a, Value: v, Lease: -9}, codes.NotFound, leaseNotFound},
			{"no key and unknown lease", &pb.PutRequest{Key: v, Lease: 9, IgnoreValue: true}, codes.NotFound, leaseNotFound},
		} {
			Refuse(c, r.name, c.KV.Put, r.request, r.code, r.text)
		}
		c.Delete("a")
		Refuse(c, "ignore_value of a deleted key", c.KV.Put, &pb.PutRequest{Key: a, IgnoreValue: true}, codes.InvalidArgument, keyNotFound)
		c.Everything("nothing changed")
	})
}

func TestDeleteCountsWhatItFoundAndNamesItOnRequest(t *testing.T) {
	OnBoth(t, func(c *Case) {
		del := c.KV.DeleteRange
		for _, key := range []string{"a", "b", "ba", "c", "d", "e", "f"} {
			c.Put(key, "of "+key)
		}
		Ask(c, "no match", del, &pb.DeleteRangeRequest{Key: []byte("zz")})
		Ask(c, "no match, prev_kv", del, &pb.DeleteRangeRequest{Key: []byte("zz"), PrevKv: true})
		Ask(c, "end below key", del, &pb.DeleteRangeRequest{Key: []byte("d"), RangeEnd: []byte("a")})
		Ask(c, "one", del, &pb.DeleteRangeRequest{Key: []byte("a")})
		Ask(c, "again", del, &pb.DeleteRangeRequest{Key: []byte("a"), PrevKv: true})
		Ask(c, "prefix with prev_kv", del, &pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte("c"), PrevKv: true})
		Ask(c, "one with prev_kv", del, &pb.DeleteRangeRequest{Key: []byte("c"), PrevKv: true})
		Ask(c, "from a key on", del, &pb.DeleteRangeRequest{Key: []byte("e"), RangeEnd: []byte{0}})
		Ask(c, "everything", del, &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true})
		Ask(c, "nothing is left", del, &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true})
		Refuse(c, "empty key", del, &pb.DeleteRangeRequest{}, codes.InvalidArgument, emptyKey)
		Refuse(c, "empty key with end", del, &pb.DeleteRangeRequest{RangeEnd: []byte{0}}, codes.InvalidArgument, emptyKey)
		c.Put("a", "anew")
		c.Put("a", "anew")
		c.Everything("a new generation starts at version 1")
		Ask(c, "history", c.KV.Range, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: 9})
	})
}

func TestDeletesWithoutAMatchAreRaftEntries(t *testing.T) {
	OnBoth(t, func(c *Case) {
		settled(c)
		c.Put("a", "1")
		index := func() uint64 {
			answer, err := c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
			if err != nil {
				c.Fatal(err)
			}
			return answer.RaftIndex
		}
		entries := func(name string, call func() error, refused bool) {
			before := index()
			if err := call(); (err != nil) != refused {
				c.Errorf("%s: %v", name, err)
			}
			c.Notef(name, "%d", index()-before)
		}
		ctx := c.Context()
		entries("put", func() error { _, err := c.KV.Put(ctx, &pb.PutRequest{Key: []byte("b")}); return err }, false)
		entries("delete without a match", func() error {
			_, err := c.KV.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("zz")})
			return err
		}, false)
		entries("range", func() error { _, err := c.KV.Range(ctx, &pb.RangeRequest{Key: []byte("zz")}); return err }, false)
		entries("empty txn", func() error { _, err := c.KV.Txn(ctx, &pb.TxnRequest{}); return err }, false)
		entries("read-only txn", func() error { _, err := c.KV.Txn(ctx, then(get("a"))); return err }, false)
		entries("nested read-only txn", func() error { _, err := c.KV.Txn(ctx, then(nested(then(get("a"))))); return err }, false)
		entries("txn that deletes nothing", func() error { _, err := c.KV.Txn(ctx, then(del("zz", ""))); return err }, false)
		entries("compaction of the future", func() error {
			_, err := c.KV.Compact(ctx, &pb.CompactionRequest{Revision: 100})
			return err
		}, true)
		entries("put of an unknown lease", func() error {
			_, err := c.KV.Put(ctx, &pb.PutRequest{Key: []byte("b"), Lease: 5})
			return err
		}, true)
		entries("revoke of an unknown lease", func() error {
			_, err := c.Lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 5})
			return err
		}, true)
		entries("too large TTL", func() error {
			_, err := c.Lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 9_000_000_001})
			return err
		}, true)
		entries("time to live", func() error {
			_, err := c.Lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 5})
			return err
		}, false)
		entries("list of leases", func() error { _, err := c.Lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{}); return err }, false)
		entries("list of members", func() error {
			_, err := c.Cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			return err
		}, false)
		entries("hash", func() error { _, err := c.Maintenance.HashKV(ctx, &pb.HashKVRequest{}); return err }, false)
		entries("list of alarms", func() error { _, err := c.Maintenance.Alarm(ctx, &pb.AlarmRequest{}); return err }, false)
	})
}
