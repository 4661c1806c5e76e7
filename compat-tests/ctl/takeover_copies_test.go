package ctl

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"etched.local/compat-tests/harness"
)

// One directory that an etcd left behind, twice: etcd serves the one copy and etched the other. Both have to tell the same
// of the very same bytes.

// facts is what a server says it has, one fact a line: every revision's hash, every key, lease, member, user, role, alarm.
func facts(t *testing.T, server *harness.Server) []string {
	t.Helper()
	var (
		conn  = server.Dial(t)
		kv    = pb.NewKVClient(conn)
		lease = pb.NewLeaseClient(conn)
		users = pb.NewAuthClient(conn)
		about = pb.NewMaintenanceClient(conn)
		ctx   = t.Context()
		lines []string
	)
	note := func(format string, values ...any) { lines = append(lines, fmt.Sprintf(format, values...)) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", server.Kind, err)
		}
	}
	login, err := users.Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: "secret"})
	if err == nil {
		ctx = metadata.AppendToOutgoingContext(ctx, "token", login.Token)
	}
	auth, err := users.AuthStatus(ctx, &pb.AuthStatusRequest{})
	must(err)
	note("auth %v at %d", auth.Enabled, auth.AuthRevision)
	all, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	must(err)
	note("revision %d, cluster %x, member %x", all.Header.Revision, all.Header.ClusterId, all.Header.MemberId)
	for _, key := range all.Kvs {
		note("key %q: %d bytes, %d %d %d %x", key.Key, len(key.Value), key.CreateRevision, key.ModRevision, key.Version, key.Lease)
	}
	// Each revision of a short history, and each of the last ones.
	last := all.Header.Revision
	for revision := int64(1); revision <= last+1; revision += max(1, min(last/200, last-20-revision)) {
		hash, err := about.HashKV(ctx, &pb.HashKVRequest{Revision: revision})
		if err != nil {
			note("hash at %d: %v", revision, err)
		} else {
			note("hash at %d: %d above %d", revision, hash.Hash, hash.CompactRevision)
		}
	}
	leases, err := lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	must(err)
	slices.SortFunc(leases.Leases, func(a, b *pb.LeaseStatus) int { return int(a.ID - b.ID) })
	for _, found := range leases.Leases {
		live, err := lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: found.ID, Keys: true})
		must(err)
		// Its seconds go by while this is asked.
		note("lease %x: %d, about %d, keys %q", live.ID, live.GrantedTTL, (live.TTL+100)/120*120, live.Keys)
	}
	members, err := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{})
	must(err)
	for _, member := range members.Members {
		note("member %x %q %v %v", member.ID, member.Name, member.PeerURLs, member.IsLearner)
	}
	roles, err := users.RoleList(ctx, &pb.AuthRoleListRequest{})
	must(err)
	for _, name := range roles.Roles {
		role, err := users.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: name})
		must(err)
		note("role %s %v", name, role.Perm)
	}
	names, err := users.UserList(ctx, &pb.AuthUserListRequest{})
	must(err)
	for _, name := range names.Users {
		user, err := users.UserGet(ctx, &pb.AuthUserGetRequest{Name: name})
		must(err)
		note("user %s %v", name, user.Roles)
	}
	alarms, err := about.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	must(err)
	note("alarms %v", alarms.Alarms)
	var status *pb.StatusResponse
	// An etcd that was killed early looks after its schema some seconds behind the start.
	harness.Eventually(t, "the storage version is the server's", func() bool {
		status, err = about.Status(ctx, &pb.StatusRequest{})
		must(err)
		return status.StorageVersion == "3.7.0"
	})
	note("term %d, storage version %s, downgrade %v", status.RaftTerm, status.StorageVersion, status.DowngradeInfo)
	return lines
}

// sameFromCopies starts both servers on copies of a directory that no server runs on, compares what they say, ends them
// and does so again.
func sameFromCopies(t *testing.T, data string) {
	t.Helper()
	var said [2][]string
	for round, kind := range []harness.Kind{harness.Etcd, harness.Etched} {
		mine := filepath.Join(t.TempDir(), "data")
		if output, err := exec.Command("cp", "-a", data, mine).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		server := harness.Start(t, kind, "--data-dir", mine, "--bcrypt-cost", "4")
		server.DataDir = mine
		said[round] = facts(t, server)
		server.Kill()
		server.Restart(t)
		said[round] = append(append(said[round], "after a kill"), facts(t, server)...)
		server.Stop(t)
	}
	compare(t, said[0], said[1])
}

func compare(t *testing.T, etcd, etched []string) {
	t.Helper()
	if len(etcd) < 10 {
		t.Errorf("only %d facts", len(etcd))
	}
	if len(etcd) != len(etched) {
		t.Errorf("etcd says %d lines, etched %d", len(etcd), len(etched))
	}
	for at := range min(len(etcd), len(etched)) {
		if etcd[at] != etched[at] {
			t.Fatalf("etcd:   %s\netched: %s", etcd[at], etched[at])
		}
	}
}

// source is an etcd of the test's own, and its tool.
func source(t *testing.T, flags ...string) *Case {
	return (&Case{Case: &harness.Case{T: t}}).etcd(flags...)
}

// load writes with several clients at a time until so many writes are acknowledged, kills the server in the middle of the
// rest, and gives the acknowledged by revision.
func load(t *testing.T, from *Case, count int) map[int64][2]string {
	t.Helper()
	var (
		mu    sync.Mutex
		acked = map[int64][2]string{}
		group sync.WaitGroup
	)
	enough := make(chan struct{})
	for writer := range 8 {
		group.Go(func() {
			for number := 0; ; number++ {
				w := [2]string{fmt.Sprintf("key%d/%d", writer, number%50), fmt.Sprintf("value%d", number)}
				answer, err := from.KV.Put(context.Background(), &pb.PutRequest{Key: []byte(w[0]), Value: []byte(w[1])})
				if err != nil {
					return
				}
				mu.Lock()
				acked[answer.Header.Revision] = w
				if len(acked) == count {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	from.Server.Kill()
	group.Wait()
	return acked
}

func TestADirectoryOfEtcdIsTheSameForEtcdAndForWhoTookItOver(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(t *testing.T) string{
		"ended": func(t *testing.T) string {
			from := (&Case{Case: &harness.Case{T: t}}).filled()
			from.Server.Stop(t)
			return from.Server.DataDir
		},
		"killed, with snapshots of raft's": func(t *testing.T) string {
			from := (&Case{Case: &harness.Case{T: t}}).filled("--snapshot-count", "100")
			from.Must("auth", "enable")
			from.Server.Kill()
			return from.Server.DataDir
		},
		"killed under writes": func(t *testing.T) string {
			from := source(t, "--snapshot-count", "500")
			load(t, from, 1500)
			return from.Server.DataDir
		},
		"with a torn end": func(t *testing.T) string {
			from := source(t, "--snapshot-count", "500")
			load(t, from, 700)
			tear(t, from.Server.DataDir)
			return from.Server.DataDir
		},
		"whose database is ahead of what the log calls committed": func(t *testing.T) string {
			from := source(t)
			for i := range 20 {
				from.Put(fmt.Sprint("key", i), "value")
			}
			// A snapshot of the database makes the last writes durable there; no later entry says that they are committed.
			from.Must("snapshot", "save", filepath.Join(t.TempDir(), "snapshot"))
			from.Server.Kill()
			return from.Server.DataDir
		},
		"with changes of members that etcd refused, in the log and not in the database": func(t *testing.T) string {
			from := source(t, "--strict-reconfig-check=false")
			refusals(t, from)
			from.Server.Kill()
			return from.Server.DataDir
		},
		"with changes of members that etcd refused, behind the database": func(t *testing.T) string {
			from := source(t, "--strict-reconfig-check=false")
			refusals(t, from)
			for i := range 20 {
				from.Put(fmt.Sprint("key", i), "value")
			}
			from.Server.Stop(t)
			return from.Server.DataDir
		},
		"with requests in the log that no client library writes": func(t *testing.T) string {
			first := source(t)
			first.Put("key", "value")
			first.Server.Stop(t)
			// Nothing of them is in the database.
			data := first.Server.DataDir
			from := source(t, "--data-dir", data, "--backend-batch-interval", "1h", "--backend-batch-limit", "100000", "--max-txn-ops", "10000")
			odd(t, from)
			from.Server.Kill()
			return data
		},
		"with a lease whose rest is on record": func(t *testing.T) string {
			from := source(t)
			from.Grant(0x4d2, 600)
			for i := range 20 {
				from.Put(fmt.Sprint("key", i), "value")
			}
			from.Server.Stop(t)
			setRest(t, from.Server.DataDir, 0x4d2, 120)
			return from.Server.DataDir
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sameFromCopies(t, leave(t))
		})
	}
}

// odd has etcd take requests that Go's decoder reads in its own way, and transactions far deeper in each other than ours lets
// clients have them. (With all five thousand that the decoder goes, etcd itself takes seconds, on a busy machine too many.)
func odd(t *testing.T, from *Case) {
	t.Helper()
	deep := harness.OddWrite{Name: "deep", Path: "/etcdserverpb.KV/Txn", Body: harness.NestedTxn(1000, harness.PutOp("deep"))}
	for _, write := range append(harness.OddWrites(), deep) {
		var answer []byte
		err := from.Conn.Invoke(from.Context(), write.Path, write.Body, &answer, grpc.ForceCodec(harness.BytesCodec{}))
		if err != nil {
			t.Fatalf("%s: %v", write.Name, err)
		}
	}
}

// refusals has etcd commit changes of its members that it refuses when it applies them.
func refusals(t *testing.T, from *Case) {
	t.Helper()
	for _, line := range []string{
		"member add x --peer-urls=" + harness.AdvertisedPeer,
		"member add y --learner --peer-urls=" + harness.AdvertisedPeer,
		"member remove abcdef",
		"member promote abcdef",
		"member update abcdef --peer-urls=http://127.0.0.1:1",
	} {
		if stdout, stderr, code := from.output("", strings.Fields(line)...); code == 0 {
			t.Fatalf("etcdctl %s: %s%s", line, stdout, stderr)
		}
	}
	members := from.Must("member", "list")
	if strings.Count(members, "\n") != 1 {
		t.Fatal(members)
	}
}

// tear cuts the last record of the log in two.
func tear(t *testing.T, data string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(data, "member", "wal", "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	last := slices.Max(segments)
	content, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(content, "\x00"))
	if err := os.Truncate(last, int64(end-5)); err != nil {
		t.Fatal(err)
	}
}

// setRest says in the database how many seconds a lease has left, as a leader does every five minutes.
func setRest(t *testing.T, data string, id, seconds int64) {
	t.Helper()
	database, err := bolt.Open(filepath.Join(data, "member", "snap", "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := binary.BigEndian.AppendUint64(nil, uint64(id))
	err = database.Update(func(tx *bolt.Tx) error {
		var row leasepb.Lease
		bucket := tx.Bucket([]byte("lease"))
		if err := proto.Unmarshal(bucket.Get(key), &row); err != nil {
			return err
		}
		row.RemainingTTL = seconds
		value, err := proto.Marshal(&row)
		if err != nil {
			return err
		}
		return bucket.Put(key, value)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := database.Close(); err != nil {
		t.Fatal(err)
	}
}
