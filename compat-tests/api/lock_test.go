package api

import (
	"context"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	lockpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	. "etched.local/compat-tests/harness"
)

// outcome is what a call that waits came to.
type outcome[A proto.Message] struct {
	answer A
	err    error
}

// begin makes a call that waits and gives what it comes to, and what cancels it.
func begin[Q, A proto.Message](c *Case, call Method[Q, A], request Q) (<-chan outcome[A], context.CancelFunc) {
	ctx, cancel := context.WithCancel(c.Context())
	done := make(chan outcome[A], 1)
	go func() {
		answer, err := call(ctx, request)
		done <- outcome[A]{answer, err}
	}()
	return done, cancel
}

// keysUnder waits until there are that many keys with the prefix.
func keysUnder(c *Case, prefix string, count int64) {
	c.Helper()
	end := []byte(prefix)
	end[len(end)-1]++
	c.Eventually("the keys under "+prefix, func() bool {
		answer, err := c.KV.Range(c.Context(), &pb.RangeRequest{Key: []byte(prefix), RangeEnd: end, CountOnly: true})
		return err == nil && answer.Count == count
	})
}

func revoke(c *Case, id int64) {
	c.Helper()
	if _, err := c.Lease.LeaseRevoke(c.Context(), &pb.LeaseRevokeRequest{ID: id}); err != nil {
		c.Fatal(err)
	}
}

func TestLockIsTakenAndGivenBackByItsKey(t *testing.T) {
	OnBoth(t, func(c *Case) {
		locks := lockpb.NewLockClient(c.Conn)
		c.Grant(0x1f, 600)
		for _, name := range []string{"n", "", "n/", "\xff\xff"} {
			request := &lockpb.LockRequest{Name: []byte(name), Lease: 0x1f}
			held := Ask(c, "free", locks.Lock, request)
			Ask(c, "the holder again", locks.Lock, request)
			Ask(c, "given back", locks.Unlock, &lockpb.UnlockRequest{Key: held.Key})
			Ask(c, "given back twice", locks.Unlock, &lockpb.UnlockRequest{Key: held.Key})
			Ask(c, "free once more", locks.Lock, request)
		}
		c.Everything("keys")
		Refuse(c, "no key", locks.Unlock, &lockpb.UnlockRequest{}, codes.Unknown, "etcdserver: key is not provided")
		for _, lease := range []int64{99, -1} {
			Refuse(c, "no such lease", locks.Lock, &lockpb.LockRequest{Name: []byte("n"), Lease: lease}, codes.Unknown,
				"etcdserver: requested lease not found")
		}
	})
}

func TestLockWithoutALeaseGetsOneOfAMinute(t *testing.T) {
	OnBoth(t, func(c *Case) {
		locks := lockpb.NewLockClient(c.Conn)
		held, err := locks.Lock(c.Context(), &lockpb.LockRequest{Name: []byte("n")})
		if err != nil {
			c.Fatal(err)
		}
		kv, err := c.KV.Range(c.Context(), &pb.RangeRequest{Key: held.Key})
		if err != nil || len(kv.Kvs) != 1 {
			c.Fatalf("%v %v", kv, err)
		}
		left, err := c.Lease.LeaseTimeToLive(c.Context(), &pb.LeaseTimeToLiveRequest{ID: kv.Kvs[0].Lease})
		if err != nil || left.GrantedTTL != 60 {
			c.Fatalf("%v %v", left, err)
		}
	})
}

func TestLocksComeInTheOrderOfAsking(t *testing.T) {
	OnBoth(t, func(c *Case) {
		locks := lockpb.NewLockClient(c.Conn)
		var calls []<-chan outcome[*lockpb.LockResponse]
		for lease := int64(1); lease <= 4; lease++ {
			c.Grant(lease, 600)
			call, _ := begin(c, locks.Lock, &lockpb.LockRequest{Name: []byte("n"), Lease: lease})
			calls = append(calls, call)
			keysUnder(c, "n/", lease)
		}
		for at, call := range calls {
			held := <-call
			if held.err != nil {
				c.Fatal(held.err)
			}
			c.Record("the next", held.answer)
			for _, later := range calls[at+1:] {
				select {
				case early := <-later:
					c.Fatalf("two hold the lock: %v", early)
				default:
				}
			}
			Ask(c, "given back", locks.Unlock, &lockpb.UnlockRequest{Key: held.answer.Key})
		}
	})
}

func TestLockOfAnEndedLeasePassesOn(t *testing.T) {
	OnBoth(t, func(c *Case) {
		locks := lockpb.NewLockClient(c.Conn)
		for lease := int64(1); lease <= 3; lease++ {
			c.Grant(lease, 600)
		}
		held := Ask(c, "the first", locks.Lock, &lockpb.LockRequest{Name: []byte("n"), Lease: 1})
		second, _ := begin(c, locks.Lock, &lockpb.LockRequest{Name: []byte("n"), Lease: 2})
		keysUnder(c, "n/", 2)
		third, _ := begin(c, locks.Lock, &lockpb.LockRequest{Name: []byte("n"), Lease: 3})
		keysUnder(c, "n/", 3)
		// The second's lease ends while it waits: it never holds the lock.
		revoke(c, 2)
		if c.Server.Real() {
			// etcd says so only when its turn would have come.
			revoke(c, 1)
		}
		c.RecordError("a waiter without its lease", (<-second).err)
		if !c.Server.Real() {
			revoke(c, 1)
		}
		last := <-third
		if last.err != nil {
			c.Fatal(last.err)
		}
		c.Record("the third", last.answer)
		Ask(c, "a key that is gone", locks.Unlock, &lockpb.UnlockRequest{Key: held.Key})
	})
}

func TestLockThatNobodyWaitsForAnyMoreIsWithdrawn(t *testing.T) {
	OnBoth(t, func(c *Case) {
		locks := lockpb.NewLockClient(c.Conn)
		for lease := int64(1); lease <= 3; lease++ {
			c.Grant(lease, 600)
		}
		held := Ask(c, "the first", locks.Lock, &lockpb.LockRequest{Name: []byte("n"), Lease: 1})
		_, cancel := begin(c, locks.Lock, &lockpb.LockRequest{Name: []byte("n"), Lease: 2})
		keysUnder(c, "n/", 2)
		third, _ := begin(c, locks.Lock, &lockpb.LockRequest{Name: []byte("n"), Lease: 3})
		keysUnder(c, "n/", 3)
		cancel()
		keysUnder(c, "n/", 2)
		Ask(c, "given back", locks.Unlock, &lockpb.UnlockRequest{Key: held.Key})
		last := <-third
		if last.err != nil {
			c.Fatal(last.err)
		}
		c.Record("the third", last.answer)
	})
}

// A compaction under a waiter must not end its waiting, as it may with etcd.
func TestLockIsWaitedForThroughCompactions(t *testing.T) {
	OnBoth(t, func(c *Case) {
		locks := lockpb.NewLockClient(c.Conn)
		c.Grant(1, 600)
		c.Grant(2, 600)
		held := Ask(c, "the first", locks.Lock, &lockpb.LockRequest{Name: []byte("n"), Lease: 1})
		second, _ := begin(c, locks.Lock, &lockpb.LockRequest{Name: []byte("n"), Lease: 2})
		keysUnder(c, "n/", 2)
		for range 5 {
			revision := c.Put("other", "x").Header.Revision
			if _, err := c.KV.Compact(c.Context(), &pb.CompactionRequest{Revision: revision, Physical: true}); err != nil {
				c.Fatal(err)
			}
		}
		if _, err := locks.Unlock(c.Context(), &lockpb.UnlockRequest{Key: held.Key}); err != nil {
			c.Fatal(err)
		}
		next := <-second
		if c.Server.Real() {
			return // etcd gives up when its watch was begun below the floor
		}
		if next.err != nil || string(next.answer.Key) != "n/2" {
			c.Errorf("the second got %v", next)
		}
	})
}
