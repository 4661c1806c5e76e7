package api

import (
	"fmt"
	"math/rand"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	. "etched.local/compat-tests/harness"
)

func TestHashKVAnswersForEachReadableRevision(t *testing.T) {
	OnBoth(t, func(c *Case) {
		hash := func(step string, revision int64) *pb.HashKVResponse {
			c.Helper()
			return Ask(c, step, c.Maintenance.HashKV, &pb.HashKVRequest{Revision: revision})
		}
		hash("of a fresh store", 0)
		hash("at 1", 1)
		fruits(c)
		for revision := int64(0); revision <= 13; revision++ {
			hash(fmt.Sprint("at ", revision), revision)
		}
		hash("negative is now", -1)
		Refuse(c, "future", c.Maintenance.HashKV, &pb.HashKVRequest{Revision: 14}, codes.OutOfRange, future)
		Ask(c, "compact", c.KV.Compact, &pb.CompactionRequest{Revision: 9, Physical: true})
		Refuse(c, "below the floor", c.Maintenance.HashKV, &pb.HashKVRequest{Revision: 8}, codes.OutOfRange, compacted)
		for revision := int64(9); revision <= 13; revision++ {
			hash(fmt.Sprint("compacted, at ", revision), revision)
		}
		hash("compacted, now", 0)
		Ask(c, "compact to the end", c.KV.Compact, &pb.CompactionRequest{Revision: 13, Physical: true})
		hash("compacted to the end", 0)
	})
}

// Hash covers the whole backend file with etcd's own bookkeeping in it, so only that it answers and
// that writes change it is the same for both.
func TestHashOfTheWholeStoreChangesWithIt(t *testing.T) {
	OnBoth(t, func(c *Case) {
		hash := func() uint32 {
			answer, err := c.Maintenance.Hash(c.Context(), &pb.HashRequest{})
			if err != nil {
				c.Fatal(err)
			}
			c.Notef("header", "%v %v", answer.Header.Revision, answer.Header.MemberId)
			return answer.Hash
		}
		c.Put("a", "1")
		first := hash()
		if again := hash(); again != first {
			c.Errorf("quiet store: %d, then %d", first, again)
		}
		c.Put("a", "2")
		if later := hash(); later == first {
			c.Error("a put did not change it")
		}
	})
}

// random drives the same seeded history on either server.
type random struct {
	*rand.Rand
	c         *Case
	revision  int64
	compacted int64
	// physical compactions leave their own hash behind for the compacted revision; with others it
	// is a race whether that is there yet, so those histories do not ask at the floor.
	physical bool
}

func (r *random) key() []byte { return fmt.Appendf(nil, "k%02d", r.Intn(40)) }

func (r *random) value() []byte {
	value := make([]byte, r.Intn(300))
	r.Read(value)
	return value
}

func (r *random) op() *pb.RequestOp {
	switch r.Intn(3) {
	case 0:
		from := r.Intn(40)
		return del(fmt.Sprintf("k%02d", from), fmt.Sprintf("k%02d", from+r.Intn(4)))
	default:
		return putOp(&pb.PutRequest{Key: r.key(), Value: r.value()})
	}
}

func (r *random) step() {
	ctx := r.c.Context()
	switch n := r.Intn(100); {
	case n < 50:
		_, err := r.c.KV.Put(ctx, &pb.PutRequest{Key: r.key(), Value: r.value(), Lease: int64(r.Intn(3))})
		r.must(err)
	case n < 65:
		from := r.Intn(40)
		_, err := r.c.KV.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "k%02d", from), RangeEnd: fmt.Appendf(nil, "k%02d", from+1+r.Intn(5))})
		r.must(err)
	case n < 90:
		// Refused ones (a duplicate key) are part of the history too.
		request := &pb.TxnRequest{Compare: []*pb.Compare{version(string(r.key()), pb.Compare_GREATER, int64(r.Intn(3)))}}
		for range r.Intn(5) {
			request.Success = append(request.Success, r.op())
			request.Failure = append(request.Failure, r.op(), nested(then(r.op())))
		}
		_, _ = r.c.KV.Txn(ctx, request)
	case n < 97:
		answer, err := r.c.KV.Range(ctx, &pb.RangeRequest{Key: r.key()})
		r.must(err)
		r.revision = answer.Header.Revision
	default:
		if span := r.revision - r.compacted; span > 1 {
			r.compacted += 1 + r.Int63n(span-1)
			_, err := r.c.KV.Compact(ctx, &pb.CompactionRequest{Revision: r.compacted, Physical: r.physical})
			r.must(err)
		}
	}
}

func (r *random) must(err error) {
	if err != nil {
		r.c.Fatal(err)
	}
}

func TestHashKVIsEqualAfterTheSameRandomHistory(t *testing.T) {
	for seed := int64(1); seed <= 6; seed++ {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				c.Grant(1, 6000)
				c.Grant(2, 6000)
				r := &random{Rand: rand.New(rand.NewSource(seed)), c: c, revision: 1, physical: seed%2 == 0}
				for range 6 {
					for range 120 {
						r.step()
					}
					hashes(c, r)
				}
				before := c.Everything("whole store")
				c.Server.Kill()
				c.Server.Restart(c)
				c.Reconnect()
				if after := c.Everything("whole store after kill -9"); after.Header.Revision != before.Header.Revision || after.Count != before.Count {
					c.Errorf("revision %d with %d keys became %d with %d", before.Header.Revision, before.Count, after.Header.Revision, after.Count)
				}
				hashes(c, r)
				Ask(c, "revoke", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 1})
				hashes(c, r)
			})
		})
	}
}

// hashes records HashKV at the floor, in the middle, at the end, and now.
func hashes(c *Case, r *random) {
	c.Helper()
	answer, err := c.KV.Range(c.Context(), &pb.RangeRequest{Key: []byte("k")})
	if err != nil {
		c.Fatal(err)
	}
	r.revision = answer.Header.Revision
	floor := max(r.compacted, 1)
	for _, revision := range []int64{floor, (floor + r.revision) / 2, r.revision, 0} {
		if revision == floor && !r.physical {
			continue
		}
		Ask(c, fmt.Sprint("hash at ", revision), c.Maintenance.HashKV, &pb.HashKVRequest{Revision: revision})
	}
}
