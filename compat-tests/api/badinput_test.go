package api

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	. "etched.local/compat-tests/harness"
)

const rangePath = "/etcdserverpb.KV/Range"

func rangeBytes(c *Case) []byte {
	encoded, err := proto.Marshal(&pb.RangeRequest{Key: []byte("a")})
	if err != nil {
		c.Fatal(err)
	}
	return encoded
}

func stillServes(c *Case) {
	c.Helper()
	Ask(c, "still serves", c.KV.Put, &pb.PutRequest{Key: []byte("alive"), Value: []byte("1")})
}

func TestBytesThatAreNoMessageAreRefused(t *testing.T) {
	OnBoth(t, func(c *Case) {
		good := rangeBytes(c)
		for _, r := range []struct {
			name string
			body []byte
		}{
			{"a good one", message(0, good)},
			{"empty message", message(0, nil)},
			{"garbage", message(0, []byte("\xff\xff\xff\xff not a message"))},
			{"cut field", message(0, []byte{0x0a, 0x05, 'a'})},
			{"wrong wire type for the key", message(0, []byte{0x08, 0x01})},
			{"group", message(0, []byte{0x0b, 0x0c})},
			{"group not ended", message(0, []byte{0x0b})},
			{"wrong wire types beside a good one", message(0, slices.Concat([]byte{0x08, 0x01, 0x1a, 0x01, 'x', 0x2d, 1, 2, 3, 4}, good, []byte{0x13, 0x08, 0x01, 0x14}))},
			{"wrong wire type that is cut", message(0, append(slices.Clone(good), 0x0d, 1, 2, 3))},
			{"groups 200 deep", message(0, slices.Concat(bytes.Repeat([]byte{0xfb, 0x01}, 200), bytes.Repeat([]byte{0xfc, 0x01}, 200), good))},
			{"reserved wire type", message(0, append(slices.Clone(good), 0x0e, 0x00))},
			{"field number 0", message(0, []byte{0x02, 0x00})},
			{"varint too long", message(0, append([]byte{0x18}, bytes.Repeat([]byte{0xff}, 11)...))},
			{"unknown field is ignored", message(0, append([]byte{0xfa, 0x7f, 0x01, 'x'}, good...))},
			{"field twice, the last counts", message(0, append([]byte{0x0a, 0x01, 'z'}, good...))},
			{"no message", []byte{}},
			{"half a prefix", []byte{0, 0}},
			{"shorter than its prefix says", message(0, good)[:6]},
			{"longer than allowed by its prefix", []byte{0, 0xff, 0xff, 0xff, 0xff, 1}},
			{"two messages", append(message(0, good), message(0, good)...)},
			{"good one and half a prefix", append(message(0, good), 0, 0)},
			{"compressed without an encoding", message(1, good)},
			{"flag 2", message(2, good)},
		} {
			c.Note(r.name, exchange(c, grpcFields(rangePath), r.body))
		}
		for _, nested := range []struct {
			path string
			body []byte
		}{
			{"/etcdserverpb.KV/Txn", []byte{0x12, 0x03, 0x12, 0x05, 0x0a}},
			{"/etcdserverpb.KV/Put", []byte{0x0a, 0xff}},
			{"/etcdserverpb.Watch/Watch", []byte{0x0a, 0xff}},
			{"/etcdserverpb.Lease/LeaseKeepAlive", []byte{0x0a, 0xff}},
			{"/etcdserverpb.Lease/LeaseGrant", []byte{0x0a, 0xff}},
			{"/etcdserverpb.Maintenance/Status", []byte{0xff}},
			{"/etcdserverpb.Auth/UserDelete", []byte{0x0a, 0x01, 0xff}},
			{"/etcdserverpb.Auth/UserDelete", []byte{0x0a, 0x01, 0xff, 0xff}},
			{"/etcdserverpb.Auth/UserDelete", []byte{0x0a, 0x04, 0xff}},
			{"/etcdserverpb.Watch/Watch", []byte{0x0a, 0x02, 0x08, 0x01, 0x08, 0x01, 0xff}},
		} {
			c.Note(nested.path, exchange(c, grpcFields(nested.path), message(0, nested.body)))
		}
		stillServes(c)
	})
}

// What Go's decoder passes over is written by no client that is known, but it may stand in the log of an etcd, and has to be
// the same for whoever applies it.
func TestFieldsOfAnotherWireTypeArePassedOverInWritesToo(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, write := range OddWrites() {
			var answer []byte
			err := c.Conn.Invoke(c.Context(), write.Path, write.Body, &answer, grpc.ForceCodec(BytesCodec{}))
			c.RecordError(write.Name, err)
		}
		for _, levels := range []int{10_001, 10_002} {
			var answer []byte
			body := slices.Concat(bytes.Repeat([]byte{0xfb, 0x01}, levels), bytes.Repeat([]byte{0xfc, 0x01}, levels), PutOp("groups")[2:])
			err := c.Conn.Invoke(c.Context(), "/etcdserverpb.KV/Put", body, &answer, grpc.ForceCodec(BytesCodec{}))
			c.RecordError(fmt.Sprint("groups ", levels, " deep"), err)
		}
		c.Everything("what was written")
	})
}

func TestDeeplyNestedTransactionsAreNoCrash(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, depth := range []int{100, 128, 1_000, 4_000, 20_000, 150_000} {
			body := NestedTxn(depth, nil)
			var answer []byte
			err := c.Conn.Invoke(c.Context(), "/etcdserverpb.KV/Txn", body, &answer, grpc.ForceCodec(BytesCodec{}))
			if err == nil && depth > 128 {
				c.Errorf("depth %d accepted", depth)
			}
			c.RecordError(fmt.Sprint("depth ", depth), err)
		}
		stillServes(c)
	})
}

func TestUnknownMethodsAndServicesAreUnimplemented(t *testing.T) {
	OnBoth(t, func(c *Case) {
		call := func(path string, text string) {
			c.Helper()
			err := c.Conn.Invoke(c.Context(), path, &pb.RangeRequest{}, &pb.RangeResponse{})
			c.Refused(path, err, codes.Unimplemented, text)
		}
		call("/etcdserverpb.KV/Nope", "unknown method Nope for service etcdserverpb.KV")
		call("/etcdserverpb.Nope/Range", "unknown service etcdserverpb.Nope")
		call("/nope/nope/nope", "unknown service nope/nope")
		call("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "unknown service grpc.reflection.v1.ServerReflection")
		for _, path := range []string{"/", "//", "/etcdserverpb.KV", "/etcdserverpb.KV/", "etcdserverpb.KV/Range", "*", "/etcdserverpb.KV/Range?x=1", "/etcdserverpb.kv/range", "/%65tcdserverpb.KV/Range"} {
			c.Note("path "+path, exchange(c, grpcFields(path), message(0, rangeBytes(c))))
		}
		stillServes(c)
	})
}

func TestRequestsThatAreNotGrpcAreRefused(t *testing.T) {
	OnBoth(t, func(c *Case) {
		body := message(0, rangeBytes(c))
		for _, r := range []struct {
			name    string
			changes []field
		}{
			{"GET", []field{{Name: ":method", Value: "GET"}}},
			{"PUT", []field{{Name: ":method", Value: "PUT"}}},
			{"no content type", []field{{Name: "content-type"}}},
			{"text", []field{{Name: "content-type", Value: "text/plain"}}},
			{"json", []field{{Name: "content-type", Value: "application/json"}}},
			{"grpc+proto", []field{{Name: "content-type", Value: "application/grpc+proto"}}},
			{"grpc;charset", []field{{Name: "content-type", Value: "application/grpc;charset=utf-8"}}},
			{"grpc+json", []field{{Name: "content-type", Value: "application/grpc+json"}}},
			{"grpc-web", []field{{Name: "content-type", Value: "application/grpc-web"}}},
			{"no te", []field{{Name: "te"}}},
			{"no scheme", []field{{Name: ":scheme"}}},
			{"https scheme", []field{{Name: ":scheme", Value: "https"}}},
			{"no authority", []field{{Name: ":authority"}}},
			{"no path", []field{{Name: ":path"}}},
			{"encoding deflate", []field{{Name: "grpc-encoding", Value: "deflate"}}},
			{"encoding snappy", []field{{Name: "grpc-encoding", Value: "snappy"}}},
			{"encoding identity", []field{{Name: "grpc-encoding", Value: "identity"}}},
			{"encoding gzip, not compressed", []field{{Name: "grpc-encoding", Value: "gzip"}}},
			{"timeout without a unit", []field{{Name: "grpc-timeout", Value: "100"}}},
			{"timeout not a number", []field{{Name: "grpc-timeout", Value: "abcS"}}},
			{"timeout too long", []field{{Name: "grpc-timeout", Value: "123456789S"}}},
			{"timeout of 10 s", []field{{Name: "grpc-timeout", Value: "10S"}}},
			{"timeout of 99999999 hours", []field{{Name: "grpc-timeout", Value: "99999999H"}}},
			{"bad base64", []field{{Name: "x-foo-bin", Value: "!!!"}}},
			{"client version not utf-8", []field{{Name: "client-api-version", Value: "\xff\xfe"}}},
			{"connection header", []field{{Name: "connection", Value: "close"}}},
			{"upper case header", []field{{Name: "X-Upper", Value: "1"}}},
			{"unknown pseudo header", []field{{Name: ":foo", Value: "1"}}},
		} {
			c.Note(r.name, exchange(c, grpcFields(rangePath, r.changes...), body))
		}
		compressed := exchange(c, grpcFields(rangePath, field{Name: "grpc-encoding", Value: "gzip"}), message(1, []byte("no gzip")))
		c.Note("gzip that is none", compressed)
		c.Note("deflate that is compressed", exchange(c, grpcFields(rangePath, field{Name: "grpc-encoding", Value: "deflate"}), message(1, []byte("x"))))
		stillServes(c)
	})
}

func TestHttp1OnAGrpcPathIsNotFound(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, path := range []string{rangePath, "/etcdserverpb.KV/Nope", "/etcdserverpb.KV/"} {
			for _, method := range []string{"POST", "GET"} {
				c.Note(method+" "+path, fetch(c, method, path, field{Name: "Content-Type", Value: "application/grpc"}))
			}
		}
		stillServes(c)
	})
}

func TestConnectionsThatSpeakNoHttpAreClosed(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for name, text := range map[string]string{
			"nothing": "", "garbage": "\x00\x01\x02\x03\x04 garbage\r\n\r\n",
			"a TLS hello":          "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + strings.Repeat("\x00", 160),
			"half a preface":       http2.ClientPreface[:12],
			"preface then garbage": http2.ClientPreface + strings.Repeat("\xff", 100),
			"wrong preface":        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
			"redis":                "*1\r\n$4\r\nPING\r\n",
			"another HTTP version": "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
			"half a request line":  "GET\r\n\r\n",
		} {
			_ = say(c, text, false) // it ends; how many bytes are said before that is nobody's business
			c.Put("after", name)
		}
		stillServes(c)
	})
}

func TestHttp2FramesOutOfPlaceEndTheConnectionOnly(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for name, send := range map[string]func(r *raw){
			"data on an idle stream": func(r *raw) { r.data(5, true, []byte("x")) },
			"even stream":            func(r *raw) { r.headers(2, true, grpcFields(rangePath)) },
			"stream 0":               func(r *raw) { _ = r.framer.WriteRawFrame(http2.FrameHeaders, 5, 0, []byte{0x82}) },
			"bad hpack": func(r *raw) {
				_ = r.framer.WriteRawFrame(http2.FrameHeaders, 5, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
			},
			"frame above 16 KiB":     func(r *raw) { _ = r.framer.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<20)) },
			"settings of a bad size": func(r *raw) { _ = r.framer.WriteRawFrame(http2.FrameSettings, 0, 0, []byte{1}) },
			"continuation alone":     func(r *raw) { _ = r.framer.WriteRawFrame(http2.FrameContinuation, 4, 1, []byte{0x82}) },
			"window update of 0":     func(r *raw) { _ = r.framer.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, []byte{0, 0, 0, 0}) },
			"window above the limit": func(r *raw) { _ = r.framer.WriteWindowUpdate(0, 1<<31-1); _ = r.framer.WriteWindowUpdate(0, 1<<31-1) },
			"unknown frame": func(r *raw) {
				_ = r.framer.WriteRawFrame(0x42, 0, 1, []byte("?"))
				r.headers(1, false, grpcFields(rangePath))
				r.data(1, true, message(0, rangeBytes(c)))
			},
			"headers twice, then end": func(r *raw) {
				r.headers(1, false, grpcFields(rangePath))
				r.headers(1, true, []field{{Name: "x", Value: "y"}})
			},
		} {
			r := openRaw(c, c.Server)
			_ = r.conn.SetDeadline(time.Now().Add(2 * time.Second))
			send(r)
			_ = r.outcome(1)
			r.conn.Close()
			c.Put("after", name)
		}
		stillServes(c)
	})
}

func TestLargeHeadersPassUpToTheLimit(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, size := range []int{4 << 10, 60 << 10, 500 << 10} {
			ctx := metadata.AppendToOutgoingContext(c.Context(), "x-large", strings.Repeat("h", size))
			answer, err := c.KV.Range(ctx, &pb.RangeRequest{Key: []byte("a")})
			if err != nil {
				c.RecordError(fmt.Sprint(size, " bytes"), err)
				continue
			}
			c.Record(fmt.Sprint(size, " bytes"), answer)
		}
		before := residentBytes(c, c.Server.Pid())
		r := openRaw(c, c.Server)
		large := field{Name: "x-large", Value: strings.Repeat("h", 24<<20)}
		r.headers(1, false, grpcFields(rangePath, large))
		r.data(1, true, message(0, rangeBytes(c)))
		if how := r.outcome(1); strings.Contains(how, "grpc-status 0") {
			c.Errorf("24 MiB of headers were accepted: %s", how)
		}
		many := openRaw(c, c.Server)
		fields := grpcFields(rangePath)
		for i := range 700_000 {
			fields = append(fields, field{Name: "x-many", Value: fmt.Sprint("value ", i)})
		}
		many.headers(1, false, fields)
		many.data(1, true, message(0, rangeBytes(c)))
		if how := many.outcome(1); strings.Contains(how, "grpc-status 0") {
			c.Errorf("700,000 headers were accepted: %s", how)
		}
		stillServes(c)
		if grown := residentBytes(c, c.Server.Pid()) - before; grown > 200<<20 {
			c.Errorf("it grew by %d MiB", grown>>20)
		}
	})
}

func TestAThousandSilentConnectionsDisturbNobody(t *testing.T) {
	OnBoth(t, func(c *Case) {
		stillServes(c)
		before := residentBytes(c, c.Server.Pid())
		connect := func(n int, text string) {
			for range n {
				conn, err := net.Dial("tcp", c.Server.Client)
				if err != nil {
					c.Fatal(err)
				}
				c.Cleanup(func() { conn.Close() })
				if _, err := conn.Write([]byte(text)); err != nil {
					c.Fatal(err)
				}
			}
		}
		connect(1000, "")
		connect(100, "P")
		connect(100, http2.ClientPreface)
		connect(100, "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n{")
		connect(100, "GET /version HTTP/1.1\r\nHost")
		// etcd needs 15 MiB for these.
		if grown := residentBytes(c, c.Server.Pid()) - before; grown > 40<<20 {
			c.Errorf("1400 silent connections cost %d MiB", grown>>20)
		}
		before = residentBytes(c, c.Server.Pid())
		for i := range 100 {
			r := openRaw(c, c.Server)
			r.headers(1, false, grpcFields(rangePath))
			r.data(1, false, []byte{0, 0, 0x10, 0, 0, byte(i)}) // announces 1 MiB, sends one byte
		}
		conn := c.Server.Dial(c)
		began := time.Now()
		kv := pb.NewKVClient(conn)
		for range 100 {
			if _, err := kv.Put(c.Context(), &pb.PutRequest{Key: []byte("a"), Value: []byte("b")}); err != nil {
				c.Fatal(err)
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			c.Errorf("100 puts took %v", took)
		}
		if grown := residentBytes(c, c.Server.Pid()) - before; grown > 40<<20 {
			c.Errorf("100 messages of 1 MiB that were only announced cost %d MiB", grown>>20)
		}
		c.Everything("end")
	})
}

func TestManyStreamsOnOneConnectionAreServed(t *testing.T) {
	OnBoth(t, func(c *Case) {
		streams := make([]*Stream, 500)
		for i := range streams {
			streams[i] = c.OpenWatch()
			streams[i].Send(CreateRequest(watchKey("a")))
		}
		for _, s := range streams {
			if !s.Take("created").Created {
				c.Fatal("not created")
			}
		}
		c.Put("a", "1")
		for _, s := range streams {
			if len(s.Take("event").Events) != 1 {
				c.Fatal("no event")
			}
		}
		for _, s := range streams {
			s.End()
		}
		stillServes(c)
	})
}
