package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// How often the leases that are left are counted.
const lookAtLeases = 200 * time.Millisecond

// A lease that is not to end while it is measured.
const longLeaseSeconds = 3600

// runKeepAlive renews leases, each client its own.
func runKeepAlive(ctx context.Context, b *bench) error {
	leases := make([]clientv3.LeaseID, b.clients)
	for worker := range leases {
		granted, err := b.conn(worker).Grant(ctx, longLeaseSeconds)
		if err != nil {
			return err
		}
		leases[worker] = granted.ID
	}
	err := b.measured(ctx, "keepalive", b.workload(func(ctx context.Context, worker int, _ int64, _ time.Time) error {
		answer, err := b.conn(worker).KeepAliveOnce(ctx, leases[worker])
		if err == nil && answer.TTL != longLeaseSeconds {
			return fmt.Errorf("renewed for %d seconds", answer.TTL)
		}
		return err
	}))
	for worker, lease := range leases {
		if _, failed := b.conn(worker).Revoke(ctx, lease); failed != nil && err == nil {
			err = failed
		}
	}
	return err
}

// runExpire grants as many leases as there are -keys so that all end within one second, and offers
// puts at a rate: before that second, and from it on until all leases are gone.
func runExpire(ctx context.Context, b *bench) error {
	began := time.Now()
	at := began.Add(time.Duration(b.at) * time.Second)
	if b.at == 0 {
		at = began.Add(10*time.Second + time.Duration(b.keys)*time.Second/3000)
	}
	grants := workload{clients: b.clients, total: b.keys,
		request: func(ctx context.Context, worker int, _ int64, _ time.Time) error {
			// One that is granted less than a second later lives a second less: all end at `at` or
			// within the second after it.
			left := time.Until(at) + time.Second - time.Nanosecond
			_, err := b.conn(worker).Grant(ctx, int64(left/time.Second))
			return err
		}}
	if err := b.measured(ctx, "grant", grants); err != nil {
		return err
	}
	b.report.Values["seconds left after the grants"] = time.Until(at).Seconds()
	puts := b.workload(b.puts())
	puts.total, puts.seconds = 0, min(b.seconds, time.Until(at).Seconds()-1)
	if puts.seconds <= 0 {
		return fmt.Errorf("granting took until the leases ended; -at must be more than %.0f", time.Since(began).Seconds())
	}
	if err := b.measured(ctx, "before", puts); err != nil {
		return err
	}
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
		return ctx.Err()
	}
	return b.beside(ctx, "during", puts, func() error {
		err := b.leasesGone(ctx)
		// The last of them ended a second after the first.
		b.report.Values["seconds from the last end until all gone"] = max(time.Since(at).Seconds()-1, 0)
		return err
	})
}

func (b *bench) leasesGone(ctx context.Context) error {
	look := time.NewTicker(lookAtLeases)
	defer look.Stop()
	for {
		left, err := b.conns[0].Leases(ctx)
		if err != nil {
			return err
		}
		if len(left.Leases) == 0 {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
