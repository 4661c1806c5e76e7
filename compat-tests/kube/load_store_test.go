//go:build load

package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"etched.local/compat-tests/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/v3"
)

// What the phases do that ask the store itself, in the shapes in which an apiserver asks it.
const (
	podsPrefix   = defaultPrefix + "pods/"
	leasesPrefix = defaultPrefix + "leases/kube-node-lease/"
	eventsPrefix = defaultPrefix + "events/"
	listRounds   = 5
	stormFor     = 10 * time.Second
	stormWrites  = 500 // a second, at scale 1
)

func prefixEnd(prefix string) []byte { return []byte(clientv3.GetPrefixRangeEnd(prefix)) }

// stream reads a list as an apiserver does, in chunks of which none is kept here, and returns its revision.
func stream(ctx context.Context, store pb.KVClient, prefix string, at, limit int64, each func(*mvccpb.KeyValue)) (revision int64, err error) {
	answers, err := store.RangeStream(ctx, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix), Revision: at, Limit: limit})
	for err == nil {
		var answer *pb.RangeStreamResponse
		if answer, err = answers.Recv(); err != nil {
			break
		}
		chunk := answer.RangeResponse
		if chunk.Header != nil {
			revision = chunk.Header.Revision
		}
		for _, kv := range chunk.Kvs {
			each(kv)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return revision, err
}

// listing is a list of which only the size is kept.
type listing struct {
	keys, bytes int
	revision    int64
}

func list(ctx context.Context, store pb.KVClient, prefix string, at int64) (l listing, err error) {
	l.revision, err = stream(ctx, store, prefix, at, 0, func(kv *mvccpb.KeyValue) {
		l.keys, l.bytes = l.keys+1, l.bytes+len(kv.Value)
	})
	return l, err
}

func (l *loaded) count(prefix string) int64 {
	l.Helper()
	answer, err := l.store.Range(l.Context(), &pb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix), CountOnly: true})
	if err != nil {
		l.Fatal(err)
	}
	return answer.Count
}

// podBytes is what a pod is in the store, on average.
func (l *loaded) podBytes() int {
	l.Helper()
	pods, err := list(l.T.Context(), l.store, podsPrefix, 0)
	if err != nil || pods.keys == 0 {
		l.Fatalf("%d pods: %v", pods.keys, err)
	}
	return pods.bytes / pods.keys
}

// listAtAVersion reads all pods of a version that is no longer the newest.
func (l *loaded) listAtAVersion() phaseResult {
	before, err := list(l.T.Context(), l.store, leasesPrefix, 0)
	if err != nil {
		l.Fatal(err)
	}
	l.rewrite(podsPrefix, max(1, scaled(loadPods)/100), 0)
	var latencies []time.Duration
	for range listRounds {
		began := time.Now()
		pods, err := list(l.T.Context(), l.store, podsPrefix, before.revision)
		if err != nil || pods.keys != scaled(loadPods) {
			l.Fatalf("%d of %d pods: %v", pods.keys, scaled(loadPods), err)
		}
		latencies = append(latencies, time.Since(began))
	}
	return phaseResult{latencies: latencies, note: fmt.Sprintf("%d lists", listRounds)}
}

// rewrite gives so many keys below a prefix a new revision, in turn, by the transaction of an apiserver's update; so many
// a second, or as fast as it goes.
func (l *loaded) rewrite(prefix string, count int, perSecond float64) []time.Duration {
	l.Helper()
	var kvs []*mvccpb.KeyValue
	_, err := stream(l.T.Context(), l.store, prefix, 0, int64(count), func(kv *mvccpb.KeyValue) { kvs = append(kvs, kv) })
	if err != nil || len(kvs) == 0 {
		l.Fatalf("%d keys below %s: %v", len(kvs), prefix, err)
	}
	// One writer a key at a time: two that meet would have a comparison fail, as it must.
	locks := make([]sync.Mutex, len(kvs))
	return drive(l.T, count, perSecond, func(i int) error {
		lock, kv := &locks[i%len(kvs)], kvs[i%len(kvs)]
		lock.Lock()
		defer lock.Unlock()
		done, err := l.store.Txn(l.T.Context(), &pb.TxnRequest{
			Compare: []*pb.Compare{{Result: pb.Compare_EQUAL, Target: pb.Compare_MOD, Key: kv.Key,
				TargetUnion: &pb.Compare_ModRevision{ModRevision: kv.ModRevision}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: kv.Key, Value: kv.Value}}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: kv.Key}}}},
		})
		if err != nil {
			return err
		}
		if !done.Succeeded {
			return fmt.Errorf("somebody else wrote %s", kv.Key)
		}
		kv.ModRevision = done.Header.Revision
		return nil
	})
}

// overwrite gives each pod a second version, for a compaction to remove.
func (l *loaded) overwrite() phaseResult {
	return phaseResult{latencies: l.rewrite(podsPrefix, scaled(loadPods), 0)}
}

// storm has clients that, all at once, list everything and then watch everything, while leases are renewed.
func (l *loaded) storm() phaseResult {
	writes := int(float64(scaled(stormWrites)) * stormFor.Seconds())
	var group sync.WaitGroup
	var listing sync.WaitGroup
	var bytes atomic.Int64
	began := time.Now()
	for range loadClients {
		conn := l.Cluster.Store.Dial(l.T)
		listing.Add(1)
		group.Go(func() {
			err := follow(l.T.Context(), pb.NewKVClient(conn), pb.NewWatchClient(conn), writes, &bytes, listing.Done)
			if err != nil {
				l.Error(err)
			}
		})
	}
	listing.Wait()
	listed := time.Since(began)
	latencies := l.rewrite(leasesPrefix, writes, float64(scaled(stormWrites)))
	written := time.Now()
	group.Wait()
	return phaseResult{latencies: latencies, note: fmt.Sprintf("%d clients listed %d MiB in %.1f s, the last event came %.2f s after the last write",
		loadClients, bytes.Load()>>20, listed.Seconds(), time.Since(written).Seconds())}
}

// follow lists and watches everything until so many changes of leases have come, each in its order.
func follow(ctx context.Context, store pb.KVClient, watches pb.WatchClient, changes int, size *atomic.Int64, listed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := watches.Watch(ctx)
	if err == nil {
		var all listing
		all, err = list(ctx, store, defaultPrefix, 0)
		size.Add(int64(all.bytes))
		if err == nil {
			err = watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
				Key: []byte(defaultPrefix), RangeEnd: prefixEnd(defaultPrefix), StartRevision: all.revision + 1, PrevKv: true, ProgressNotify: true}}})
		}
	}
	if err == nil {
		_, err = watch.Recv() // that it is there
	}
	listed()
	for seen, last := 0, int64(0); err == nil && seen < changes; {
		var answer *pb.WatchResponse
		if answer, err = watch.Recv(); err != nil {
			break
		}
		for _, event := range answer.Events {
			if event.Kv.ModRevision < last {
				return fmt.Errorf("revision %d came after %d", event.Kv.ModRevision, last)
			}
			last = event.Kv.ModRevision
			if len(event.Kv.Key) > len(leasesPrefix) && string(event.Kv.Key[:len(leasesPrefix)]) == leasesPrefix {
				seen++
			}
		}
	}
	return err
}

// compaction writes at a steady rate, first by itself and then while the store compacts all that is old.
func (l *loaded) compaction() {
	perSecond := float64(scaled(stormWrites))
	quiet := func() phaseResult {
		return phaseResult{latencies: l.rewrite(leasesPrefix, int(perSecond*quietFor.Seconds()), perSecond)}
	}
	l.measure("writes before the compaction", quiet)
	l.measure("writes during the compaction", func() phaseResult {
		answer, err := l.store.Range(l.Context(), &pb.RangeRequest{Key: []byte("compact"), CountOnly: true})
		if err != nil {
			l.Fatal(err)
		}
		took := make(chan time.Duration, 1)
		go func() {
			began := time.Now()
			_, err := l.store.Compact(l.T.Context(), &pb.CompactionRequest{Revision: answer.Header.Revision, Physical: true})
			if err != nil {
				l.Error(err)
			}
			took <- time.Since(began)
		}()
		result := quiet()
		result.note = fmt.Sprintf("compacted within %.1f s", (<-took).Seconds())
		return result
	})
	harness.Within(l, loadTimeout, "the old revision is gone", func() bool {
		_, err := list(l.T.Context(), l.store, leasesPrefix, 2)
		return err != nil
	})
}
