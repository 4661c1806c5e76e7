package api

import (
	"io"
	"math"
	"sort"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	. "etched.local/compat-tests/harness"
)

const (
	leaseExists = "etcdserver: lease already exists"
	ttlTooLarge = "etcdserver: too large lease TTL"
)

func leasedPut(c *Case, key string, lease int64) {
	c.Helper()
	if _, err := c.KV.Put(c.Context(), &pb.PutRequest{Key: []byte(key), Value: []byte("x"), Lease: lease}); err != nil {
		c.Fatal(err)
	}
}

// timeToLive asks and records with the keys in order (etcd's have none) and the seconds left
// checked against a window instead of recorded.
func timeToLive(c *Case, step string, id, atLeast, atMost int64) {
	c.Helper()
	answer, err := c.Lease.LeaseTimeToLive(c.Context(), &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
	if err != nil {
		c.Fatal(err)
	}
	if answer.TTL < atLeast || answer.TTL > atMost {
		c.Errorf("%s: TTL %d is not in %d..%d", step, answer.TTL, atLeast, atMost)
	}
	answer = proto.Clone(answer).(*pb.LeaseTimeToLiveResponse)
	answer.TTL = 0
	sort.Slice(answer.Keys, func(i, j int) bool { return string(answer.Keys[i]) < string(answer.Keys[j]) })
	c.Record(step, answer)
}

func TestLeaseGrantTakesOwnAndGivenIds(t *testing.T) {
	OnBoth(t, func(c *Case) {
		grant := c.Lease.LeaseGrant
		for _, id := range []int64{1, -1, 4711, math.MaxInt64, math.MinInt64} {
			Ask(c, "given id", grant, &pb.LeaseGrantRequest{ID: id, TTL: 60})
			Refuse(c, "the same again", grant, &pb.LeaseGrantRequest{ID: id, TTL: 5}, codes.FailedPrecondition, leaseExists)
		}
		for range 3 {
			answer, err := grant(c.Context(), &pb.LeaseGrantRequest{TTL: 100})
			if err != nil || answer.ID <= 0 {
				c.Fatalf("%v %v", answer, err)
			}
			c.Mask(answer.ID, "chosen")
			c.Record("chosen id", answer)
		}
		for _, ttl := range []int64{0, 1, 2, 3, -1, -100, 9_000_000_000} {
			answer := Ask(c, "smallest and largest TTL", grant, &pb.LeaseGrantRequest{ID: 5000 + ttl, TTL: ttl})
			if want := max(ttl, 2); answer.TTL != want {
				c.Errorf("TTL %d granted as %d", ttl, answer.TTL)
			}
		}
		for _, ttl := range []int64{9_000_000_001, math.MaxInt64} {
			Refuse(c, "too large", grant, &pb.LeaseGrantRequest{TTL: ttl}, codes.OutOfRange, ttlTooLarge)
			Refuse(c, "too large for a given id", grant, &pb.LeaseGrantRequest{ID: 9, TTL: ttl}, codes.OutOfRange, ttlTooLarge)
		}
		Refuse(c, "too large for an id in use", grant, &pb.LeaseGrantRequest{ID: 1, TTL: math.MaxInt64}, codes.OutOfRange, ttlTooLarge)
	})
}

func TestLeaseRevokeDeletesAllItsKeysInOneRevision(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Grant(7, 600)
		c.Grant(8, 600)
		for _, key := range []string{"m", "b", "z", "a", "q"} {
			leasedPut(c, key, 7)
		}
		c.Put("q", "detached by a put without lease")
		leasedPut(c, "z", 8)
		c.Delete("m")
		c.Put("free", "1")
		s := c.OpenWatch()
		s.Create("watch", watchAll())
		timeToLive(c, "keys of 7", 7, 598, 600)
		timeToLive(c, "keys of 8", 8, 598, 600)
		Ask(c, "revoke", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 7})
		if got := Describe(s.Next("events in byte order").Events); got != "D:a= D:b=" {
			c.Errorf("events: %s", got)
		}
		Refuse(c, "revoke again", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 7}, codes.NotFound, leaseNotFound)
		Refuse(c, "revoke 0", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{}, codes.NotFound, leaseNotFound)
		c.Delete("z")
		s.Next("delete")
		Ask(c, "revoke without keys keeps the revision", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 8})
		c.Everything("end")
		Ask(c, "the id is free again", c.Lease.LeaseGrant, &pb.LeaseGrantRequest{ID: 7, TTL: 60})
	})
}

func TestLeaseTimeToLiveOfAnUnknownLeaseIsMinusOne(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, id := range []int64{0, 99, -99} {
			if answer := Ask(c, "unknown", c.Lease.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true}); answer.TTL != -1 {
				c.Errorf("%v", answer)
			}
		}
		c.Grant(5, 60)
		timeToLive(c, "rounded down, no keys", 5, 58, 59)
		leasedPut(c, "b", 5)
		leasedPut(c, "a", 5)
		timeToLive(c, "with keys", 5, 57, 59)
		answer, err := c.Lease.LeaseTimeToLive(c.Context(), &pb.LeaseTimeToLiveRequest{ID: 5})
		if err != nil || len(answer.Keys) != 0 {
			c.Errorf("keys were not asked for: %v %v", answer, err)
		}
	})
}

func TestLeaseListIsOrderedByExpiry(t *testing.T) {
	OnBoth(t, func(c *Case) {
		Ask(c, "none", c.Lease.LeaseLeases, &pb.LeaseLeasesRequest{})
		for id, ttl := range map[int64]int64{1: 500, 2: 100, 3: 900, 4: 300, -5: 200} {
			c.Grant(id, ttl)
		}
		Ask(c, "by expiry", c.Lease.LeaseLeases, &pb.LeaseLeasesRequest{})
		if _, err := c.Lease.LeaseRevoke(c.Context(), &pb.LeaseRevokeRequest{ID: 4}); err != nil {
			c.Fatal(err)
		}
		Ask(c, "after a revoke", c.Lease.LeaseLeases, &pb.LeaseLeasesRequest{})
	})
}

func TestLeaseKeepAliveAnswersEachRequestOfTheStream(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Grant(5, 60)
		stream, err := c.Lease.LeaseKeepAlive(c.Context())
		if err != nil {
			c.Fatal(err)
		}
		for _, r := range []struct {
			name    string
			id, ttl int64
		}{{"renewed", 5, 60}, {"unknown", 99, 0}, {"renewed after an unknown one", 5, 60}, {"zero", 0, 0}} {
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: r.id}); err != nil {
				c.Fatal(err)
			}
			answer, err := stream.Recv()
			if err != nil || answer.TTL != r.ttl || answer.ID != r.id {
				c.Fatalf("%s: %v %v", r.name, answer, err)
			}
			c.Record(r.name, answer)
		}
		for range 3 {
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: 5}); err != nil {
				c.Fatal(err)
			}
		}
		for range 3 {
			answer, err := stream.Recv()
			if err != nil {
				c.Fatal(err)
			}
			c.Record("pipelined", answer)
		}
		if err := stream.CloseSend(); err != nil {
			c.Fatal(err)
		}
		if _, err := stream.Recv(); err != io.EOF {
			c.Errorf("half-close ended with %v", err)
		}
	})
}

func TestLeaseExpiryDeletesItsKeysInOneRevision(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Grant(5, 2)
		c.Grant(6, 600)
		for _, key := range []string{"c", "a", "b"} {
			leasedPut(c, key, 5)
		}
		leasedPut(c, "stays", 6)
		s := c.OpenWatch()
		r := watchAll()
		r.PrevKv = true
		s.Create("watch", r)
		began := time.Now()
		if got := Describe(s.Next("expiry").Events); got != "D:a= D:b= D:c=" {
			c.Errorf("events: %s", got)
		}
		if took := time.Since(began); took < time.Second || took > 6*time.Second {
			c.Errorf("a lease of 2 s expired after %v", took)
		}
		c.Everything("after")
		Ask(c, "gone", c.Lease.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: 5})
		Refuse(c, "no more", c.KV.Put, &pb.PutRequest{Key: []byte("a"), Lease: 5}, codes.NotFound, leaseNotFound)
	})
}

func TestLeaseKeptAliveDoesNotExpire(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Grant(5, 2)
		c.Grant(6, 2)
		leasedPut(c, "kept", 5)
		leasedPut(c, "dropped", 6)
		stream, err := c.Lease.LeaseKeepAlive(c.T.Context())
		if err != nil {
			c.Fatal(err)
		}
		s := c.OpenWatch()
		s.Create("watch", watchAll())
		dropped := make(chan struct{})
		go func() {
			ticker := time.NewTicker(300 * time.Millisecond)
			defer ticker.Stop()
			for {
				select {
				case <-dropped:
					return
				case <-ticker.C:
					if stream.Send(&pb.LeaseKeepAliveRequest{ID: 5}) != nil {
						return
					}
				}
			}
		}()
		if got := Describe(s.Next("the other one expires").Events); got != "D:dropped=" {
			c.Errorf("events: %s", got)
		}
		c.Everything("the kept one is there")
		close(dropped)
		if got := Describe(s.Next("until it is kept no more").Events); got != "D:kept=" {
			c.Errorf("events: %s", got)
		}
	})
}

func TestLeasesOutliveARestartWithTheirFullTTL(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Grant(5, 100)
		c.Grant(6, 200)
		c.Grant(7, 300)
		leasedPut(c, "a", 5)
		leasedPut(c, "b", 5)
		leasedPut(c, "b", 6)
		leasedPut(c, "gone", 7)
		if _, err := c.Lease.LeaseRevoke(c.Context(), &pb.LeaseRevokeRequest{ID: 7}); err != nil {
			c.Fatal(err)
		}
		c.Server.Kill()
		c.Server.Restart(c)
		c.Reconnect()
		timeToLive(c, "5", 5, 97, 101)
		timeToLive(c, "6", 6, 197, 201)
		Ask(c, "7 stays revoked", c.Lease.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: 7})
		Ask(c, "list", c.Lease.LeaseLeases, &pb.LeaseLeasesRequest{})
		Ask(c, "revoke works", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 5})
		c.Everything("end")
	})
}

func TestLeaseMinimumFollowsTheElectionTimeout(t *testing.T) {
	OnBoth(t, func(c *Case) {
		answer := Ask(c, "raised", c.Lease.LeaseGrant, &pb.LeaseGrantRequest{ID: 1, TTL: 1})
		if answer.TTL != 5 {
			c.Errorf("1.5 x 3 s rounded up is 5, granted %d", answer.TTL)
		}
	}, "--election-timeout", "3000", "--heartbeat-interval", "100")
}
