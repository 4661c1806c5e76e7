// Package harness runs one test body on two servers, real etcd and etched, and holds what the body
// observed on them against each other.
//
//	OnBoth(t, body) --> Start(etcd)   --> body(Case) --> Transcript --+
//	                --> Start(etched) --> body(Case) --> Transcript --+--> Compare --> differences.txt
//
// A body states what it expects (an answer, or a refusal with its code and text) and records every
// answer in full; a line that differs between the servers fails the test unless differences.txt
// names it with a reason. Both servers announce the same peer URL, so cluster and member ids are
// equal and compared as they are; ids that a server picks at random, ports and the term of its
// start are replaced by names first. With COMPAT_TRANSCRIPTS set to a folder, what was observed is
// kept there, one file per test and server.
package harness

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Deadline is how long a body waits for one answer or event.
const Deadline = 15 * time.Second

// Case is a body's view of the server it runs on.
type Case struct {
	*testing.T
	Server      *Server
	Conn        *grpc.ClientConn
	KV          pb.KVClient
	Watch       pb.WatchClient
	Lease       pb.LeaseClient
	Cluster     pb.ClusterClient
	Maintenance pb.MaintenanceClient

	transcript *Transcript
}

// OnBoth runs the body on etcd, then on etched, each on a fresh server with these flags, and
// compares the transcripts. The test is parallel to others.
func OnBoth(t *testing.T, body func(c *Case), flags ...string) {
	t.Helper()
	t.Parallel()
	rules, err := loadRules()
	if err != nil {
		t.Fatal(err)
	}
	var etcd *Transcript
	t.Run(string(Etcd), func(sub *testing.T) { etcd = runBody(sub, Etcd, body, flags) })
	t.Run(string(Etched), func(sub *testing.T) {
		etched := runBody(sub, Etched, body, flags)
		for _, d := range Compare(etcd, etched) {
			if r := allowed(rules, t.Name(), d); r != nil {
				// The command `run` reads these, to find lines of the list that are not true any more.
				sub.Logf("differences.txt:%d: %s: %s (%s)", r.number, d.Step, d.Path, r.reason)
				continue
			}
			sub.Errorf("DIFFERENCE at %s: %s\n    etcd   %s\n    etched %s", d.Step, d.Path, d.Etcd, d.Etched)
		}
	})
}

func runBody(t *testing.T, kind Kind, body func(*Case), flags []string) *Transcript {
	server := Start(t, kind, flags...)
	c := newCase(t, server)
	t.Cleanup(func() { c.transcript.save(t.Name()) })
	body(c)
	return c.transcript
}

func newCase(t *testing.T, server *Server) *Case {
	c := &Case{T: t, Server: server, transcript: &Transcript{
		names: map[string]string{server.Client: "<client>", server.DataDir: "<data>"}}}
	c.Reconnect()
	return c
}

// Reconnect opens a new connection, for after a restart, and takes its raft term as the start.
func (c *Case) Reconnect() {
	c.Helper()
	conn := c.Server.Dial(c)
	c.Conn = conn
	c.KV, c.Watch, c.Lease = pb.NewKVClient(conn), pb.NewWatchClient(conn), pb.NewLeaseClient(conn)
	c.Cluster, c.Maintenance = pb.NewClusterClient(conn), pb.NewMaintenanceClient(conn)
	answer, err := c.KV.Range(c.Context(), &pb.RangeRequest{Key: []byte("a")})
	if err != nil {
		c.Fatalf("the first range failed: %v", err)
	}
	c.transcript.term = answer.Header.RaftTerm
}

// Context ends at the deadline of one call.
func (c *Case) Context() context.Context {
	ctx, cancel := context.WithTimeout(c.T.Context(), Deadline)
	c.Cleanup(cancel)
	return ctx
}

// Mask replaces an id the server picked by a name in all later steps.
func (c *Case) Mask(id any, name string) {
	c.transcript.names[fmt.Sprint(id)] = "<" + name + ">"
	if number, ok := id.(int64); ok {
		c.transcript.names[fmt.Sprintf("%x", number)] = "<" + name + " hex>"
	}
}

// Record adds an answer to the transcript.
func (c *Case) Record(step string, m proto.Message) { c.transcript.add(step, render(m)) }

// RecordUnder adds an answer under a name that must be unique and does not depend on the order of
// steps, for bodies that walk a Go map.
func (c *Case) RecordUnder(name string, m proto.Message) {
	c.Helper()
	c.addUnder(name, render(m))
}

// NoteUnder does the same with a text.
func (c *Case) NoteUnder(name, text string) {
	c.Helper()
	c.addUnder(name, textLines(text))
}

func (c *Case) addUnder(name string, lines []Line) {
	c.Helper()
	for _, step := range c.transcript.Steps {
		if step.Name == name {
			c.Fatalf("two steps are called %q", name)
		}
	}
	c.transcript.addUnder(name, lines)
}

// Note adds a text to the transcript, line by line.
func (c *Case) Note(step, text string) { c.transcript.add(step, textLines(text)) }

// Notef adds a one-line fact to the transcript.
func (c *Case) Notef(step, format string, args ...any) {
	c.Note(step, fmt.Sprintf(format, args...))
}

// RecordError adds a refusal to the transcript: its code, its text, how many details.
func (c *Case) RecordError(step string, err error) {
	s := status.Convert(err)
	c.transcript.add(step, []Line{
		{"code", s.Code().String()}, {"message", s.Message()},
		{"details", fmt.Sprint(len(s.Details()))},
	})
}

// Method is a generated client method.
type Method[Q, A proto.Message] func(context.Context, Q, ...grpc.CallOption) (A, error)

// Ask calls a method that must answer, and records the answer.
func Ask[Q, A proto.Message](c *Case, step string, call Method[Q, A], request Q, options ...grpc.CallOption) A {
	c.Helper()
	answer, err := call(c.Context(), request, options...)
	if err != nil {
		c.Fatalf("%s: %v", step, err)
	}
	c.Record(step, answer)
	return answer
}

// Refuse calls a method that must fail with this code and exactly this text.
func Refuse[Q, A proto.Message](c *Case, step string, call Method[Q, A], request Q, code codes.Code, text string) {
	c.Helper()
	_, err := call(c.Context(), request)
	c.Refused(step, err, code, text)
}

// Refused expects this error and records it.
func (c *Case) Refused(step string, err error, code codes.Code, text string) {
	c.Helper()
	s := status.Convert(err)
	if s.Code() != code || s.Message() != text {
		c.Errorf("%s: got %v / %q, expected %v / %q", step, s.Code(), s.Message(), code, text)
	}
	c.RecordError(step, err)
}

// Eventually asks until the condition holds; for states that no event announces.
func (c *Case) Eventually(what string, holds func() bool) {
	c.Helper()
	Eventually(c, what, holds)
}

// Eventually asks until the condition holds or the deadline is over.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	Within(t, Deadline, what, holds)
}

// Within asks until the condition holds or this time is over.
func Within(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Put writes a key with default options, unrecorded.
func (c *Case) Put(key, value string) *pb.PutResponse {
	c.Helper()
	answer, err := c.KV.Put(c.Context(), &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		c.Fatalf("put %q: %v", key, err)
	}
	return answer
}

// Delete removes a key, unrecorded.
func (c *Case) Delete(key string) *pb.DeleteRangeResponse {
	c.Helper()
	answer, err := c.KV.DeleteRange(c.Context(), &pb.DeleteRangeRequest{Key: []byte(key)})
	if err != nil {
		c.Fatalf("delete %q: %v", key, err)
	}
	return answer
}

// Grant makes a lease, unrecorded.
func (c *Case) Grant(id, ttl int64) int64 {
	c.Helper()
	answer, err := c.Lease.LeaseGrant(c.Context(), &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	if err != nil {
		c.Fatalf("grant: %v", err)
	}
	return answer.ID
}

// Everything records the whole store, so that a body ends with what all of it led to.
func (c *Case) Everything(step string) *pb.RangeResponse {
	c.Helper()
	return Ask(c, step, c.KV.Range, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
}

// Keys of an answer, joined for a short comparison.
func Keys(answer *pb.RangeResponse) string {
	keys := make([]string, len(answer.Kvs))
	for i, kv := range answer.Kvs {
		keys[i] = string(kv.Key)
	}
	return strings.Join(keys, " ")
}
