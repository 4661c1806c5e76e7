package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// runPage reads pages of neighbouring keys that begin anywhere, each with the count of all that follow.
func runPage(ctx context.Context, b *bench) error {
	return b.measured(ctx, "page", b.workload(func(ctx context.Context, worker int, n int64, _ time.Time) error {
		from := int64(b.mixed(n) % uint64(b.keys))
		return b.page(ctx, worker, from, b.keys-from, 0)
	}))
}

// page reads one page from a key on, and checks it: there are `left` keys from there to the end.
func (b *bench) page(ctx context.Context, worker int, from, left, revision int64) error {
	answer, err := b.conn(worker).Get(ctx, b.key(b.first+from), clientv3.WithRange(b.end()),
		clientv3.WithLimit(int64(b.limit)), clientv3.WithRev(revision))
	if err != nil {
		return err
	}
	if want := min(left, int64(b.limit)); int64(len(answer.Kvs)) != want || answer.Count != left {
		return fmt.Errorf("the page from %d has %d keys of %d, want %d of %d",
			from, len(answer.Kvs), answer.Count, want, left)
	}
	return nil
}

// runPages walks through all keys at one revision, page after page, while they are written at the
// offered rate; with -every it leaves pages out, so that a slow server comes to the end too. It walks
// again until -seconds have passed.
func runPages(ctx context.Context, b *bench) error {
	revision := b.revision
	if revision == 0 {
		now, err := b.conns[0].Get(ctx, b.key(b.first))
		if err != nil {
			return err
		}
		revision = now.Header.Revision
	}
	b.report.Values["revision"] = float64(revision)
	writes := make(chan *outcome, 1)
	stop := make(chan struct{})
	if b.rate > 0 {
		w := workload{clients: b.clients, rate: b.rate, stop: stop, request: b.puts()}
		go func() { writes <- drive(ctx, w) }()
	} else {
		writes <- &outcome{}
	}
	step := int64(b.limit * b.pageEvery)
	pages, began, enough := (b.keys+step-1)/step, time.Now(), make(chan struct{})
	walk := workload{clients: 1, stop: enough,
		request: func(ctx context.Context, worker int, n int64, _ time.Time) error {
			if (n+1)%pages == 0 && time.Since(began).Seconds() >= b.seconds {
				close(enough)
			}
			from := n % pages * step
			return b.page(ctx, worker, from, b.keys-from, revision)
		}}
	err := b.measured(ctx, "pages", walk)
	close(stop)
	if beside := <-writes; beside.errors > 0 {
		return fmt.Errorf("%d writes failed, the first: %w", beside.errors, beside.first)
	}
	return err
}

// whole is a workload whose requests read all keys, in some form.
func (b *bench) whole(ctx context.Context, name string, read func(conn *clientv3.Client) (int64, error)) error {
	return b.measured(ctx, name, b.workload(func(_ context.Context, worker int, _ int64, _ time.Time) error {
		got, err := read(b.conn(worker))
		if err == nil && got != b.keys {
			return fmt.Errorf("%d keys of %d", got, b.keys)
		}
		return err
	}))
}

func (b *bench) get(ctx context.Context, conn *clientv3.Client, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return conn.Get(ctx, b.key(b.first), append(options, clientv3.WithRange(b.end()))...)
}

// runAll reads all keys in one answer.
func runAll(ctx context.Context, b *bench) error {
	return b.whole(ctx, "all", func(conn *clientv3.Client) (int64, error) {
		answer, err := b.get(ctx, conn)
		if err != nil {
			return 0, err
		}
		return int64(len(answer.Kvs)), nil
	})
}

func runKeysOnly(ctx context.Context, b *bench) error {
	return b.whole(ctx, "keys only", func(conn *clientv3.Client) (int64, error) {
		answer, err := b.get(ctx, conn, clientv3.WithKeysOnly())
		if err != nil {
			return 0, err
		}
		return int64(len(answer.Kvs)), nil
	})
}

func runCountOnly(ctx context.Context, b *bench) error {
	return b.whole(ctx, "count only", func(conn *clientv3.Client) (int64, error) {
		answer, err := b.get(ctx, conn, clientv3.WithCountOnly())
		if err != nil {
			return 0, err
		}
		return answer.Count, nil
	})
}

// runStream reads all keys in one stream of answers.
func runStream(ctx context.Context, b *bench) error {
	return b.whole(ctx, "stream", func(conn *clientv3.Client) (int64, error) {
		answers, err := conn.GetStream(ctx, b.key(b.first), clientv3.WithRange(b.end()))
		if err != nil {
			return 0, err
		}
		var keys int64
		for answer := range answers {
			if err := answer.Err(); err != nil {
				return 0, err
			}
			keys += int64(len(answer.RangeResponse.Kvs))
		}
		return keys, nil
	})
}
