package api

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	. "etched.local/compat-tests/harness"
)

func TestCompactionMovesTheFloorAndKeepsWhatIsReadableAtIt(t *testing.T) {
	OnBoth(t, func(c *Case) {
		fruits(c) // up to revision 13
		at := func(revision int64) *pb.CompactionRequest { return &pb.CompactionRequest{Revision: revision} }
		read := func(revision int64) *pb.RangeRequest {
			request := all()
			request.Revision = revision
			return request
		}
		Refuse(c, "above the current revision", c.KV.Compact, at(14), codes.OutOfRange, future)
		Ask(c, "at 7", c.KV.Compact, at(7))
		Ask(c, "the floor is readable", c.KV.Range, read(7))
		for revision := int64(1); revision < 7; revision++ {
			Refuse(c, fmt.Sprint("read at ", revision), c.KV.Range, read(revision), codes.OutOfRange, compacted)
		}
		for _, revision := range []int64{7, 6, 1, 0, -1, -100} {
			Refuse(c, fmt.Sprint("again at ", revision), c.KV.Compact, at(revision), codes.OutOfRange, compacted)
		}
		Refuse(c, "txn below the floor", c.KV.Txn, then(getOp(read(6))), codes.OutOfRange, compacted)
		Refuse(c, "negative in a txn", c.KV.Txn, then(getOp(read(-1))), codes.OutOfRange, compacted)
		Ask(c, "txn at the floor", c.KV.Txn, then(getOp(read(7))))
		Ask(c, "negative outside is now", c.KV.Range, read(-5))
		Ask(c, "physical, at a delete", c.KV.Compact, &pb.CompactionRequest{Revision: 12, Physical: true})
		Ask(c, "deleted at the floor", c.KV.Range, read(12))
		Ask(c, "physical, at the current revision", c.KV.Compact, &pb.CompactionRequest{Revision: 13, Physical: true})
		c.Everything("all is there")
		c.Put("date", "later")
		Ask(c, "history goes on", c.KV.Range, read(13))
	})
}

func TestCompactionOfAStoreNeverCompactedStartsBelowZero(t *testing.T) {
	OnBoth(t, func(c *Case) {
		Refuse(c, "negative", c.KV.Compact, &pb.CompactionRequest{Revision: -1}, codes.OutOfRange, compacted)
		Ask(c, "at 0", c.KV.Compact, &pb.CompactionRequest{})
		Refuse(c, "at 0 again", c.KV.Compact, &pb.CompactionRequest{}, codes.OutOfRange, compacted)
		Ask(c, "at 1", c.KV.Compact, &pb.CompactionRequest{Revision: 1})
		Refuse(c, "at 1 again", c.KV.Compact, &pb.CompactionRequest{Revision: 1}, codes.OutOfRange, compacted)
		Refuse(c, "at 2", c.KV.Compact, &pb.CompactionRequest{Revision: 2}, codes.OutOfRange, future)
	})
}

func TestCompactionFloorOutlivesARestart(t *testing.T) {
	OnBoth(t, func(c *Case) {
		fruits(c)
		Ask(c, "compact", c.KV.Compact, &pb.CompactionRequest{Revision: 9, Physical: true})
		c.Put("after", "compaction")
		hash := Ask(c, "hash before", c.Maintenance.HashKV, &pb.HashKVRequest{}).Hash
		c.Server.Kill()
		c.Server.Restart(c)
		c.Reconnect()
		c.Everything("after kill -9")
		Refuse(c, "below the floor", c.KV.Range, &pb.RangeRequest{Key: []byte("a"), Revision: 8}, codes.OutOfRange, compacted)
		old := all()
		old.Revision = 9
		Ask(c, "at the floor", c.KV.Range, old)
		if again := Ask(c, "hash after", c.Maintenance.HashKV, &pb.HashKVRequest{}).Hash; again != hash {
			c.Errorf("hash %d became %d", hash, again)
		}
		Refuse(c, "compacted already", c.KV.Compact, &pb.CompactionRequest{Revision: 9}, codes.OutOfRange, compacted)
		c.Server.Stop(c)
		c.Server.Restart(c)
		c.Reconnect()
		c.Everything("after SIGTERM")
		c.Put("next", "revision goes on")
		c.Everything("end")
	})
}
