package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
	"go.uber.org/zap"

	. "etched.local/compat-tests/harness"
)

func openClient(c *Case) *clientv3.Client {
	c.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{c.Server.Client}, DialTimeout: Deadline, Logger: zap.NewNop()})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { client.Close() })
	return client
}

func must[T any](c *Case) func(T, error) T {
	c.Helper()
	return func(value T, err error) T {
		c.Helper()
		if err != nil {
			c.Fatal(err)
		}
		return value
	}
}

func TestClientErrorsAreTheKnownOnes(t *testing.T) {
	OnBoth(t, func(c *Case) {
		client, ctx := openClient(c), c.Context()
		_, err := client.Put(ctx, "", "v")
		expect := func(err, want error) {
			c.Helper()
			if !errors.Is(err, want) {
				c.Errorf("got %v, expected %v", err, want)
			}
		}
		expect(err, rpctypes.ErrEmptyKey)
		_, err = client.Get(ctx, "a", clientv3.WithRev(99))
		expect(err, rpctypes.ErrFutureRev)
		_, err = client.Put(ctx, "a", "v", clientv3.WithLease(9))
		expect(err, rpctypes.ErrLeaseNotFound)
		_, err = client.Revoke(ctx, 9)
		expect(err, rpctypes.ErrLeaseNotFound)
		_, err = client.KeepAliveOnce(ctx, 9)
		expect(err, rpctypes.ErrLeaseNotFound)
		_, err = client.Put(ctx, "a", string(make([]byte, 1600<<10)))
		expect(err, rpctypes.ErrRequestTooLarge)
		c.Put("a", "1")
		must[*clientv3.CompactResponse](c)(client.Compact(ctx, 2))
		_, err = client.Compact(ctx, 2)
		expect(err, rpctypes.ErrCompacted)
	})
}

func TestClientWatchResumesAfterTheServerWasKilled(t *testing.T) {
	OnBoth(t, func(c *Case) {
		client, ctx := openClient(c), c.T.Context()
		events := client.Watch(clientv3.WithRequireLeader(ctx), "k", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		if first := <-events; !first.Created {
			c.Fatalf("%v", first)
		}
		put := func(i int) {
			c.Eventually("put "+strconv.Itoa(i), func() bool {
				short, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				_, err := client.Txn(short).If(clientv3.Compare(clientv3.Version(fmt.Sprint("k", i)), "=", 0)).
					Then(clientv3.OpPut(fmt.Sprint("k", i), "v")).Commit()
				return err == nil
			})
		}
		for i := range 30 {
			if i%10 == 5 {
				c.Server.Kill()
				c.Server.Restart(c)
			}
			put(i)
		}
		next := int64(2)
		for next < 32 {
			select {
			case answer := <-events:
				if err := answer.Err(); err != nil && !errors.Is(err, rpctypes.ErrNoLeader) {
					c.Fatal(err)
				}
				for _, event := range answer.Events {
					if event.Kv.ModRevision != next {
						c.Fatalf("revision %d, expected %d", event.Kv.ModRevision, next)
					}
					next++
				}
			case <-time.After(Deadline):
				c.Fatalf("revision %d did not come", next)
			}
		}
	})
}

func TestClientKeepsALeaseAliveAcrossARestart(t *testing.T) {
	OnBoth(t, func(c *Case) {
		client, ctx := openClient(c), c.T.Context()
		lease := must[*clientv3.LeaseGrantResponse](c)(client.Grant(ctx, 5))
		must[*clientv3.PutResponse](c)(client.Put(ctx, "alive", "1", clientv3.WithLease(lease.ID)))
		answers := must[<-chan *clientv3.LeaseKeepAliveResponse](c)(client.KeepAlive(ctx, lease.ID))
		take := func(step string) {
			select {
			case answer := <-answers:
				if answer == nil || answer.TTL != 5 {
					c.Fatalf("%s: %v", step, answer)
				}
			case <-time.After(Deadline):
				c.Fatalf("%s: not kept alive", step)
			}
		}
		take("before")
		c.Server.Kill()
		c.Server.Restart(c)
		for range 2 {
			take("after")
		}
		c.Reconnect()
		Ask(c, "the key is there", c.KV.Range, &pb.RangeRequest{Key: []byte("alive"), KeysOnly: true})
	})
}

func TestMutexesOfSessionsExcludeEachOther(t *testing.T) {
	OnBoth(t, func(c *Case) {
		var holders, rounds atomic.Int32
		var group sync.WaitGroup
		for range 8 {
			client := openClient(c)
			group.Go(func() {
				session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
				if err != nil {
					c.Error(err)
					return
				}
				defer session.Close()
				mutex := concurrency.NewMutex(session, "/mutex")
				for range 10 {
					if err := mutex.Lock(c.Context()); err != nil {
						c.Error(err)
						return
					}
					if holders.Add(1) != 1 {
						c.Error("two holders")
					}
					rounds.Add(1)
					holders.Add(-1)
					if err := mutex.Unlock(c.Context()); err != nil {
						c.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		if rounds.Load() != 80 {
			c.Errorf("%d rounds", rounds.Load())
		}
		session := must[*concurrency.Session](c)(concurrency.NewSession(openClient(c)))
		held := must[*concurrency.Session](c)(concurrency.NewSession(openClient(c)))
		if err := concurrency.NewMutex(held, "/mutex").TryLock(c.Context()); err != nil {
			c.Error(err)
		}
		if err := concurrency.NewMutex(session, "/mutex").TryLock(c.Context()); err != concurrency.ErrLocked {
			c.Errorf("a held mutex: %v", err)
		}
	})
}

func TestElectionsHaveOneLeaderAtATime(t *testing.T) {
	OnBoth(t, func(c *Case) {
		client, ctx := openClient(c), c.Context()
		observer := concurrency.NewElection(must[*concurrency.Session](c)(concurrency.NewSession(client)), "/post")
		seen := observer.Observe(ctx)
		var candidates []*concurrency.Election
		var sessions []*concurrency.Session
		for range 3 {
			session := must[*concurrency.Session](c)(concurrency.NewSession(openClient(c)))
			sessions = append(sessions, session)
			candidates = append(candidates, concurrency.NewElection(session, "/post"))
		}
		expect := func(value string) {
			c.Helper()
			for answer := range seen {
				if string(answer.Kvs[0].Value) == value {
					return
				}
			}
			c.Fatalf("%s was not seen", value)
		}
		if err := candidates[0].Campaign(ctx, "zero"); err != nil {
			c.Fatal(err)
		}
		expect("zero")
		won := make(chan error, 1)
		go func() { won <- candidates[1].Campaign(ctx, "one") }()
		if err := candidates[0].Proclaim(ctx, "zero again"); err != nil {
			c.Fatal(err)
		}
		expect("zero again")
		if err := candidates[0].Resign(ctx); err != nil {
			c.Fatal(err)
		}
		if err := <-won; err != nil {
			c.Fatal(err)
		}
		expect("one")
		go func() { won <- candidates[2].Campaign(ctx, "two") }()
		sessions[1].Close()
		if err := <-won; err != nil {
			c.Fatal(err)
		}
		expect("two")
		if err := candidates[1].Proclaim(ctx, "late"); err == nil {
			c.Error("a deposed leader proclaimed")
		}
	})
}

func TestSoftwareTransactionsKeepASum(t *testing.T) {
	OnBoth(t, func(c *Case) {
		const accounts, total = 5, 500
		setup := openClient(c)
		for i := range accounts {
			must[*clientv3.PutResponse](c)(setup.Put(c.Context(), fmt.Sprint("account", i), strconv.Itoa(total/accounts)))
		}
		var group sync.WaitGroup
		for worker := range 8 {
			client := openClient(c)
			group.Go(func() {
				for round := range 10 {
					from, to := fmt.Sprint("account", (worker+round)%accounts), fmt.Sprint("account", (worker*3+round*2+1)%accounts)
					_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
						if from == to {
							return nil
						}
						a, _ := strconv.Atoi(stm.Get(from))
						b, _ := strconv.Atoi(stm.Get(to))
						stm.Put(from, strconv.Itoa(a-1))
						stm.Put(to, strconv.Itoa(b+1))
						return nil
					}, concurrency.WithIsolation(concurrency.Serializable))
					if err != nil {
						c.Error(err)
					}
				}
			})
		}
		group.Wait()
		sum := 0
		for _, kv := range must[*clientv3.GetResponse](c)(setup.Get(c.Context(), "account", clientv3.WithPrefix())).Kvs {
			n, _ := strconv.Atoi(string(kv.Value))
			sum += n
		}
		if sum != total {
			c.Errorf("the sum is %d", sum)
		}
	})
}

func TestClientLayersWork(t *testing.T) {
	OnBoth(t, func(c *Case) {
		client, ctx := openClient(c), c.Context()
		inside := namespace.NewKV(client.KV, "ns/")
		must[*clientv3.PutResponse](c)(inside.Put(ctx, "a", "1"))
		must[*clientv3.TxnResponse](c)(inside.Txn(ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "1")).Then(clientv3.OpPut("b", "2")).Commit())
		got := must[*clientv3.GetResponse](c)(inside.Get(ctx, "", clientv3.WithFromKey()))
		if len(got.Kvs) != 2 || string(got.Kvs[1].Key) != "b" {
			c.Errorf("namespace: %v", got.Kvs)
		}
		ordered := ordering.NewKV(client.KV, func(clientv3.Op, clientv3.OpResponse, int64) error { return errors.New("went back") })
		for range 20 {
			must[*clientv3.GetResponse](c)(ordered.Get(ctx, "ns/a", clientv3.WithSerializable()))
		}
		owner, release, err := leasing.NewKV(client, "leases/")
		if err != nil {
			c.Fatal(err)
		}
		defer release()
		must[*clientv3.PutResponse](c)(owner.Put(ctx, "cached", "1"))
		for range 3 {
			if got := must[*clientv3.GetResponse](c)(owner.Get(ctx, "cached")); string(got.Kvs[0].Value) != "1" {
				c.Errorf("leasing: %v", got.Kvs)
			}
		}
		must[*clientv3.DeleteResponse](c)(owner.Delete(ctx, "cached"))
		for i := range 25 {
			c.Put(fmt.Sprintf("m%02d", i), "1")
		}
		syncer := mirror.NewSyncer(client, "m", 0)
		answers, failures := syncer.SyncBase(ctx)
		keys := 0
		for answer := range answers {
			keys += len(answer.Kvs)
		}
		if err := <-failures; err != nil || keys != 25 {
			c.Errorf("mirror: %d keys, %v", keys, err)
		}
	})
}

func TestClientSyncLearnsTheAdvertisedUrls(t *testing.T) {
	OnBoth(t, func(c *Case) {
		client := openClient(c)
		if err := client.Sync(c.Context()); err != nil {
			c.Fatal(err)
		}
		c.Notef("endpoints", "%v", client.Endpoints())
	})
}
