package main

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

func received(t *testing.T, into *message, answer *pb.WatchResponse) []event {
	t.Helper()
	bytes, err := proto.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	if err := (rawCodec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(bytes)}, &into.raw); err != nil {
		t.Fatal(err)
	}
	var events []event
	if err := into.read(func(e event) error { events = append(events, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return events
}

func TestEventsOfAMessageAreReadInTheirOrder(t *testing.T) {
	var m message
	answer := &pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 1 << 63, Revision: 9}, WatchId: 3}
	for i := range 3 {
		kv := &mvccpb.KeyValue{
			Key: []byte("k"), ModRevision: int64(i + 7), Version: 2, Value: fmt.Appendf(nil, "v%d", i),
		}
		answer.Events = append(answer.Events, &mvccpb.Event{Kv: kv, PrevKv: &mvccpb.KeyValue{ModRevision: 1}})
	}
	events := received(t, &m, answer)
	if len(events) != 3 {
		t.Fatalf("%d events", len(events))
	}
	for i, e := range events {
		if e.revision != int64(i+7) || string(e.value) != fmt.Sprintf("v%d", i) {
			t.Errorf("event %d is of revision %d with %q", i, e.revision, e.value)
		}
	}
}

func TestAMessageSaysWhetherAWatcherWasCreatedOrCancelled(t *testing.T) {
	var m message
	received(t, &m, &pb.WatchResponse{Created: true})
	if !m.created || m.canceled {
		t.Errorf("%+v", m)
	}
	received(t, &m, &pb.WatchResponse{Canceled: true, CancelReason: "compacted"})
	if m.created || !m.canceled || m.reason != "compacted" {
		t.Errorf("%+v", m)
	}
}

func TestACutMessageIsAnError(t *testing.T) {
	m := message{raw: raw{[]byte{responseEvents<<3 | 2, 5, 0}}}
	if err := m.read(func(event) error { return nil }); err == nil {
		t.Error("no error")
	}
}

func TestKeysOfAnswersAreCounted(t *testing.T) {
	answer := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 9}, Count: 7,
		Kvs: []*mvccpb.KeyValue{{Key: []byte("a")}, {Key: []byte("b"), Value: []byte("v")}}}
	whole, err := proto.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	streamed, err := proto.Marshal(&pb.RangeStreamResponse{RangeResponse: answer})
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := keysOfRange(whole); keys != 2 || err != nil {
		t.Errorf("%d keys, %v", keys, err)
	}
	if keys, err := keysOfStream(streamed); keys != 2 || err != nil {
		t.Errorf("%d keys, %v", keys, err)
	}
}
