package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// key is the i-th key: its text sorts as its number does.
func (b *bench) key(i int64) string {
	return fmt.Sprintf("%s%0*d", b.prefix, b.keySize-len(b.prefix), i)
}

// end is the end of the range of all keys with the prefix.
func (b *bench) end() string { return clientv3.GetPrefixRangeEnd(b.prefix) }

// mixed is a fixed random number for each n: no state, so workers need not share one.
func (b *bench) mixed(n int64) uint64 {
	x := uint64(n+1)*0x9e3779b97f4a7c15 + uint64(b.seed)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// randomKey is the key that the n-th request is about.
func (b *bench) randomKey(n int64) string {
	return b.key(b.first + int64(b.mixed(n)%uint64(b.keys)))
}

// values gives each worker random bytes of its own.
type values []*rand.ChaCha8

func (b *bench) values() values {
	made := make(values, b.clients)
	for worker := range made {
		var seed [32]byte
		for i, part := range []int64{b.seed, int64(worker)} {
			for j := range 8 {
				seed[8*i+j] = byte(part >> (8 * j))
			}
		}
		made[worker] = rand.NewChaCha8(seed)
	}
	return made
}

func (v values) next(worker, size int) []byte {
	value := make([]byte, size)
	// It never fails.
	_, _ = v[worker].Read(value)
	return value
}

type request = func(ctx context.Context, worker int, n int64, due time.Time) error

// puts overwrites random keys.
func (b *bench) puts() request {
	values := b.values()
	return func(ctx context.Context, worker int, n int64, _ time.Time) error {
		_, err := b.conn(worker).Put(ctx, b.randomKey(n), string(values.next(worker, b.valueSize)))
		return err
	}
}

func runPut(ctx context.Context, b *bench) error {
	return b.measured(ctx, "put", b.workload(b.puts()))
}

func runGet(ctx context.Context, b *bench) error {
	var options []clientv3.OpOption
	if b.serializable {
		options = append(options, clientv3.WithSerializable())
	}
	return b.measured(ctx, "get", b.workload(func(ctx context.Context, worker int, n int64, _ time.Time) error {
		key := b.randomKey(n)
		answer, err := b.conn(worker).Get(ctx, key, options...)
		if err == nil && len(answer.Kvs) != 1 {
			return fmt.Errorf("%s has %d values", key, len(answer.Kvs))
		}
		return err
	}))
}

// runFill writes each key once, or with a batch each group of neighbours in one transaction.
func runFill(ctx context.Context, b *bench) error {
	values := b.values()
	batch := int64(b.batch)
	w := b.workload(func(ctx context.Context, worker int, n int64, _ time.Time) error {
		from, to := b.first+n*batch, b.first+min((n+1)*batch, b.keys)
		puts := make([]clientv3.Op, 0, to-from)
		for i := from; i < to; i++ {
			puts = append(puts, clientv3.OpPut(b.key(i), string(values.next(worker, b.valueSize))))
		}
		if len(puts) == 1 {
			_, err := b.conn(worker).Do(ctx, puts[0])
			return err
		}
		_, err := b.conn(worker).Txn(ctx).Then(puts...).Commit()
		return err
	})
	w.total, w.seconds = (b.keys+batch-1)/batch, 0
	return b.measured(ctx, "fill", w)
}

// runTxn does Kubernetes' write: replace a key if it is as it was read, else read it. A worker has keys
// of its own, so the comparison mostly holds.
func runTxn(ctx context.Context, b *bench) error {
	values, own := b.values(), b.keys/int64(b.clients)
	if own == 0 {
		return fmt.Errorf("%d keys are too few for %d clients", b.keys, b.clients)
	}
	known, err := b.revisions(ctx)
	if err != nil {
		return err
	}
	var other atomic.Int64
	err = b.measured(ctx, "txn", b.workload(func(ctx context.Context, worker int, n int64, _ time.Time) error {
		i := int64(worker)*own + int64(b.mixed(n)%uint64(own))
		key := b.key(b.first + i)
		answer, err := b.conn(worker).Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", known[i])).
			Then(clientv3.OpPut(key, string(values.next(worker, b.valueSize)))).
			Else(clientv3.OpGet(key)).Commit()
		switch {
		case err != nil:
			return err
		case answer.Succeeded:
			known[i] = answer.Header.Revision
		default:
			other.Add(1)
			known[i] = answer.Responses[0].GetResponseRange().Kvs[0].ModRevision
		}
		return nil
	}))
	b.report.Values["not as known"] = float64(other.Load())
	return err
}

// revisions are those of the keys now, in the order of the keys; 0 for one that is not there.
func (b *bench) revisions(ctx context.Context) ([]int64, error) {
	known := make([]int64, b.keys)
	answer, err := b.conns[0].Get(ctx, b.key(b.first), clientv3.WithRange(b.key(b.first+b.keys)),
		clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	for _, kv := range answer.Kvs {
		number, err := strconv.ParseInt(string(kv.Key[len(b.prefix):]), 10, 64)
		if err != nil {
			return nil, err
		}
		known[number-b.first] = kv.ModRevision
	}
	return known, nil
}

// runCompare replaces random keys if their value is not a certain one: to know, the server reads what
// it stored.
func runCompare(ctx context.Context, b *bench) error {
	values := b.values()
	return b.measured(ctx, "compare", b.workload(func(ctx context.Context, worker int, n int64, _ time.Time) error {
		key := b.randomKey(n)
		answer, err := b.conn(worker).Txn(ctx).
			If(clientv3.Compare(clientv3.Value(key), "!=", "a value that no key has")).
			Then(clientv3.OpPut(key, string(values.next(worker, b.valueSize)))).Commit()
		if err == nil && !answer.Succeeded {
			return fmt.Errorf("%s is not there", key)
		}
		return err
	}))
}
