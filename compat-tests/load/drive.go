package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// After this many errors a part ends: they all say the same, and its figures count for nothing.
const errorsMax = 100

// How many requests may be due and not begun before the pacer waits too. None is dropped: the next
// ones count their latency from when they were due all the same.
const dueMax = 1 << 16

// How often the pacer wakes at most: it uses the cores that the server is measured on.
const paceMin = 200 * time.Microsecond

// bench is one run of a command.
type bench struct {
	*settings
	conns  []*clientv3.Client
	report report
}

func connect(s *settings) (*bench, error) {
	b := &bench{settings: s, report: report{Values: map[string]float64{}}}
	for range s.connections {
		conn, err := clientv3.New(clientv3.Config{
			Endpoints:   []string{s.endpoint},
			DialTimeout: 10 * time.Second,
			Logger:      zap.NewNop(),
			// all keys come in one answer in some commands
			MaxCallRecvMsgSize: math.MaxInt32,
		})
		if err != nil {
			b.close()
			return nil, err
		}
		b.conns = append(b.conns, conn)
	}
	return b, nil
}

func (b *bench) close() {
	for _, conn := range b.conns {
		// The program ends, and with it all that a connection could still lose.
		_ = conn.Close()
	}
}

// conn is the connection of a worker.
func (b *bench) conn(worker int) *clientv3.Client { return b.conns[worker%len(b.conns)] }

// workload is what several workers do at a time.
type workload struct {
	clients int
	// Ends when any of them is reached; 0 is no bound. stop, if there, ends it from outside.
	total   int64
	seconds float64
	stop    <-chan struct{}
	// Requests due in a second; 0 for a closed loop.
	rate float64
	// One request, the n-th of all. Due is when it was to begin.
	request func(ctx context.Context, worker int, n int64, due time.Time) error
}

// outcome is what came of a workload.
type outcome struct {
	operations, errors int64
	first              error
	latency            histogram
}

func (o *outcome) merge(other *outcome) {
	o.operations += other.operations
	o.errors += other.errors
	if o.first == nil {
		o.first = other.first
	}
	o.latency.merge(&other.latency)
}

func (o *outcome) failed(err error) {
	o.errors++
	if o.first == nil {
		o.first = err
	}
}

type ticket struct {
	n   int64
	due time.Time
}

// drive runs a workload to its end.
func drive(ctx context.Context, w workload) *outcome {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := closedLoop(ctx, &w)
	if w.rate > 0 {
		next = openLoop(ctx, &w)
	}
	var failures atomic.Int64
	results := make([]outcome, w.clients)
	var workers sync.WaitGroup
	for worker := range w.clients {
		workers.Go(func() {
			mine := &results[worker]
			for failures.Load() < errorsMax {
				t, more := next()
				if !more {
					return
				}
				if err := w.request(ctx, worker, t.n, t.due); err != nil {
					failures.Add(1)
					mine.failed(err)
					continue
				}
				mine.latency.add(time.Since(t.due))
				mine.operations++
			}
		})
	}
	workers.Wait()
	sum := &outcome{}
	for i := range results {
		sum.merge(&results[i])
	}
	if err := ctx.Err(); err != nil {
		sum.failed(fmt.Errorf("given up: %w", err))
	}
	return sum
}

// closedLoop lets each worker begin its next request when the last one is answered.
func closedLoop(ctx context.Context, w *workload) func() (ticket, bool) {
	var taken atomic.Int64
	end := w.end()
	return func() (ticket, bool) {
		now := time.Now()
		if w.over(ctx, now, end) {
			return ticket{}, false
		}
		n := taken.Add(1) - 1
		return ticket{n, now}, w.total == 0 || n < w.total
	}
}

// openLoop makes requests due at a fixed rate, whether or not earlier ones are answered.
func openLoop(ctx context.Context, w *workload) func() (ticket, bool) {
	due := make(chan ticket, dueMax)
	go pace(ctx, w, due)
	return func() (ticket, bool) {
		t, more := <-due
		return t, more
	}
}

// pace has a thread of its own: the runtime's timers are only good to a millisecond when it is idle,
// which is more than a request takes.
func pace(ctx context.Context, w *workload, due chan<- ticket) {
	runtime.LockOSThread()
	defer close(due)
	began, end := time.Now(), w.end()
	for n := int64(0); w.total == 0 || n < w.total; n++ {
		at := began.Add(w.due(n))
		for wait := time.Until(at); wait > 0; wait = time.Until(at) {
			pause := syscall.NsecToTimespec(min(wait, 100*time.Millisecond).Nanoseconds())
			if err := syscall.Nanosleep(&pause, nil); err != nil && !errors.Is(err, syscall.EINTR) {
				return
			}
			if w.over(ctx, time.Now(), end) {
				return
			}
		}
		if w.over(ctx, at, end) {
			return
		}
		select {
		case due <- ticket{n, at}:
		case <-ctx.Done():
			return
		}
	}
}

// due is when the n-th request is, from the begin: evenly spread, but at high rates in bunches.
func (w *workload) due(n int64) time.Duration {
	at := time.Duration(float64(n) / w.rate * float64(time.Second))
	if w.rate*paceMin.Seconds() > 1 {
		at = (at + paceMin - 1).Truncate(paceMin)
	}
	return at
}

func (w *workload) end() time.Time {
	if w.seconds == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(w.seconds * float64(time.Second)))
}

func (w *workload) over(ctx context.Context, now, end time.Time) bool {
	select {
	case <-w.stop:
		return true
	case <-ctx.Done():
		return true
	default:
		return !end.IsZero() && now.After(end)
	}
}

// workload of the flags: the total if there is one, else the seconds.
func (b *bench) workload(request func(context.Context, int, int64, time.Time) error) workload {
	w := workload{clients: b.clients, total: b.total, rate: b.rate, request: request}
	if b.total == 0 {
		w.seconds = b.seconds
	}
	return w
}

// measured runs a workload as a part of the report.
func (b *bench) measured(ctx context.Context, name string, w workload) error {
	return b.measure(name, func() *outcome { return drive(ctx, w) })
}

func (b *bench) measure(name string, run func() *outcome) error {
	m, err := startMeter(b.pid)
	if err != nil {
		return err
	}
	p, err := m.stop(name, run())
	b.report.Parts = append(b.report.Parts, p)
	return err
}

// beside runs a workload as a part for as long as an action takes, and at least for the seconds given.
func (b *bench) beside(ctx context.Context, name string, w workload, action func() error) error {
	stop, failed := make(chan struct{}), make(chan error, 1)
	w.stop, w.seconds, w.total = stop, 0, 0
	go func() {
		least := time.After(time.Duration(b.seconds * float64(time.Second)))
		failed <- action()
		<-least
		close(stop)
	}()
	err := b.measured(ctx, name, w)
	return errors.Join(err, <-failed)
}
