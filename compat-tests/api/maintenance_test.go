package api

import (
	"sort"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	. "etched.local/compat-tests/harness"
)

const corrupt = "etcdserver: corrupt cluster"

func TestIdsTermAndMembersOfAFreshServerAreComputedAsEtcdDoes(t *testing.T) {
	OnBoth(t, func(c *Case) {
		answer := Ask(c, "header", c.KV.Range, &pb.RangeRequest{Key: []byte("a")})
		c.Notef("raft term of a first start", "%d", answer.Header.RaftTerm)
		Ask(c, "members", c.Cluster.MemberList, &pb.MemberListRequest{Linearizable: true})
		local := Ask(c, "members, local", c.Cluster.MemberList, &pb.MemberListRequest{})
		if local.Header.Revision != 0 {
			c.Errorf("the cluster service shows revision %d", local.Header.Revision)
		}
		c.Server.Kill()
		c.Server.Restart(c)
		c.Reconnect()
		again := Ask(c, "header after kill -9", c.KV.Range, &pb.RangeRequest{Key: []byte("a")})
		if again.Header.MemberId != answer.Header.MemberId || again.Header.ClusterId != answer.Header.ClusterId {
			c.Error("other ids after a restart")
		}
		c.Notef("raft term of a second start", "%d", again.Header.RaftTerm)
		Ask(c, "members again", c.Cluster.MemberList, &pb.MemberListRequest{Linearizable: true})
	})
}

func TestClusterTokenAndNameGiveOtherClusterIds(t *testing.T) {
	OnBoth(t, func(c *Case) {
		Ask(c, "members", c.Cluster.MemberList, &pb.MemberListRequest{})
	}, "--initial-cluster-token", "another", "--name", "named", "--initial-cluster", "named="+AdvertisedPeer)
}

// settled waits for the cluster and storage version, the last a fresh server writes by itself.
func settled(c *Case) {
	c.Helper()
	c.Eventually("storage version and four entries", func() bool {
		s, err := c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
		return err == nil && s.StorageVersion == "3.7.0" && s.RaftAppliedIndex >= 4
	})
}

func TestStatusShowsEveryField(t *testing.T) {
	OnBoth(t, func(c *Case) {
		status := func(step string) *pb.StatusResponse {
			c.Helper()
			return Ask(c, step, c.Maintenance.Status, &pb.StatusRequest{})
		}
		settled(c)
		fresh := status("fresh")
		if fresh.Version != "3.7.1" || fresh.DbSize <= 0 || fresh.DbSizeInUse <= 0 || fresh.Leader == 0 {
			c.Errorf("%v", fresh)
		}
		for _, key := range []string{"a", "b"} {
			c.Put(key, "1")
		}
		after := status("after two puts")
		if after.RaftIndex != fresh.RaftIndex+2 || after.RaftAppliedIndex != after.RaftIndex {
			c.Errorf("index %d, applied %d after two puts at %d", after.RaftIndex, after.RaftAppliedIndex, fresh.RaftIndex)
		}
		Ask(c, "defragment has no header", c.Maintenance.Defragment, &pb.DefragmentRequest{})
		status("after defragment")
		c.Everything("all there")
	})
}

func TestStatusShowsTheQuotaInForce(t *testing.T) {
	OnBoth(t, func(c *Case) {
		settled(c)
		if s := Ask(c, "status", c.Maintenance.Status, &pb.StatusRequest{}); s.DbSizeQuota != 123456789 {
			c.Errorf("quota %d", s.DbSizeQuota)
		}
	}, "--quota-backend-bytes", "123456789")
}

func TestAlarmsAreRaisedListedAndCleared(t *testing.T) {
	OnBoth(t, func(c *Case) {
		status, err := c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
		if err != nil {
			c.Fatal(err)
		}
		me := status.Header.MemberId
		alarm := func(step string, action pb.AlarmRequest_AlarmAction, member uint64, kind pb.AlarmType) *pb.AlarmResponse {
			c.Helper()
			answer, err := c.Maintenance.Alarm(c.Context(), &pb.AlarmRequest{Action: action, MemberID: member, Alarm: kind})
			if err != nil {
				c.Fatalf("%s: %v", step, err)
			}
			// etcd lists them in the order of a map
			sort.Slice(answer.Alarms, func(i, j int) bool { return answer.Alarms[i].MemberID < answer.Alarms[j].MemberID })
			c.Record(step, answer)
			return answer
		}
		get, raise, clear := pb.AlarmRequest_GET, pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE
		alarm("none", get, 0, pb.AlarmType_NONE)
		alarm("raise NONE", raise, me, pb.AlarmType_NONE)
		alarm("raise NOSPACE", raise, me, pb.AlarmType_NOSPACE)
		alarm("again", raise, me, pb.AlarmType_NOSPACE)
		alarm("for another member", raise, 42, pb.AlarmType_NOSPACE)
		alarm("list", get, 0, pb.AlarmType_NONE)
		alarm("list NOSPACE", get, 0, pb.AlarmType_NOSPACE)
		alarm("list CORRUPT", get, 0, pb.AlarmType_CORRUPT)
		settled(c)
		status, err = c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
		if err != nil {
			c.Fatal(err)
		}
		sort.Strings(status.Errors) // as above
		c.Record("status", status)
		alarm("clear with member 0", clear, 0, pb.AlarmType_NOSPACE)
		alarm("clear the wrong type", clear, me, pb.AlarmType_CORRUPT)
		alarm("clear NONE", clear, me, pb.AlarmType_NONE)
		alarm("still there", get, 0, pb.AlarmType_NONE)
		c.Server.Kill()
		c.Server.Restart(c)
		c.Reconnect()
		alarm("after a restart", get, 0, pb.AlarmType_NONE)
		alarm("clear mine", clear, me, pb.AlarmType_NOSPACE)
		alarm("clear again", clear, me, pb.AlarmType_NOSPACE)
		alarm("clear the other", clear, 42, pb.AlarmType_NOSPACE)
		settled(c)
		alarm("none left", get, 0, pb.AlarmType_NONE)
		Ask(c, "status without alarm", c.Maintenance.Status, &pb.StatusRequest{})
		alarm("unknown type raised", raise, me, 9)
		alarm("unknown type listed", get, 0, pb.AlarmType_NONE)
		alarm("unknown type cleared", clear, me, 9)
		if !c.Server.Real() { // real etcd crashes on it
			if _, err := c.Maintenance.Alarm(c.Context(), &pb.AlarmRequest{Action: 9}); err == nil {
				c.Error("an unknown action was accepted")
			}
		}
		alarm("still serves", get, 0, pb.AlarmType_NONE)
	})
}

func TestNoSpaceAlarmRefusesWhatGrowsTheStore(t *testing.T) {
	const noSpace = "etcdserver: mvcc: database space exceeded"
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		c.Put("b", "1")
		c.Grant(5, 600)
		raised(c, pb.AlarmType_NOSPACE)
		Refuse(c, "put", c.KV.Put, &pb.PutRequest{Key: []byte("a")}, codes.ResourceExhausted, noSpace)
		Refuse(c, "txn with a put", c.KV.Txn, then(put("a", "1")), codes.ResourceExhausted, noSpace)
		Refuse(c, "txn with a put in the other branch", c.KV.Txn, &pb.TxnRequest{Failure: []*pb.RequestOp{put("a", "1")}}, codes.ResourceExhausted, noSpace)
		Refuse(c, "txn with a nested put", c.KV.Txn, then(nested(then(put("a", "1")))), codes.ResourceExhausted, noSpace)
		Refuse(c, "grant", c.Lease.LeaseGrant, &pb.LeaseGrantRequest{ID: 6, TTL: 60}, codes.ResourceExhausted, noSpace)
		Ask(c, "delete", c.KV.DeleteRange, &pb.DeleteRangeRequest{Key: []byte("a")})
		Ask(c, "txn with a delete", c.KV.Txn, then(get("b"), del("b", "")))
		Ask(c, "range", c.KV.Range, all())
		Ask(c, "revoke", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 5})
		Ask(c, "compact", c.KV.Compact, &pb.CompactionRequest{Revision: 3})
		Ask(c, "defragment", c.Maintenance.Defragment, &pb.DefragmentRequest{})
		Refuse(c, "it does not clear by itself", c.KV.Put, &pb.PutRequest{Key: []byte("a")}, codes.ResourceExhausted, noSpace)
		cleared(c, pb.AlarmType_NOSPACE)
		Ask(c, "put again", c.KV.Put, &pb.PutRequest{Key: []byte("a")})
	})
}

func TestCorruptAlarmRefusesEveryWrite(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		c.Grant(5, 600)
		settled(c)
		raised(c, pb.AlarmType_CORRUPT)
		Refuse(c, "put", c.KV.Put, &pb.PutRequest{Key: []byte("a")}, codes.DataLoss, corrupt)
		Refuse(c, "delete", c.KV.DeleteRange, &pb.DeleteRangeRequest{Key: []byte("a")}, codes.DataLoss, corrupt)
		Refuse(c, "write txn", c.KV.Txn, then(put("a", "1")), codes.DataLoss, corrupt)
		Refuse(c, "compact", c.KV.Compact, &pb.CompactionRequest{Revision: 2}, codes.DataLoss, corrupt)
		Refuse(c, "grant", c.Lease.LeaseGrant, &pb.LeaseGrantRequest{ID: 6, TTL: 60}, codes.DataLoss, corrupt)
		Refuse(c, "revoke", c.Lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 5}, codes.DataLoss, corrupt)
		Ask(c, "range", c.KV.Range, all())
		Ask(c, "read-only txn", c.KV.Txn, then(get("a")))
		Ask(c, "status", c.Maintenance.Status, &pb.StatusRequest{})
		cleared(c, pb.AlarmType_CORRUPT)
		Ask(c, "put again", c.KV.Put, &pb.PutRequest{Key: []byte("a")})
	})
}

func raised(c *Case, kind pb.AlarmType) { c.Helper(); setAlarm(c, pb.AlarmRequest_ACTIVATE, kind) }

func cleared(c *Case, kind pb.AlarmType) { c.Helper(); setAlarm(c, pb.AlarmRequest_DEACTIVATE, kind) }

func setAlarm(c *Case, action pb.AlarmRequest_AlarmAction, kind pb.AlarmType) {
	c.Helper()
	status, err := c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
	if err != nil {
		c.Fatal(err)
	}
	request := &pb.AlarmRequest{Action: action, MemberID: status.Header.MemberId, Alarm: kind}
	Ask(c, "alarm "+action.String(), c.Maintenance.Alarm, request)
}

func TestALeaseThatEndsUnderCorruptIsRevokedWhenTheAlarmIsCleared(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Grant(5, 2)
		if _, err := c.KV.Put(c.Context(), &pb.PutRequest{Key: []byte("k"), Lease: 5}); err != nil {
			c.Fatal(err)
		}
		raised(c, pb.AlarmType_CORRUPT)
		left := func() int64 {
			c.Helper()
			answer, err := c.Lease.LeaseTimeToLive(c.Context(), &pb.LeaseTimeToLiveRequest{ID: 5})
			if err != nil {
				c.Fatal(err)
			}
			return answer.TTL
		}
		c.Eventually("the lease has ended", func() bool { return left() <= 0 })
		Ask(c, "the key is still there", c.KV.Range, &pb.RangeRequest{Key: []byte("k")})
		cleared(c, pb.AlarmType_CORRUPT)
		c.Eventually("the key has gone", func() bool {
			answer, err := c.KV.Range(c.Context(), &pb.RangeRequest{Key: []byte("k")})
			return err == nil && len(answer.Kvs) == 0
		})
		c.Put("k", "again")
		c.Everything("all there")
	})
}

func TestMoveLeaderKnowsNoOtherMember(t *testing.T) {
	const badTransferee = "etcdserver: bad leader transferee"
	OnBoth(t, func(c *Case) {
		Refuse(c, "unknown", c.Maintenance.MoveLeader, &pb.MoveLeaderRequest{TargetID: 42}, codes.FailedPrecondition, badTransferee)
		Refuse(c, "zero", c.Maintenance.MoveLeader, &pb.MoveLeaderRequest{}, codes.FailedPrecondition, badTransferee)
	})
}

func TestGrpcHealthKnowsTheServerAsAWhole(t *testing.T) {
	OnBoth(t, func(c *Case) {
		health := healthpb.NewHealthClient(c.Conn)
		Ask(c, "whole", health.Check, &healthpb.HealthCheckRequest{})
		Refuse(c, "by name", health.Check, &healthpb.HealthCheckRequest{Service: "etcdserverpb.KV"}, codes.NotFound, "unknown service")
	})
}

func TestGrpcHealthCanBeWatched(t *testing.T) {
	OnBoth(t, func(c *Case) {
		stream, err := healthpb.NewHealthClient(c.Conn).Watch(c.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			c.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil && c.Server.Kind == Etcd {
			c.Fatal(err)
		}
		c.RecordError("watch", err)
		c.Notef("status", "%v", answer.GetStatus())
	})
}
