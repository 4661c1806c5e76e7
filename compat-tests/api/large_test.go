package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	grpcgzip "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/protobuf/proto"

	. "etched.local/compat-tests/harness"
)

const largeKeys = 400

// largeValues leaves keys with 40 KB each, written in an order far from theirs, some of them again, one
// deleted, some with a lease; the revision before the second writing.
func largeValues(c *Case) int64 {
	lease := c.Grant(77, 600)
	value := func(nth, round int) string {
		return strings.Repeat(fmt.Sprintf("%03d-%d ", nth, round), 40<<10/6+nth)
	}
	for n := range largeKeys {
		nth := n * 149 % largeKeys
		request := &pb.PutRequest{Key: fmt.Appendf(nil, "large/%03d", nth), Value: []byte(value(nth, 1))}
		if nth%7 == 0 {
			request.Lease = lease
		}
		if _, err := c.KV.Put(c.Context(), request); err != nil {
			c.Fatal(err)
		}
	}
	c.Delete("large/011")
	old := c.Put("large/010", "short").Header.Revision
	for n := range largeKeys / 4 {
		c.Put(fmt.Sprintf("large/%03d", n*4), value(n, 2))
	}
	return old
}

// digest is what an answer says, in a line.
func digest(answer *pb.RangeResponse) string {
	sum := sha256.New()
	for _, kv := range answer.Kvs {
		bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(kv)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(sum, "%d ", len(bytes))
		sum.Write(bytes)
	}
	return fmt.Sprintf("%d keys of %d, more %v, revision %d, %x",
		len(answer.Kvs), answer.Count, answer.More, answer.Header.Revision, sum.Sum(nil))
}

func TestLargeAnswersAreWhole(t *testing.T) {
	OnBoth(t, func(c *Case) {
		old := largeValues(c)
		ask := func(name string, change func(*pb.RangeRequest), options ...grpc.CallOption) string {
			request := &pb.RangeRequest{Key: []byte("large/"), RangeEnd: []byte("large0")}
			change(request)
			answer, err := c.KV.Range(c.Context(), request, options...)
			if err != nil {
				c.Errorf("%s: %v", name, err)
				return ""
			}
			return digest(answer)
		}
		whole := ask("all", func(*pb.RangeRequest) {})
		c.Note("all", whole)
		for _, r := range []struct {
			name   string
			change func(*pb.RangeRequest)
		}{
			{"an old revision", func(r *pb.RangeRequest) { r.Revision = old }},
			{"a limit", func(r *pb.RangeRequest) { r.Limit = 150 }},
			{"a limit at an old revision", func(r *pb.RangeRequest) { r.Revision, r.Limit = old, 150 }},
			{"a limit of all", func(r *pb.RangeRequest) { r.Limit = largeKeys - 1 }},
			{"newer ones", func(r *pb.RangeRequest) { r.MinModRevision = old }},
			{"older ones with a limit", func(r *pb.RangeRequest) { r.MaxModRevision, r.Limit = old, 200 }},
			{"descending", func(r *pb.RangeRequest) { r.SortOrder = pb.RangeRequest_DESCEND }},
			{"by revision", func(r *pb.RangeRequest) { r.SortTarget = pb.RangeRequest_MOD }},
			{"by value", func(r *pb.RangeRequest) { r.SortTarget = pb.RangeRequest_VALUE }},
			{"serializable", func(r *pb.RangeRequest) { r.Serializable = true }},
		} {
			c.Note(r.name, ask(r.name, r.change))
		}
		if packed := ask("gzip", func(*pb.RangeRequest) {}, grpc.UseCompressor(grpcgzip.Name)); packed != whole {
			c.Errorf("compressed %s, plain %s", packed, whole)
		}
		var readers sync.WaitGroup
		for range 12 {
			readers.Go(func() {
				if again := ask("at once", func(*pb.RangeRequest) {}); again != whole {
					c.Errorf("one of many at once %s, alone %s", again, whole)
				}
			})
		}
		readers.Wait()
	})
}

func TestOneWhoDoesNotReadItsLargeAnswerKeepsNobodyWaiting(t *testing.T) {
	OnBoth(t, func(c *Case) {
		largeValues(c)
		body := message(0, []byte("\x0a\x06large/\x12\x06large0"))
		// Each on a connection of its own, whose window only takes the beginning.
		for range 12 {
			raw := openRaw(c, c.Server)
			raw.headers(1, false, grpcFields(rangePath))
			raw.data(1, true, body)
		}
		ctx, cancel := context.WithCancel(c.Context())
		request := &pb.RangeRequest{Key: []byte("large/"), RangeEnd: []byte("large0")}
		answer, err := c.KV.Range(ctx, request)
		if err != nil || len(answer.Kvs) != largeKeys-1 {
			c.Fatalf("%d keys, %v", len(answer.GetKvs()), err)
		}
		cancel()
		if _, err := c.KV.Range(ctx, request); err == nil {
			c.Error("answered after it was cancelled")
		}
		stillServes(c)
	})
}
