package api

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	electionpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	. "etched.local/compat-tests/harness"
)

const (
	notLeader     = "election: not leader"
	missingLeader = `"leader" field must be provided`
)

func TestElectionIsWonProclaimedAndResigned(t *testing.T) {
	OnBoth(t, func(c *Case) {
		elections := electionpb.NewElectionClient(c.Conn)
		c.Grant(0x2a, 600)
		name := []byte("e")
		Refuse(c, "nobody leads", elections.Leader, &electionpb.LeaderRequest{Name: name}, codes.Unknown, "election: no leader")
		campaign := &electionpb.CampaignRequest{Name: name, Lease: 0x2a, Value: []byte("one")}
		won := Ask(c, "alone", elections.Campaign, campaign)
		Ask(c, "again", elections.Campaign, campaign)
		campaign.Value = []byte("two")
		Ask(c, "again with another value", elections.Campaign, campaign)
		Ask(c, "the leader", elections.Leader, &electionpb.LeaderRequest{Name: name})
		Ask(c, "proclaimed", elections.Proclaim, &electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("three")})
		Ask(c, "the leader's word", elections.Leader, &electionpb.LeaderRequest{Name: name})

		stranger := &electionpb.LeaderKey{Name: name, Key: won.Leader.Key, Rev: won.Leader.Rev + 1, Lease: 0x2a}
		Refuse(c, "another revision", elections.Proclaim, &electionpb.ProclaimRequest{Leader: stranger, Value: []byte("x")}, codes.Unknown, notLeader)
		Ask(c, "another revision resigns", elections.Resign, &electionpb.ResignRequest{Leader: stranger})
		Ask(c, "still the leader", elections.Leader, &electionpb.LeaderRequest{Name: name})

		Ask(c, "resigned", elections.Resign, &electionpb.ResignRequest{Leader: won.Leader})
		Ask(c, "resigned again", elections.Resign, &electionpb.ResignRequest{Leader: won.Leader})
		Refuse(c, "after resigning", elections.Proclaim, &electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("x")}, codes.Unknown, notLeader)
		Refuse(c, "nobody leads any more", elections.Leader, &electionpb.LeaderRequest{Name: name}, codes.Unknown, "election: no leader")
	})
}

func TestElectionRefusesWhatIsIncomplete(t *testing.T) {
	OnBoth(t, func(c *Case) {
		elections := electionpb.NewElectionClient(c.Conn)
		c.Grant(7, 600)
		Refuse(c, "proclaim without a leader", elections.Proclaim, &electionpb.ProclaimRequest{}, codes.Unknown, missingLeader)
		Refuse(c, "resign without a leader", elections.Resign, &electionpb.ResignRequest{}, codes.Unknown, missingLeader)
		Refuse(c, "a lease that is not there", elections.Campaign, &electionpb.CampaignRequest{Name: []byte("e"), Lease: 9}, codes.Unknown,
			"etcdserver: requested lease not found")
		Refuse(c, "proclaim without a key", elections.Proclaim, &electionpb.ProclaimRequest{Leader: &electionpb.LeaderKey{Lease: 7}}, codes.Unknown,
			"etcdserver: key is not provided")
		Refuse(c, "resign without a key", elections.Resign, &electionpb.ResignRequest{Leader: &electionpb.LeaderKey{Lease: 7}}, codes.Unknown,
			"etcdserver: key is not provided")
		Ask(c, "without name and value", elections.Campaign, &electionpb.CampaignRequest{Lease: 7})
		c.Everything("keys")
	})
}

func TestElectionPassesOnInTheOrderOfCampaigns(t *testing.T) {
	OnBoth(t, func(c *Case) {
		elections := electionpb.NewElectionClient(c.Conn)
		var calls []<-chan outcome[*electionpb.CampaignResponse]
		for lease := int64(1); lease <= 3; lease++ {
			c.Grant(lease, 600)
			call, _ := begin(c, elections.Campaign, &electionpb.CampaignRequest{Name: []byte("e"), Lease: lease, Value: []byte{byte('0' + lease)}})
			calls = append(calls, call)
			keysUnder(c, "e/", lease)
		}
		next := func(at int) *electionpb.CampaignResponse {
			c.Helper()
			won := <-calls[at]
			if won.err != nil {
				c.Fatal(won.err)
			}
			return won.answer
		}
		first := next(0)
		c.Record("the first", first)
		Ask(c, "the first resigns", elections.Resign, &electionpb.ResignRequest{Leader: first.Leader})
		c.Record("the second", next(1))
		revoke(c, 2)
		c.Record("the third", next(2))
	})
}

// etcd tells this candidate that it leads, while a later one may be told the same.
func TestElectionIsNotWonWithoutItsLease(t *testing.T) {
	OnBoth(t, func(c *Case) {
		elections := electionpb.NewElectionClient(c.Conn)
		c.Grant(1, 600)
		c.Grant(2, 600)
		Ask(c, "the first", elections.Campaign, &electionpb.CampaignRequest{Name: []byte("e"), Lease: 1})
		second, _ := begin(c, elections.Campaign, &electionpb.CampaignRequest{Name: []byte("e"), Lease: 2})
		keysUnder(c, "e/", 2)
		revoke(c, 2)
		if c.Server.Real() {
			// Its turn would have come; etcd does not look whether its key is still there.
			revoke(c, 1)
			if err := (<-second).err; err != nil {
				c.Fatalf("etcd refuses now: %v", err)
			}
			return
		}
		if s := status.Convert((<-second).err); s.Code() != codes.Unknown || s.Message() != notLeader {
			c.Errorf("a candidate without its lease got %v", s)
		}
	})
}

func TestElectionIsObservedFromTheCurrentLeaderOn(t *testing.T) {
	OnBoth(t, func(c *Case) {
		elections := electionpb.NewElectionClient(c.Conn)
		observe := func(name string) func(step string) {
			stream, err := elections.Observe(c.Context(), &electionpb.LeaderRequest{Name: []byte(name)})
			if err != nil {
				c.Fatal(err)
			}
			return func(step string) {
				c.Helper()
				answer, err := stream.Recv()
				if err != nil {
					c.Fatalf("%s: %v", step, err)
				}
				c.Record(step, answer)
			}
		}
		c.Grant(1, 600)
		c.Grant(2, 600)
		won := Ask(c, "won", elections.Campaign, &electionpb.CampaignRequest{Name: []byte("e"), Lease: 1, Value: []byte("one")})
		next := observe("e")
		next("at once")
		Ask(c, "proclaim", elections.Proclaim, &electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("two")})
		next("a new word")
		second, _ := begin(c, elections.Campaign, &electionpb.CampaignRequest{Name: []byte("e"), Lease: 2, Value: []byte("three")})
		keysUnder(c, "e/", 2)
		Ask(c, "resign", elections.Resign, &electionpb.ResignRequest{Leader: won.Leader})
		if lead := <-second; lead.err != nil {
			c.Fatal(lead.err)
		}
		next("a new leader")
		revoke(c, 2)
		Ask(c, "a third", elections.Campaign, &electionpb.CampaignRequest{Name: []byte("e"), Lease: 1, Value: []byte("four")})
		next("after nobody")
		if _, err := c.KV.Put(c.Context(), &pb.PutRequest{Key: []byte("e"), Value: []byte("no part of it")}); err != nil {
			c.Fatal(err)
		}
	})
}
