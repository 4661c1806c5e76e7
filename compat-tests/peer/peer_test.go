// Package peer puts our peer transport beside real etcd: a member of ours (`voter`, an example of crates/transport) and
// an etcd are a cluster of two, so that nothing happens unless each understands the other.
package peer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	. "etched.local/compat-tests/harness"
)

const token = "etcd-cluster"

// program is the voter, built once.
var program = sync.OnceValues(func() (string, error) {
	build := exec.Command("cargo", "build", "--quiet", "--package", "etched-transport", "--example", "voter")
	build.Dir = "../.."
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, said)
	}
	return "../../target/debug/examples/voter", nil
})

// memberID is what etcd computes for a member of a new cluster.
func memberID(url string) uint64 { return digest([]byte(url + token)) }

func clusterID(members ...uint64) uint64 {
	slices.Sort(members)
	var all []byte
	for _, member := range members {
		all = binary.BigEndian.AppendUint64(all, member)
	}
	return digest(all)
}

func digest(bytes []byte) uint64 {
	sum := sha1.Sum(bytes)
	return binary.BigEndian.Uint64(sum[:8])
}

// voter is a running member of ours and what it wrote.
type voter struct {
	mu   sync.Mutex
	said bytes.Buffer
}

// startVoter starts a member with the first of these peer addresses, in a cluster of all.
func startVoter(t *testing.T, addresses ...string) *voter {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	var ids []uint64
	var peers []string
	for _, address := range addresses {
		ids = append(ids, memberID("http://"+address))
		peers = append(peers, fmt.Sprintf("%x=http://%s", ids[len(ids)-1], address))
	}
	v := &voter{}
	own := []string{addresses[0], fmt.Sprintf("%x", ids[0]), fmt.Sprintf("%x", clusterID(slices.Clone(ids)...))}
	command := exec.Command(path, append(own, peers[1:]...)...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = command.Stdout
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("the voter said:\n%s", v.text())
		}
	})
	go func() {
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			v.mu.Lock()
			v.said.WriteString(lines.Text() + "\n")
			v.mu.Unlock()
		}
	}()
	return v
}

func (v *voter) text() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.said.String()
}

// heard is whether a message of this kind came.
func (v *voter) heard(kind string) bool {
	return slices.ContainsFunc(strings.Split(v.text(), "\n"), func(line string) bool { return strings.HasPrefix(line+" ", kind+" ") })
}

// startEtcd starts that of these members, whose peer addresses are given.
func startEtcd(t *testing.T, name string, members map[string]string, flags ...string) *Server {
	t.Helper()
	var all []string
	for member, address := range members {
		all = append(all, member+"=http://"+address)
	}
	url := "http://" + members[name]
	return Start(t, Etcd, append([]string{"--name", name, "--listen-peer-urls", url, "--initial-advertise-peer-urls", url,
		"--initial-cluster", strings.Join(all, ","), "--initial-cluster-token", token}, flags...)...)
}

func TestEtcdAndOurTransportAreACluster(t *testing.T) {
	t.Run("etched", func(t *testing.T) {
		ours, theirs := FreePort(t), FreePort(t)
		v := startVoter(t, ours, theirs)
		server := startEtcd(t, "default", map[string]string{"default": theirs, "voter": ours})
		client := newClient(t, server)
		client.putAndGet("small", "x")
		client.putAndGet("large", strings.Repeat("y", 1<<20))
		for i := range 200 {
			client.put(fmt.Sprintf("key-%d", i), strings.Repeat("z", i))
		}
		for _, kind := range []string{"MsgPreVote", "MsgVote", "MsgApp", "MsgHeartbeat"} {
			if !v.heard(kind) {
				t.Errorf("no %s came", kind)
			}
		}
		if strings.Contains(v.text(), "unreachable") {
			t.Error("etcd was lost in between")
		}
		// The other way round: what etcd's clients want goes to our member, and comes back as appends.
		client.moveLeader(memberID("http://" + ours))
		client.putAndGet("led by ours", "1")
		// Ours began with a snapshot.
		Eventually(t, "a snapshot is taken", func() bool {
			return v.heard(fmt.Sprintf("snapshot %x true", memberID("http://"+theirs)))
		})
		kept, err := os.Stat(filepath.Join(server.DataDir, "member", "snap", "0000000000000001.snap.db"))
		if err != nil || kept.Size() != 10<<20 {
			t.Errorf("the database that etcd kept: %v, %v", kept, err)
		}
		client.putAndGet("large and led by ours", strings.Repeat("w", 1<<20))
		for i := range 200 {
			client.put(fmt.Sprintf("key-%d", i), "again")
		}
		client.get("key-199", "again")
		for _, kind := range []string{"MsgTimeoutNow", "MsgVoteResp", "MsgProp", "MsgAppResp", "MsgReadIndex"} {
			if !v.heard(kind) {
				t.Errorf("no %s came", kind)
			}
		}
		// When etcd comes back, both find each other again.
		server.Kill()
		server.Restart(t)
		client.putAndGet("after a restart", "1")
		if log := server.Log(); strings.Contains(log, `"level":"panic"`) || strings.Contains(log, "failed to process Raft message") {
			t.Errorf("etcd complains:\n%s", log)
		}
	})
}

func TestEtcdSendsItsDatabaseToAMemberThatLags(t *testing.T) {
	t.Run("etched", func(t *testing.T) {
		members := map[string]string{"a": FreePort(t), "b": FreePort(t), "voter": FreePort(t)}
		flags := []string{"--snapshot-count", "20", "--snapshot-catchup-entries", "5"}
		other := make(chan *Server)
		go func() { other <- startEtcd(t, "b", members, flags...) }()
		first := startEtcd(t, "a", members, flags...)
		second := <-other
		client := newClient(t, first)
		for i := range 100 {
			client.put(fmt.Sprintf("key-%d", i), strings.Repeat("x", 10_000))
		}
		v := startVoter(t, members["voter"], members["a"], members["b"])
		Eventually(t, "a database comes", func() bool { return v.heard("database") && v.heard("MsgSnap") })
		// With only the leader left nothing happens without it.
		if client.leads() {
			second.Kill()
		} else {
			client = newClient(t, second)
			first.Kill()
		}
		client.putAndGet("after the snapshot", "1")
	})
}

// client is a client of the etcd in the cluster.
type client struct {
	*testing.T
	kv          pb.KVClient
	maintenance pb.MaintenanceClient
}

func newClient(t *testing.T, server *Server) client {
	connection := server.Dial(t)
	return client{t, pb.NewKVClient(connection), pb.NewMaintenanceClient(connection)}
}

func (c client) putAndGet(key, value string) {
	c.Helper()
	c.put(key, value)
	c.get(key, value)
}

func (c client) put(key, value string) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), Deadline)
	defer cancel()
	if _, err := c.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)}); err != nil {
		c.Fatalf("put %s: %v", key, err)
	}
}

func (c client) get(key, value string) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), Deadline)
	defer cancel()
	answer, err := c.kv.Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		c.Fatalf("get %s: %v", key, err)
	}
	if len(answer.Kvs) != 1 || string(answer.Kvs[0].Value) != value {
		c.Fatalf("get %s: %d keys", key, len(answer.Kvs))
	}
}

func (c client) leads() bool {
	c.Helper()
	status, err := c.maintenance.Status(c.Context(), &pb.StatusRequest{})
	if err != nil {
		c.Fatalf("status: %v", err)
	}
	return status.Leader == status.Header.MemberId
}

func (c client) moveLeader(to uint64) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), Deadline)
	defer cancel()
	if _, err := c.maintenance.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to}); err != nil {
		c.Fatalf("move the leader: %v", err)
	}
}
