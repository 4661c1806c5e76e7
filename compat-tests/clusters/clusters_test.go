// Package clusters has several members in one cluster, etcd's and etched's in every mixture: what is written at one is
// read at each, members come and go, and the hash of all keys is the same everywhere. What they say to each other at
// /raft and beside it has to be etcd's for that.
package clusters

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	. "etched.local/compat-tests/harness"
)

var mixtures = [][]Kind{
	{Etched, Etched, Etched},
	{Etcd, Etcd, Etched},
	{Etched, Etched, Etcd},
}

func each(t *testing.T, body func(t *testing.T, kinds []Kind)) {
	for _, kinds := range mixtures {
		t.Run(strings.Trim(fmt.Sprint(kinds), "[]"), func(t *testing.T) {
			t.Parallel()
			body(t, kinds)
		})
	}
}

func client(t *testing.T, s *Server) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Client}, DialTimeout: Deadline, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// put writes, and tries again while the cluster has no leader.
func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	Within(t, 20*time.Second, "put of "+key, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := c.Put(ctx, key, value)
		return err == nil
	})
}

func get(t *testing.T, c *clientv3.Client, key, want string) {
	t.Helper()
	answer, err := c.Get(soon(t), key)
	if err != nil {
		t.Fatalf("get of %s: %v", key, err)
	}
	if len(answer.Kvs) != 1 || string(answer.Kvs[0].Value) != want {
		t.Fatalf("get of %s: %v, want %s", key, answer.Kvs, want)
	}
}

// sameHash waits until all members have the same keys and history.
func sameHash(t *testing.T, members []*Server) {
	t.Helper()
	var seen []string
	Within(t, 20*time.Second, "equal hashes", func() bool {
		seen = nil
		for _, s := range members {
			c := client(t, s)
			hash, err := c.HashKV(soon(t), s.URL(), 0)
			if err != nil {
				return false
			}
			seen = append(seen, fmt.Sprint(hash.Hash, " at ", hash.HashRevision, " from ", hash.CompactRevision))
		}
		for _, one := range seen {
			if one != seen[0] {
				return false
			}
		}
		return true
	})
}

func leader(t *testing.T, members []*Server) *Server {
	t.Helper()
	var found *Server
	Within(t, 20*time.Second, "a leader", func() bool {
		for _, s := range members {
			status, err := client(t, s).Status(soon(t), s.URL())
			if err == nil && status.Leader == status.Header.MemberId {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

func id(t *testing.T, s *Server) uint64 {
	t.Helper()
	status, err := client(t, s).Status(soon(t), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	return status.Header.MemberId
}

func TestWhatIsWrittenAtOneMemberIsReadAtEach(t *testing.T) {
	each(t, func(t *testing.T, kinds []Kind) {
		// All of it goes over /raft of the peer ports.
		members := StartCluster(t, kinds).Members
		for number, s := range members {
			put(t, client(t, s), fmt.Sprint("k", number), fmt.Sprint("v", number))
		}
		for _, s := range members {
			for number := range members {
				get(t, client(t, s), fmt.Sprint("k", number), fmt.Sprint("v", number))
			}
		}
		var lists []string
		for _, s := range members {
			list, err := client(t, s).MemberList(soon(t))
			if err != nil || len(list.Members) != len(members) {
				t.Fatal(list, err)
			}
			lists = append(lists, fmt.Sprint(list.Members))
		}
		for _, list := range lists {
			if list != lists[0] {
				t.Fatalf("members differ: %v", lists)
			}
		}
		sameHash(t, members)
	})
}

func TestWritesGoOnWhenTheLeaderIsKilledAndItCatchesUp(t *testing.T) {
	each(t, func(t *testing.T, kinds []Kind) {
		members := StartCluster(t, kinds).Members
		put(t, client(t, members[0]), "before", "1")
		for round := range members {
			gone := leader(t, members)
			gone.Kill()
			var others []*Server
			for _, s := range members {
				if s != gone {
					others = append(others, s)
				}
			}
			put(t, client(t, others[round%2]), fmt.Sprint("during", round), "2")
			get(t, client(t, others[(round+1)%2]), "before", "1")
			gone.Restart(t)
			get(t, client(t, gone), fmt.Sprint("during", round), "2")
			sameHash(t, members)
		}
	})
}

func TestLeadershipMovesToWhoeverIsAsked(t *testing.T) {
	each(t, func(t *testing.T, kinds []Kind) {
		members := StartCluster(t, kinds).Members
		for _, s := range members {
			from, to := leader(t, members), id(t, s)
			if _, err := client(t, from).MoveLeader(soon(t), to); err != nil {
				t.Fatal(err)
			}
			if now := leader(t, members); now != s {
				t.Fatalf("%x was asked to lead, but %x does", to, id(t, now))
			}
			put(t, client(t, from), "k", s.URL())
			_, err := client(t, from).MoveLeader(soon(t), to)
			if from != s && (err == nil || !strings.Contains(err.Error(), "not leader")) {
				t.Fatalf("a follower moved the leader: %v", err)
			}
		}
		last := leader(t, members)
		last.Stop(t)
		var others []*Server
		for _, s := range members {
			if s != last {
				others = append(others, s)
			}
		}
		put(t, client(t, others[0]), "after", "1")
	})
}

func TestLeasesAreKeptAliveByWayOfAnyMember(t *testing.T) {
	each(t, func(t *testing.T, kinds []Kind) {
		members := StartCluster(t, kinds).Members
		for number, s := range members {
			c := client(t, s)
			lease, err := c.Grant(soon(t), 60)
			if err != nil {
				t.Fatal(err)
			}
			key := fmt.Sprint("leased", number)
			if _, err := c.Put(soon(t), key, "v", clientv3.WithLease(lease.ID)); err != nil {
				t.Fatal(err)
			}
			for _, other := range members {
				alive, err := client(t, other).KeepAliveOnce(soon(t), lease.ID)
				if err != nil || alive.TTL != 60 {
					t.Fatal(alive, err)
				}
				left, err := client(t, other).TimeToLive(soon(t), lease.ID, clientv3.WithAttachedKeys())
				if err != nil || left.GrantedTTL != 60 || left.TTL < 50 || len(left.Keys) != 1 {
					t.Fatal(left, err)
				}
			}
		}
		none, err := client(t, members[0]).TimeToLive(soon(t), 12345)
		if err != nil || none.TTL != -1 {
			t.Fatal(none, err)
		}
		short, err := client(t, members[1]).Grant(soon(t), 2)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client(t, members[2]).Put(soon(t), "short", "v", clientv3.WithLease(short.ID)); err != nil {
			t.Fatal(err)
		}
		Within(t, 20*time.Second, "the end of a lease", func() bool {
			answer, err := client(t, members[0]).Get(soon(t), "short")
			return err == nil && len(answer.Kvs) == 0
		})
		sameHash(t, members)
	})
}

func TestMembersComeAndGo(t *testing.T) {
	each(t, func(t *testing.T, kinds []Kind) {
		cluster := StartCluster(t, kinds[:1])
		first := cluster.Members[0]
		c := client(t, first)
		for number := range 50 {
			put(t, c, fmt.Sprint("k", number), "v")
		}
		second := cluster.Prepare(t, kinds[1])
		if _, err := c.MemberAdd(soon(t), []string{second.PeerURL()}); err != nil {
			t.Fatal(err)
		}
		cluster.Join(t, second)
		get(t, client(t, second), "k49", "v")
		third := cluster.Prepare(t, kinds[2])
		var added *clientv3.MemberAddResponse
		Within(t, 20*time.Second, "five seconds in which all were connected", func() bool {
			var err error
			added, err = client(t, second).MemberAddAsLearner(soon(t), []string{third.PeerURL()})
			return err == nil
		})
		cluster.Join(t, third)
		learner := client(t, third)
		if _, err := learner.Put(soon(t), "a", "b"); err == nil || !strings.Contains(err.Error(), "not supported for learner") {
			t.Fatalf("a learner took a write: %v", err)
		}
		Within(t, 20*time.Second, "a read at the learner", func() bool {
			answer, err := learner.Get(soon(t), "k7", clientv3.WithSerializable())
			return err == nil && len(answer.Kvs) == 1
		})
		Within(t, 20*time.Second, "a promotion by way of any member", func() bool {
			_, err := client(t, second).MemberPromote(soon(t), added.Member.ID)
			return err == nil
		})
		_, err := c.MemberPromote(soon(t), added.Member.ID)
		if err == nil || !strings.Contains(err.Error(), "can only promote a learner member") {
			t.Fatalf("a voter was promoted: %v", err)
		}
		put(t, learner, "a", "b")
		sameHash(t, cluster.Members)
		gone := id(t, second)
		Within(t, 20*time.Second, "a removal", func() bool {
			_, err := c.MemberRemove(soon(t), gone)
			return err == nil
		})
		Within(t, 20*time.Second, "the end of the removed member", func() bool { return !second.Alive() })
		put(t, learner, "after", "1")
		list, err := c.MemberList(soon(t))
		if err != nil || len(list.Members) != 2 {
			t.Fatal(list, err)
		}
		sameHash(t, []*Server{first, third})
	})
}

func TestMembersTalkOverTLS(t *testing.T) {
	each(t, func(t *testing.T, kinds []Kind) {
		members := StartCluster(t, kinds, "--peer-auto-tls").Members
		for number, s := range members {
			put(t, client(t, s), fmt.Sprint("k", number), "v")
		}
		// Asked of the leader at its peer URL.
		for _, s := range members {
			lease, err := client(t, s).Grant(soon(t), 60)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client(t, s).KeepAliveOnce(soon(t), lease.ID); err != nil {
				t.Fatal(err)
			}
		}
		sameHash(t, members)
	})
}

func TestAClusterOfEtcdBecomesOneOfEtchedMemberByMember(t *testing.T) {
	t.Parallel()
	if Binary(string(Etched)) == Binary(string(Etcd)) {
		return // on two oracles there is nothing to take over
	}
	members := StartCluster(t, []Kind{Etcd, Etcd, Etcd}).Members
	for number := range 100 {
		put(t, client(t, members[number%3]), fmt.Sprint("k", number), "v")
	}
	for round, s := range members {
		s.Stop(t)
		put(t, client(t, members[(round+1)%3]), fmt.Sprint("without", round), "v")
		s.Kind = Etched
		s.Restart(t)
		get(t, client(t, s), fmt.Sprint("without", round), "v")
		put(t, client(t, s), fmt.Sprint("with", round), "v")
		sameHash(t, members)
	}
	for number := range 100 {
		get(t, client(t, members[number%3]), fmt.Sprint("k", number), "v")
	}
}

func TestALoneMemberRefusesTheSameChanges(t *testing.T) {
	OnBoth(t, func(c *Case) {
		members := c.Cluster
		for _, urls := range [][]string{{}, {""}, {"http://a"}, {"ftp://a:1"}, {"http://a:1/x"}, {"a:1"}} {
			_, err := members.MemberAdd(c.Context(), &pb.MemberAddRequest{PeerURLs: urls})
			c.RecordError(fmt.Sprint("add ", urls), err)
		}
		_, err := members.MemberRemove(c.Context(), &pb.MemberRemoveRequest{ID: 5})
		c.RecordError("remove of nobody", err)
		_, err = members.MemberPromote(c.Context(), &pb.MemberPromoteRequest{ID: 5})
		c.RecordError("promotion of nobody", err)
		_, err = members.MemberUpdate(c.Context(), &pb.MemberUpdateRequest{ID: 5, PeerURLs: []string{"http://a:1"}})
		c.RecordError("update of nobody", err)
		learner := &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:9"}, IsLearner: true}
		added, err := members.MemberAdd(c.Context(), learner)
		if err != nil {
			c.Fatal(err)
		}
		c.Mask(added.Member.ID, "learner")
		c.Record("a learner is added", added)
		_, err = members.MemberAdd(c.Context(), learner)
		c.RecordError("the same again", err)
		learner.PeerURLs = []string{"http://127.0.0.1:10"}
		_, err = members.MemberAdd(c.Context(), learner)
		c.RecordError("one more", err)
		_, err = members.MemberPromote(c.Context(), &pb.MemberPromoteRequest{ID: added.Member.ID})
		c.RecordError("promotion of one that is not there", err)
		update := &pb.MemberUpdateRequest{ID: added.Member.ID, PeerURLs: []string{"http://127.0.0.1:11"}}
		Ask(c, "update", members.MemberUpdate, update)
		Ask(c, "removal", members.MemberRemove, &pb.MemberRemoveRequest{ID: added.Member.ID})
		_, err = members.MemberRemove(c.Context(), &pb.MemberRemoveRequest{ID: added.Member.ID})
		c.RecordError("removal of one that is gone", err)
		list, err := members.MemberList(c.Context(), &pb.MemberListRequest{Linearizable: true})
		if err != nil || len(list.Members) != 1 {
			c.Fatal(list, err)
		}
		_, err = members.MemberRemove(c.Context(), &pb.MemberRemoveRequest{ID: list.Members[0].ID})
		c.RecordError("removal of the last", err)
	}, "--strict-reconfig-check", "--max-learners=1")
}
