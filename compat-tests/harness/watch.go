package harness

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Stream is an open watch stream whose answers are collected as they come.
type Stream struct {
	c       *Case
	stream  pb.Watch_WatchClient
	answers chan *pb.WatchResponse
	// Err is what ended the stream, once answers is closed.
	Err error
	// End cancels the call.
	End context.CancelFunc
}

// OpenWatch opens a watch stream that ends with the test. An optional context carries metadata.
func (c *Case) OpenWatch(parent ...context.Context) *Stream {
	c.Helper()
	base := c.T.Context()
	if len(parent) > 0 {
		base = parent[0]
	}
	ctx, cancel := context.WithCancel(base)
	c.Cleanup(cancel)
	stream, err := c.Watch.Watch(ctx)
	if err != nil {
		c.Fatalf("watch: %v", err)
	}
	s := &Stream{c: c, stream: stream, answers: make(chan *pb.WatchResponse, 1<<16), End: cancel}
	go func() {
		defer close(s.answers)
		for {
			answer, err := stream.Recv()
			if err != nil {
				s.Err = err
				return
			}
			s.answers <- answer
		}
	}()
	return s
}

// Send sends one request of the oneof's kinds.
func (s *Stream) Send(request *pb.WatchRequest) {
	s.c.Helper()
	if err := s.stream.Send(request); err != nil && err != io.EOF {
		s.c.Fatalf("watch send: %v", err)
	}
}

// HalfClose says that no more requests follow.
func (s *Stream) HalfClose() { _ = s.stream.CloseSend() }

// Create asks for a watcher and records the answer.
func (s *Stream) Create(step string, request *pb.WatchCreateRequest) *pb.WatchResponse {
	s.c.Helper()
	s.Send(CreateRequest(request))
	return s.Next(step)
}

// CreateRequest wraps a create request.
func CreateRequest(request *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}
}

// Cancel asks for the end of a watcher.
func (s *Stream) Cancel(id int64) {
	s.c.Helper()
	s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
		CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

// Progress asks for a progress notification.
func (s *Stream) Progress() {
	s.c.Helper()
	s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{
		ProgressRequest: &pb.WatchProgressRequest{}}})
}

// Take waits for the next answer, unrecorded.
func (s *Stream) Take(step string) *pb.WatchResponse {
	s.c.Helper()
	select {
	case answer, ok := <-s.answers:
		if !ok {
			s.c.Fatalf("%s: the stream ended: %v", step, s.Err)
		}
		return answer
	case <-time.After(Deadline):
		s.c.Fatalf("%s: no watch answer in %v", step, Deadline)
	}
	return nil
}

// Next waits for the next answer and records it.
func (s *Stream) Next(step string) *pb.WatchResponse {
	s.c.Helper()
	answer := s.Take(step)
	s.c.Record(step, answer)
	return answer
}

// Events collects answers until there are n events and records them; how they are cut into
// answers is not recorded.
func (s *Stream) Events(step string, n int) []*mvccpb.Event {
	s.c.Helper()
	var events []*mvccpb.Event
	for len(events) < n {
		events = append(events, s.Take(step).Events...)
	}
	for i, event := range events {
		s.c.Record(fmt.Sprintf("%s event %d", step, i), event)
	}
	return events
}

// Ended waits for the end of the stream and returns its error.
func (s *Stream) Ended(step string) error {
	s.c.Helper()
	for {
		select {
		case answer, ok := <-s.answers:
			if !ok {
				return s.Err
			}
			s.c.Errorf("%s: an answer instead of the end: %v", step, answer)
		case <-time.After(Deadline):
			s.c.Fatalf("%s: the stream did not end in %v", step, Deadline)
		}
	}
}

// Describe is a short form of events: P or D, key, value and revision of each.
func Describe(events []*mvccpb.Event) string {
	words := make([]string, len(events))
	for i, event := range events {
		kind := "P:"
		if event.Type == mvccpb.Event_DELETE {
			kind = "D:"
		}
		words[i] = kind + string(event.Kv.Key) + "=" + string(event.Kv.Value)
	}
	return strings.Join(words, " ")
}
