package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// How long after the last write an event may still come.
const eventsLate = 30 * time.Second

// stream is one Watch stream; clientv3 would put all watchers of a connection on one.
type stream struct {
	calls   grpc.ClientStream
	message message
	latency histogram
}

// openStreams begins the streams, spread over the connections.
func (b *bench) openStreams(ctx context.Context) ([]*stream, error) {
	opened := make([]*stream, b.streams)
	for i := range opened {
		calls, err := b.conn(i).ActiveConnection().NewStream(ctx, &pb.Watch_ServiceDesc.Streams[0],
			pb.Watch_Watch_FullMethodName, asTheyCome()...)
		if err != nil {
			return nil, err
		}
		opened[i] = &stream{calls: calls}
	}
	return opened, nil
}

func (s *stream) ask(create *pb.WatchCreateRequest) error {
	return s.calls.SendMsg(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
}

// receive waits for a message and hands its events over.
func (s *stream) receive(each func(event) error) error {
	if err := s.calls.RecvMsg(&s.message.raw); err != nil {
		return err
	}
	if err := s.message.read(each); err != nil {
		return err
	}
	if s.message.canceled {
		return fmt.Errorf("a watcher was cancelled: %s", s.message.reason)
	}
	return nil
}

// created waits until that many watchers of the stream are there.
func (s *stream) created(watchers int) error {
	for range watchers {
		early := func(e event) error { return fmt.Errorf("an event of revision %d before its watcher", e.revision) }
		if err := s.receive(early); err != nil {
			return err
		}
		if !s.message.created {
			return errors.New("a watcher was not created")
		}
	}
	return nil
}

// watchAll creates the watchers, number i on the stream i modulo the streams.
func (b *bench) watchAll(ctx context.Context) ([]*stream, error) {
	streams, err := b.openStreams(ctx)
	if err != nil {
		return nil, err
	}
	failed := make(chan error, len(streams))
	for at, s := range streams {
		go func() {
			count := 0
			for i := at; i < b.watchers; i += len(streams) {
				key := b.key(b.first)
				if b.distinct {
					key = b.key(b.first + int64(i))
				}
				if err := s.ask(&pb.WatchCreateRequest{Key: []byte(key)}); err != nil {
					failed <- err
					return
				}
				count++
			}
			failed <- s.created(count)
		}()
	}
	for range streams {
		if err := <-failed; err != nil {
			return nil, err
		}
	}
	return streams, nil
}

// stamped puts write when they were due into their value, for the receiver of the event.
func (b *bench) stamped(key func(n int64) string, began time.Time) request {
	values := b.values()
	return func(ctx context.Context, worker int, n int64, due time.Time) error {
		value := values.next(worker, b.valueSize)
		binary.LittleEndian.PutUint64(value, uint64(due.Sub(began)))
		_, err := b.conn(worker).Put(ctx, key(n), string(value))
		return err
	}
}

// runWatch has writers, and watchers of one key, or of a key each. Latency is from when the
// write was due to when the event was received.
func runWatch(ctx context.Context, b *bench) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	streams, err := b.watchAll(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	var received atomic.Int64
	ended := make(chan error, len(streams))
	for _, s := range streams {
		go func() { ended <- s.follow(began, &received) }()
	}
	each, key := int64(b.watchers), func(int64) string { return b.key(b.first) }
	if b.distinct {
		each, key = 1, func(n int64) string { return b.key(b.first + int64(b.mixed(n)%uint64(b.watchers))) }
	}
	w := b.workload(b.stamped(key, began))
	return b.measure("events", func() *outcome {
		puts := drive(ctx, w)
		sum := &outcome{errors: puts.errors, first: puts.first}
		b.report.Values["puts"] = float64(puts.operations)
		awaitEvents(ctx, &received, puts.operations*each, ended, sum)
		for _, s := range streams {
			sum.latency.merge(&s.latency)
		}
		sum.operations = received.Load()
		return sum
	})
}

// follow takes what the stream sends, to its end, which is an error of its own.
func (s *stream) follow(began time.Time, received *atomic.Int64) error {
	for {
		events := int64(0)
		err := s.receive(func(e event) error {
			s.latency.add(time.Since(began) - time.Duration(binary.LittleEndian.Uint64(e.value)))
			events++
			return nil
		})
		if err != nil {
			return err
		}
		received.Add(events)
	}
}

// awaitEvents waits until all events are there; a stream that ends earlier is an error.
func awaitEvents(ctx context.Context, received *atomic.Int64, wanted int64, ended <-chan error, o *outcome) {
	late := time.NewTimer(eventsLate)
	defer late.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for received.Load() < wanted {
		select {
		case err := <-ended:
			o.failed(fmt.Errorf("a stream ended: %w", err))
			return
		case <-late.C:
			o.failed(fmt.Errorf("%d events of %d", received.Load(), wanted))
			return
		case <-ctx.Done():
			o.failed(ctx.Err())
			return
		case <-look.C:
		}
	}
	if received.Load() > wanted {
		o.failed(fmt.Errorf("%d events, but only %d were to come", received.Load(), wanted))
	}
}

// runResume offers writes at a rate, first alone, then while watchers that are a history behind catch
// up with all of it.
func runResume(ctx context.Context, b *bench) error {
	before := b.workload(b.puts())
	before.total, before.seconds = 0, b.seconds
	if err := b.measured(ctx, "before", before); err != nil {
		return err
	}
	return b.beside(ctx, "during", before, func() error {
		began := time.Now()
		events, err := b.catchUp(ctx)
		b.report.Values["seconds until all caught up"] = time.Since(began).Seconds()
		b.report.Values["events"] = float64(events)
		return err
	})
}

// catchUp begins the watchers, one on a stream, and waits until each has seen the revision that was
// the newest when they began. They are then cancelled; what they had in plenty is not looked at.
func (b *bench) catchUp(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	now, err := b.conns[0].Get(ctx, b.key(b.first))
	if err != nil {
		return 0, err
	}
	last := now.Header.Revision
	from := last - b.history + 1
	b.streams = b.watchers
	streams, err := b.openStreams(ctx)
	if err != nil {
		return 0, err
	}
	done := make(chan error, len(streams))
	for _, s := range streams {
		go func() {
			create := &pb.WatchCreateRequest{
				Key: []byte(b.prefix), RangeEnd: []byte(b.end()), StartRevision: from,
			}
			err := s.ask(create)
			if err == nil {
				err = s.created(1)
			}
			if err == nil {
				err = s.reach(from, last)
			}
			done <- err
		}()
	}
	for range streams {
		if err := <-done; err != nil {
			return 0, err
		}
	}
	return b.history * int64(len(streams)), nil
}

// reach takes events up to a revision. Each put made one, so none may be missing and none come twice.
func (s *stream) reach(next, last int64) error {
	for next <= last {
		err := s.receive(func(e event) error {
			if e.revision != next {
				return fmt.Errorf("the event of revision %d came, not that of %d", e.revision, next)
			}
			next++
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
