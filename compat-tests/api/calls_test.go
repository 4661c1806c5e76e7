package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	grpcgzip "google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	. "etched.local/compat-tests/harness"
)

func TestACallEndsOnTheServerWhenTheClientsTimeoutHasPassed(t *testing.T) {
	OnBoth(t, func(c *Case) {
		watch, err := proto.Marshal(CreateRequest(watchKey("a")))
		if err != nil {
			c.Fatal(err)
		}
		for _, r := range []struct {
			name, path string
			body       []byte
		}{
			{"unary whose message does not end", rangePath, message(0, rangeBytes(c))[:6]},
			{"watch", "/etcdserverpb.Watch/Watch", message(0, watch)},
			{"keepalive", "/etcdserverpb.Lease/LeaseKeepAlive", message(0, []byte{0x08, 0x05})},
			{"health watch", "/grpc.health.v1.Health/Watch", message(0, nil)},
		} {
			raw := openRaw(c, c.Server)
			began := time.Now()
			raw.headers(1, false, grpcFields(r.path, field{Name: "grpc-timeout", Value: "400m"}))
			raw.data(1, strings.HasPrefix(r.name, "health"), r.body)
			how := raw.outcome(1)
			took := time.Since(began)
			// etcd's library sometimes says the status and sometimes only resets the stream; its health service
			// may see the end of the call before either, and has words of its own for it; etched says it one way.
			byDeadline := strings.Contains(how, "grpc-status 4") || strings.Contains(how, "reset CANCEL") ||
				(c.Server.Real() && r.name == "health watch" && strings.Contains(how, "Stream has ended."))
			if !byDeadline || took < 350*time.Millisecond || took > 3*time.Second {
				c.Errorf("%s: %s after %v", r.name, how, took)
			}
		}
		c.Note("no time at all", exchange(c, grpcFields(rangePath, field{Name: "grpc-timeout", Value: "0S"}), message(0, rangeBytes(c))))
		for _, value := range []string{"", "1", "1s", "-1S", "1 S"} {
			raw := openRaw(c, c.Server)
			fields := append(grpcFields(rangePath), field{Name: "grpc-timeout", Value: value})
			raw.headers(1, false, fields)
			raw.data(1, true, message(0, rangeBytes(c)))
			c.Note(fmt.Sprintf("timeout %q", value), raw.outcome(1))
		}
		stillServes(c)
	})
}

func TestStreamsAnswerAsTheyAreAskedCompressedOrNot(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", strings.Repeat("z", 10_000))
		var packed bytes.Buffer
		writer := gzip.NewWriter(&packed)
		_, _ = writer.Write(rangeBytes(c))
		_ = writer.Close()
		path := "/etcdserverpb.KV/RangeStream"
		asked := field{Name: "grpc-encoding", Value: "gzip"}
		c.Note("compressed", exchange(c, grpcFields(path, asked), message(1, packed.Bytes())))
		c.Note("could be compressed", exchange(c, grpcFields(path, asked), message(0, rangeBytes(c))))

		stream, err := pb.NewWatchClient(c.Conn).Watch(c.Context(), grpc.UseCompressor(grpcgzip.Name))
		if err != nil {
			c.Fatal(err)
		}
		if err := stream.Send(CreateRequest(watchKey("b"))); err != nil {
			c.Fatal(err)
		}
		for _, step := range []string{"created", "event"} {
			answer, err := stream.Recv()
			if err != nil {
				c.Fatal(err)
			}
			c.Record(step, answer)
			if step == "created" {
				c.Put("b", strings.Repeat("y", 10_000))
			}
		}
	})
}

func TestACallThatStreamsItsAnswerTakesOneMessage(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, path := range []string{"/etcdserverpb.KV/RangeStream", "/grpc.health.v1.Health/Watch"} {
			two := append(message(0, []byte{0x0a, 0x01, 'a'}), message(0, []byte{0x0a, 0x01, 'a'})...)
			c.Note(path, exchange(c, grpcFields(path), two))
		}
		stillServes(c)
	})
}

func TestHealthKnowsTheWholeServerOnly(t *testing.T) {
	OnBoth(t, func(c *Case) {
		health := healthpb.NewHealthClient(c.Conn)
		all, err := health.List(c.Context(), &healthpb.HealthListRequest{})
		if err != nil {
			c.Fatal(err)
		}
		c.Record("list", all)
		for _, service := range []string{"", "etcdserverpb.KV", "nope"} {
			checked, err := health.Check(c.Context(), &healthpb.HealthCheckRequest{Service: service})
			c.RecordError("check "+service, err)
			c.Notef("check "+service+" status", "%v", checked.GetStatus())
			stream, err := health.Watch(c.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil {
				c.Fatal(err)
			}
			watched, err := stream.Recv()
			if err != nil {
				c.Fatal(err)
			}
			c.Notef("watch "+service+" status", "%v", watched.GetStatus())
		}
	})
}

func TestTheHealthServiceStopsForADefragmentationWhenItIsTold(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for i := range 300 {
			c.Put(fmt.Sprint("large", i), strings.Repeat("v", 100_000))
		}
		ctx, cancel := context.WithCancel(c.Context())
		defer cancel()
		stream, err := healthpb.NewHealthClient(c.Conn).Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			c.Fatal(err)
		}
		next := func(step string) {
			c.Helper()
			state, err := stream.Recv()
			if err != nil {
				c.Fatal(err)
			}
			c.Notef(step, "%v", state.GetStatus())
		}
		next("before")
		seen, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			for {
				// A watcher hears of the last change only: one that was too fast for it is made again.
				if _, err := c.Maintenance.Defragment(ctx, &pb.DefragmentRequest{}); err != nil {
					ended <- err
					cancel()
					return
				}
				select {
				case <-seen:
					ended <- nil
					return
				default:
				}
			}
		}()
		next("while it runs")
		close(seen)
		next("after")
		if err := <-ended; err != nil {
			c.Error(err)
		}
	}, "--feature-gates", "StopGRPCServiceOnDefrag=true")
}
