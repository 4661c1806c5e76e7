package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
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

// all asks for all keys from the first one on, with the generated requests: the answers stay as they
// come, but for the number of their keys.
func (b *bench) all() *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(b.key(b.first)), RangeEnd: []byte(b.end())}
}

func asTheyCome() []grpc.CallOption {
	return []grpc.CallOption{grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(math.MaxInt32)}
}

func (b *bench) oneAnswer(ctx context.Context, name string, ask *pb.RangeRequest) error {
	return b.whole(ctx, name, func(conn *clientv3.Client) (int64, error) {
		var answer raw
		err := conn.ActiveConnection().Invoke(ctx, pb.KV_Range_FullMethodName, ask, &answer, asTheyCome()...)
		if err != nil {
			return 0, err
		}
		return keysOfRange(answer.bytes)
	})
}

// runAll reads all keys in one answer.
func runAll(ctx context.Context, b *bench) error {
	return b.oneAnswer(ctx, "all", b.all())
}

func runKeysOnly(ctx context.Context, b *bench) error {
	ask := b.all()
	ask.KeysOnly = true
	return b.oneAnswer(ctx, "keys only", ask)
}

func runCountOnly(ctx context.Context, b *bench) error {
	return b.whole(ctx, "count only", func(conn *clientv3.Client) (int64, error) {
		answer, err := conn.Get(ctx, b.key(b.first), clientv3.WithRange(b.end()), clientv3.WithCountOnly())
		if err != nil {
			return 0, err
		}
		return answer.Count, nil
	})
}

// runStream reads all keys in one stream of answers.
func runStream(ctx context.Context, b *bench) error {
	return b.whole(ctx, "stream", func(conn *clientv3.Client) (int64, error) {
		calls, err := conn.ActiveConnection().NewStream(ctx, rangeStream(), pb.KV_RangeStream_FullMethodName,
			asTheyCome()...)
		if err == nil {
			err = calls.SendMsg(b.all())
		}
		if err == nil {
			err = calls.CloseSend()
		}
		var keys int64
		for answer := (raw{}); err == nil; {
			if err = calls.RecvMsg(&answer); errors.Is(err, io.EOF) {
				return keys, nil
			} else if err == nil {
				var some int64
				some, err = keysOfStream(answer.bytes)
				keys += some
			}
		}
		return keys, err
	})
}

func rangeStream() *grpc.StreamDesc { return &pb.KV_ServiceDesc.Streams[0] }
