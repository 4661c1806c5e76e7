package api

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"

	. "etched.local/compat-tests/harness"
)

const tooLarge = "etcdserver: request is too large"

func TestRequestsAboveTheSizeLimitAreRefused(t *testing.T) {
	const limit = 1536 * 1024
	OnBoth(t, func(c *Case) {
		big := func(n int) []byte { return bytes.Repeat([]byte("v"), n) }
		sized := func(n int) *pb.PutRequest { return &pb.PutRequest{Key: []byte("k"), Value: big(n)} }
		Ask(c, "well below", c.KV.Put, sized(limit-100))
		Refuse(c, "at the limit", c.KV.Put, sized(limit), codes.InvalidArgument, tooLarge)
		Refuse(c, "above", c.KV.Put, sized(limit+100_000), codes.InvalidArgument, tooLarge)
		Refuse(c, "txn", c.KV.Txn, then(putOp(sized(limit/2)), putOp(&pb.PutRequest{Key: []byte("l"), Value: big(limit / 2)})), codes.InvalidArgument, tooLarge)
		_, err := c.KV.Put(c.Context(), sized(limit+512*1024+1000))
		c.RecordError("a message above limit + 512 KiB", err)
		_, err = c.KV.Txn(c.Context(), then(putOp(sized(3_000_000))))
		c.RecordError("a txn message above", err)
		Refuse(c, "delete of a huge key", c.KV.DeleteRange, &pb.DeleteRangeRequest{Key: big(limit)}, codes.InvalidArgument, tooLarge)
		Ask(c, "range of a huge key", c.KV.Range, &pb.RangeRequest{Key: big(limit)})
		c.Everything("end")
	})
}

// The largest put that passes differs from the limit by what the raft request around it takes, so
// its exact size shows whether the proposal is encoded as etcd encodes it.
func TestTheLargestPutThatPassesIsTheSame(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Grant(300, 600)
		for _, lease := range []int64{0, 300} {
			low, high := 8_000, 11_000
			for low+1 < high {
				middle := (low + high) / 2
				_, err := c.KV.Put(c.Context(), &pb.PutRequest{Key: []byte("k"), Value: make([]byte, middle), Lease: lease})
				if err == nil {
					low = middle
				} else {
					high = middle
				}
			}
			// The request id in the proposal is a varint of a random size on both.
			c.Notef(fmt.Sprint("lease ", lease, ": largest value, to 8 bytes"), "%d", (low+4)/8*8)
		}
	}, "--max-request-bytes", "10000")
}

func TestAnswersHaveNoLimit(t *testing.T) {
	OnBoth(t, func(c *Case) {
		value := strings.Repeat("v", 1_000_000)
		for i := range 12 {
			c.Put(fmt.Sprint("k", i), value)
		}
		Ask(c, "12 MB", c.KV.Range, all())
	})
}

func TestGzipRequestsAreAnswered(t *testing.T) {
	OnBoth(t, func(c *Case) {
		Ask(c, "put", c.KV.Put, &pb.PutRequest{Key: []byte("a"), Value: bytes.Repeat([]byte("z"), 10_000)}, grpc.UseCompressor(gzip.Name))
		Ask(c, "range", c.KV.Range, all(), grpc.UseCompressor(gzip.Name))
		big := &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 3_000_000)}
		_, err := c.KV.Put(c.Context(), big, grpc.UseCompressor(gzip.Name))
		c.RecordError("small on the wire, too large inside", err)
	})
}

func TestMetadataKeys(t *testing.T) {
	OnBoth(t, func(c *Case) {
		with := func(pairs ...string) context.Context {
			return metadata.NewOutgoingContext(c.Context(), metadata.Pairs(pairs...))
		}
		for name, ctx := range map[string]context.Context{
			"hasleader": with("hasleader", "true"), "other hasleader": with("hasleader", "TRUE"),
			"hasleader twice": with("hasleader", "x", "hasleader", "true"),
			"token, auth off": with("token", "nonsense"), "authorization, auth off": with("authorization", "Bearer nonsense"),
			"client version": with("client-api-version", "3.7"), "unknown key": with("x-foo", "bar"),
			"binary key": with("x-foo-bin", "\x00\xff"),
		} {
			answer, err := c.KV.Put(ctx, &pb.PutRequest{Key: []byte("a")})
			if err != nil {
				c.Fatalf("%s: %v", name, err)
			}
			answer.Header.Revision = 0 // the map has no order
			c.RecordUnder(name, answer)
		}
		s := c.OpenWatch(metadata.NewOutgoingContext(c.T.Context(), metadata.Pairs("hasleader", "true")))
		s.Create("watch with hasleader", watchKey("b"))
		c.Put("b", "1")
		s.Next("event")
	})
}

func TestDeadlinesOfTheClientAreKept(t *testing.T) {
	OnBoth(t, func(c *Case) {
		ctx, cancel := context.WithCancel(c.Context())
		cancel()
		_, err := c.KV.Put(ctx, &pb.PutRequest{Key: []byte("a")})
		c.Refused("cancelled before", err, codes.Canceled, "context canceled")
		Ask(c, "next", c.KV.Put, &pb.PutRequest{Key: []byte("a")})
	})
}

// residentBytes is the process's resident set.
func residentBytes(t testing.TB, pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
