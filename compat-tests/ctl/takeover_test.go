package ctl

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"

	"etched.local/compat-tests/harness"
)

// A directory that real etcd wrote is served by the case's server: by etcd itself as the oracle, by etched after it has
// taken it over.

// etcd is a case on a real etcd of its own.
func (c *Case) etcd(flags ...string) *Case {
	c.Helper()
	server := harness.Start(c.T, harness.Etcd, append([]string{"--bcrypt-cost", "4"}, flags...)...)
	conn := server.Dial(c.T)
	return &Case{Case: &harness.Case{T: c.T, Server: server, Conn: conn, KV: pb.NewKVClient(conn), Lease: pb.NewLeaseClient(conn),
		Maintenance: pb.NewMaintenanceClient(conn), Cluster: pb.NewClusterClient(conn)}}
}

// filled has something in every bucket, users and an alarm among it; several revisions are compacted.
func (c *Case) filled(flags ...string) *Case {
	c.Helper()
	source := c.etcd(flags...)
	seedEveryBucket(source)
	source.Must("user", "add", "root:secret")
	source.Must("user", "add", "alice:word")
	source.Must("role", "add", "root")
	source.Must("role", "add", "reader")
	source.Must("role", "grant-permission", "reader", "read", "app", "app0")
	source.Must("user", "grant-role", "root", "root")
	source.Must("user", "grant-role", "alice", "reader")
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}
	if _, err := source.Maintenance.Alarm(c.Context(), alarm); err != nil {
		c.Fatal(err)
	}
	return source
}

// takenOver is the case's server on a directory; what it holds is recorded.
func (c *Case) takenOver(data string) *Case {
	c.Helper()
	served := c.serve(data)
	for _, revision := range []int64{3, 6, 10, 100, 400} {
		answer, err := served.Maintenance.HashKV(c.Context(), &pb.HashKVRequest{Revision: revision})
		if err != nil {
			served.RecordError(fmt.Sprintf("hash at %d", revision), err)
			continue
		}
		answer.Header = nil
		served.Record(fmt.Sprintf("hash at %d", revision), answer)
	}
	lease := harness.Ask(served.Case, "lease", served.Lease.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: 0x4d2, Keys: true})
	if lease.GrantedTTL != 600 || len(lease.Keys) != 1 {
		c.Errorf("lease: %v", lease)
	}
	harness.Ask(served.Case, "an old revision", served.KV.Range, &pb.RangeRequest{Key: []byte("apple"), Revision: 6})
	for _, list := range []string{"user list", "role list", "role get reader", "user get alice", "alarm list", "member list"} {
		served.Run(strings.Fields(list)...)
	}
	return served
}

// lives writes on, and looks again after a kill.
func (c *Case) lives() {
	c.Helper()
	c.Run("alarm", "disarm")
	c.Run("put", "after", "1", "--lease=4d2")
	c.Run("del", "fig", "--prev-kv")
	c.hashKV("hash after writes", c.Maintenance)
	c.Server.Kill()
	c.Server.Restart(c.T)
	c.Reconnect()
	c.hashKV("hash after a kill", c.Maintenance)
	c.Everything("everything after a kill")
}

func TestADirectoryThatEtcdutlRestoredIsServed(t *testing.T) {
	for name, flags := range map[string][]string{
		"as it was": nil, "with a raised revision": {"--bump-revision", "1000", "--mark-compacted"},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(c *Case) {
				source := c.filled()
				file, data := filepath.Join(c.TempDir(), "snapshot"), filepath.Join(c.TempDir(), "data")
				source.Must("snapshot", "save", file)
				source.Server.Kill()
				c.etcdutl(append([]string{"snapshot", "restore", file, "--data-dir", data, "--initial-cluster",
					"default=" + harness.AdvertisedPeer, "--initial-advertise-peer-urls", harness.AdvertisedPeer}, flags...)...)
				if flags == nil {
					c.takenOver(data).lives()
				} else {
					c.serve(data).lives()
				}
			})
		})
	}
}

func TestADirectoryOfAnEtcdThatEndedIsServed(t *testing.T) {
	for name, stop := range map[string]func(*harness.Server, *testing.T){
		"on SIGTERM": func(s *harness.Server, t *testing.T) { s.Stop(t) },
		"by a kill":  func(s *harness.Server, _ *testing.T) { s.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			// Snapshots of raft's, so that the log has lost its beginning.
			for _, flags := range [][]string{nil, {"--snapshot-count", "100"}} {
				t.Run(strings.Join(append(flags, "flags"), " "), func(t *testing.T) {
					onBoth(t, func(c *Case) {
						source := c.filled(flags...)
						stop(source.Server, c.T)
						c.takenOver(source.Server.DataDir).lives()
					})
				})
			}
		})
	}
}

func TestUsersOfADirectoryOfEtcdMayDoWhatTheyMight(t *testing.T) {
	onBoth(t, func(c *Case) {
		source := c.filled()
		source.Must("auth", "enable")
		source.Server.Stop(c.T)
		served := harness.Start(c.T, c.Server.Kind, "--data-dir", source.Server.DataDir)
		c.Server = served
		c.Mask(served.Client, "served")
		c.Run("get", "apple")
		c.Run("get", "apple", "--user", "alice:word")
		c.Run("get", "cherry", "--user", "alice:word")
		c.Run("get", "apple", "--user", "alice:wrong")
		c.Run("put", "apple", "1", "--user", "alice:word")
		c.Run("alarm", "disarm", "--user", "root:secret")
		c.Run("put", "apple", "1", "--user", "root:secret")
		auth := pb.NewAuthClient(served.Dial(c.T))
		login, err := auth.Authenticate(c.Context(), &pb.AuthenticateRequest{Name: "root", Password: "secret"})
		if err != nil {
			c.Fatal(err)
		}
		ctx := metadata.AppendToOutgoingContext(c.Context(), "token", login.Token)
		status, err := auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
		if err != nil || !status.Enabled {
			c.Fatalf("%v, %v", status, err)
		}
		c.Notef("auth revision", "%d", status.AuthRevision)
		hash, err := pb.NewMaintenanceClient(served.Dial(c.T)).HashKV(ctx, &pb.HashKVRequest{})
		if err != nil {
			c.Fatal(err)
		}
		c.Notef("hash", "%d at %d", hash.Hash, hash.HashRevision)
	})
}

func TestWhatEtcdAcknowledgedBeforeAKillIsThere(t *testing.T) {
	onBoth(t, func(c *Case) {
		source := c.etcd("--snapshot-count", "500")
		acked := load(c.T, source, 3000)
		served := harness.Start(c.T, c.Server.Kind, "--data-dir", source.Server.DataDir)
		kv := pb.NewKVClient(served.Dial(c.T))
		for revision, w := range acked {
			answer, err := kv.Range(c.Context(), &pb.RangeRequest{Key: []byte(w[0]), Revision: revision})
			if err != nil {
				c.Fatal(err)
			}
			if len(answer.Kvs) != 1 || string(answer.Kvs[0].Value) != w[1] || answer.Kvs[0].ModRevision != revision {
				c.Fatalf("%v was acknowledged at %d, there is %v", w, revision, answer.Kvs)
			}
		}
	})
}

// refusal is what etched says when it does not start on a directory.
func refusal(t *testing.T, data string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), harness.Binary("etched"), "--data-dir", data,
		"--listen-client-urls", "http://127.0.0.1:0", "--advertise-client-urls", "http://127.0.0.1:0",
		"--listen-peer-urls", "http://127.0.0.1:0")
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if command.Run(); command.ProcessState.ExitCode() != 1 {
		t.Fatalf("%v\n%s", command.ProcessState, output.String())
	}
	lines := strings.Split(strings.TrimSpace(output.String()), "\n")
	return lines[len(lines)-1]
}

func contents(t *testing.T, data string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.Walk(data, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files[path] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// leftAlone expects a refusal with these words and the same files after it.
func leftAlone(t *testing.T, data string, words ...string) {
	t.Helper()
	before := contents(t, data)
	line := refusal(t, data)
	for _, word := range words {
		if !strings.Contains(line, word) {
			t.Errorf("%q is not in %s", word, line)
		}
	}
	after := contents(t, data)
	for path, content := range before {
		if after[path] != content {
			t.Errorf("%s was changed", path)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files before, %d after", len(before), len(after))
	}
}

// checked expects these words of a look at the directory, and the same files after it.
func checked(t *testing.T, data string, words ...string) {
	t.Helper()
	before := contents(t, data)
	output, _ := exec.CommandContext(t.Context(), harness.Binary("etchedutl"), "migrate", "--check", "--data-dir", data).CombinedOutput()
	for _, word := range words {
		if !strings.Contains(string(output), word) {
			t.Errorf("%q is not in %s", word, output)
		}
	}
	for path, content := range contents(t, data) {
		if before[path] != content {
			t.Errorf("%s was changed", path)
		}
	}
}

func TestADirectoryOfEtcdThatCannotBeTakenOverIsLeftAlone(t *testing.T) {
	t.Parallel()
	if harness.Binary("etched") == harness.Binary("etcd") {
		return // on two oracles there is nothing to take over
	}
	c := &Case{Case: &harness.Case{T: t}}
	source := c.etcd()
	source.Put("a", "1")
	if line := refusal(t, source.Server.DataDir); !strings.Contains(line, "in use by another process") {
		t.Error(line)
	}
	source.Server.Stop(t)
	wal, aside := filepath.Join(source.Server.DataDir, "member", "wal"), filepath.Join(t.TempDir(), "wal")
	if err := os.Rename(wal, aside); err != nil {
		t.Fatal(err)
	}
	leftAlone(t, source.Server.DataDir, "write-ahead log", "is missing")
	if err := os.Rename(aside, wal); err != nil {
		t.Fatal(err)
	}
	database := filepath.Join(source.Server.DataDir, "member", "snap", "db")
	content, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range []int{0, 100, 5000, 16384} {
		if err := os.WriteFile(database, content[:length], 0o600); err != nil {
			t.Fatal(err)
		}
		leftAlone(t, source.Server.DataDir)
	}
	if err := os.WriteFile(database, content, 0o600); err != nil {
		t.Fatal(err)
	}
	checked(t, source.Server.DataDir, "storage version 3.7", "keep the database as db.etcd-3.7")
	// And then it is taken over, and etcd leaves it alone.
	served := harness.Start(t, harness.Etched, "--data-dir", source.Server.DataDir)
	answer, err := pb.NewKVClient(served.Dial(t)).Range(c.Context(), &pb.RangeRequest{Key: []byte("a")})
	if err != nil || len(answer.Kvs) != 1 {
		t.Fatal(answer, err)
	}
	served.Stop(t)
	kept, err := os.ReadFile(database + ".etcd-3.7")
	if err != nil || !bytes.Equal(kept, content) {
		t.Errorf("etcd's database was not kept as it was: %v", err)
	}
	before := contents(t, source.Server.DataDir)
	command := exec.CommandContext(t.Context(), harness.Binary("etcd"), "--data-dir", source.Server.DataDir)
	if output, err := command.CombinedOutput(); err == nil || !strings.Contains(string(output), "invalid database") {
		t.Errorf("etcd on it: %v\n%s", err, output)
	}
	for path, content := range contents(t, source.Server.DataDir) {
		if before[path] != content {
			t.Errorf("etcd changed %s", path)
		}
	}
}
