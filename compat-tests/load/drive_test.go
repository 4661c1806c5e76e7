package main

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func TestAClosedLoopMakesAsManyRequestsAsAsked(t *testing.T) {
	var seen [1000]atomic.Bool
	o := drive(context.Background(), workload{clients: 7, total: int64(len(seen)),
		request: func(_ context.Context, _ int, n int64, _ time.Time) error {
			if seen[n].Swap(true) {
				t.Errorf("request %d twice", n)
			}
			return nil
		}})
	if o.operations != int64(len(seen)) || o.latency.total != uint64(len(seen)) || o.errors != 0 {
		t.Errorf("%d operations, %d latencies, %d errors", o.operations, o.latency.total, o.errors)
	}
}

func TestAnOpenLoopCountsFromWhenARequestWasDue(t *testing.T) {
	// One client whose first request takes until the last one is due: all of them are late.
	const total, rate = 20, 2000.0
	w := workload{clients: 1, total: total, rate: rate}
	var first time.Time
	w.request = func(_ context.Context, _ int, n int64, due time.Time) error {
		if n == 0 {
			first = due
			for time.Since(first) < w.due(total) {
			}
		}
		return nil
	}
	o := drive(context.Background(), w)
	if o.operations != total {
		t.Fatalf("%d operations", o.operations)
	}
	if half := o.latency.quantile(0.5); half < w.due(total/2) {
		t.Errorf("half of the requests took at most %v, but all waited for the first", half)
	}
}

func TestRequestsAreDueAtTheRateInBunchesThatThePacerCanKeep(t *testing.T) {
	slow, fast := workload{rate: 1000}, workload{rate: 20_000}
	if got := slow.due(7); got != 7*time.Millisecond {
		t.Errorf("at 1,000 a second the 7th is due at %v", got)
	}
	for n := range int64(100) {
		got, exact := fast.due(n), time.Duration(n)*50*time.Microsecond
		if got%paceMin != 0 || got < exact || got >= exact+paceMin {
			t.Errorf("at 20,000 a second the request %d is due at %v", n, got)
		}
	}
}

func TestAfterManyErrorsALoadEnds(t *testing.T) {
	o := drive(context.Background(), workload{clients: 2,
		request: func(context.Context, int, int64, time.Time) error { return errors.New("no") }})
	if o.errors < errorsMax || o.operations != 0 || o.first == nil {
		t.Errorf("%d errors, %d operations", o.errors, o.operations)
	}
}
