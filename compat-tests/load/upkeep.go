package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// How often a curve has a point.
const sampleEvery = 500 * time.Millisecond

// sample is one point of a curve.
type sample struct {
	Seconds    float64 `json:"seconds"`
	Operations int64   `json:"operations"`
	Memory     float64 `json:"memory_bytes"`
	Disk       float64 `json:"disk_bytes"`
}

// besideAction offers puts at a rate, first alone, then while something is done to the store.
func (b *bench) besideAction(ctx context.Context, name string, action func() error) error {
	puts := b.workload(b.puts())
	puts.total, puts.seconds = 0, b.seconds
	if err := b.measured(ctx, "before", puts); err != nil {
		return err
	}
	return b.beside(ctx, "during", puts, func() error {
		began := time.Now()
		err := action()
		b.report.Values[name] = time.Since(began).Seconds()
		return err
	})
}

func (b *bench) revisionNow(ctx context.Context) (int64, error) {
	now, err := b.conns[0].Get(ctx, b.key(b.first), clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return now.Header.Revision, nil
}

// runCompact compacts all history there is, and waits until it is gone from the store.
func runCompact(ctx context.Context, b *bench) error {
	return b.besideAction(ctx, "seconds to compact", func() error {
		revision, err := b.revisionNow(ctx)
		if err != nil {
			return err
		}
		_, err = b.conns[0].Compact(ctx, revision, clientv3.WithCompactPhysical())
		return err
	})
}

// runDefragment compacts, then defragments the store, and tells the size of its file beside that of the
// keys and values that it still holds: those of all versions since the compaction.
func runDefragment(ctx context.Context, b *bench) error {
	compacted, err := b.revisionNow(ctx)
	if err != nil {
		return err
	}
	if _, err := b.conns[0].Compact(ctx, compacted, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	size := func(name string) error {
		status, err := b.conns[0].Status(ctx, b.endpoint)
		if err == nil {
			b.report.Values[name] = float64(status.DbSize)
		}
		return err
	}
	if err := size("file before, bytes"); err != nil {
		return err
	}
	return b.besideAction(ctx, "seconds to defragment", func() error {
		if _, err := b.conns[0].Defragment(ctx, b.endpoint); err != nil {
			return err
		}
		if err := size("file after, bytes"); err != nil {
			return err
		}
		now, err := b.revisionNow(ctx)
		versions := b.keys + now - compacted
		b.report.Values["live keys and values, bytes"] = float64(versions) * float64(b.keySize+b.valueSize)
		return err
	})
}

// runChurn overwrites all keys again and again, compacts after each time around, and samples memory
// and disk.
func runChurn(ctx context.Context, b *bench) error {
	values := b.values()
	around := make(chan struct{}, 1)
	var done atomic.Int64
	w := b.workload(func(ctx context.Context, worker int, n int64, _ time.Time) error {
		_, err := b.conn(worker).Put(ctx, b.randomKey(n), string(values.next(worker, b.valueSize)))
		if all := done.Add(1); all%b.keys == 0 {
			select {
			case around <- struct{}{}:
			default: // one compaction is under way and one waits: the next has this one's work too
			}
		}
		return err
	})
	helpers, stop := context.WithCancel(ctx)
	var both sync.WaitGroup
	var compacting, sampling error
	both.Go(func() { compacting = b.compactEach(helpers, around) })
	both.Go(func() { sampling = b.sampleUntil(helpers, &done) })
	err := b.measured(ctx, "puts", w)
	stop()
	both.Wait()
	for _, failed := range []error{compacting, sampling} {
		if err == nil {
			err = failed
		}
	}
	return err
}

func (b *bench) compactEach(ctx context.Context, around <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-around:
		}
		revision, err := b.revisionNow(ctx)
		if err == nil {
			_, err = b.conns[0].Compact(ctx, revision)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("compaction: %w", err)
		}
		b.report.Values["compactions"]++
	}
}

func (b *bench) sampleUntil(ctx context.Context, done *atomic.Int64) error {
	began, tick := time.Now(), time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		memory, err := memoryOf(b.pid, "VmRSS:")
		if err != nil {
			return err
		}
		disk, err := bytesOnDisk(b.dataDir)
		if err != nil {
			return err
		}
		b.report.Curve = append(b.report.Curve,
			sample{time.Since(began).Seconds(), done.Load(), memory, disk})
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
