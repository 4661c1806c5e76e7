package ctl

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	"etched.local/compat-tests/harness"
)

// own is the tool that comes with the server of the case.
func (c *Case) own() string { return string(c.Server.Kind) + "utl" }

// utl runs that tool to its end and records exit code, standard output and standard error.
func (c *Case) utl(step string, args ...string) {
	c.Helper()
	command := exec.CommandContext(c.T.Context(), harness.Binary(c.own()), args...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	_ = command.Run()
	text := stdout.String() + "stderr:\n" + stderr.String()
	text = regexp.MustCompile(`(?m)^.*\tinfo\t.*\n|^info\t.*\n`).ReplaceAllString(text, "")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "etchedutl", "etcdutl"), "etched directory", "etcd directory")
	text = strings.ReplaceAll(text, "in use by etched", "in use by etcd")
	c.Notef(step, "%s\nexit code %d", text, command.ProcessState.ExitCode())
}

// snapshotOfEtcd is one of real etcd with something in every bucket that shows.
func snapshotOfEtcd(c *Case) string {
	c.Helper()
	server := harness.Start(c.T, harness.Etcd)
	conn := server.Dial(c.T)
	source := &Case{Case: &harness.Case{T: c.T, Server: server, Conn: conn, KV: pb.NewKVClient(conn),
		Lease: pb.NewLeaseClient(conn), Maintenance: pb.NewMaintenanceClient(conn)}}
	seedEveryBucket(source)
	file := filepath.Join(c.TempDir(), "snapshot")
	source.Must("snapshot", "save", file)
	server.Kill()
	return file
}

func (c *Case) restore(file string, more ...string) string {
	c.Helper()
	data := filepath.Join(c.TempDir(), "data")
	c.tool(c.own(), append([]string{"snapshot", "restore", file, "--data-dir", data,
		"--initial-cluster", "default=" + harness.AdvertisedPeer,
		"--initial-advertise-peer-urls", harness.AdvertisedPeer}, more...)...)
	return data
}

// serve starts the case's kind of server on a restored directory and records what it holds.
func (c *Case) serve(data string) *Case {
	c.Helper()
	server := harness.Start(c.T, c.Server.Kind, "--data-dir", data)
	server.DataDir = data
	other := *c.Case
	other.Server = server
	served := &Case{Case: &other}
	served.Mask(server.Client, "served")
	served.Reconnect()
	served.hashKV("hash", served.Maintenance)
	served.Everything("everything")
	members := harness.Ask(served.Case, "members", served.Cluster.MemberList, &pb.MemberListRequest{})
	if len(members.Members) != 1 {
		c.Errorf("members: %v", members)
	}
	return served
}

func TestASnapshotOfEtcdIsRestoredAndServed(t *testing.T) {
	onBoth(t, func(c *Case) {
		served := c.serve(c.restore(snapshotOfEtcd(c)))
		lease := harness.Ask(served.Case, "lease", served.Lease.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: 0x4d2, Keys: true})
		if lease.GrantedTTL != 600 || len(lease.Keys) != 1 {
			c.Errorf("lease: %v", lease)
		}
		harness.Ask(served.Case, "an old revision", served.KV.Range, &pb.RangeRequest{Key: []byte("apple"), Revision: 6})
		harness.Refuse(served.Case, "a compacted one", served.KV.Range, &pb.RangeRequest{Key: []byte("apple"), Revision: 4},
			codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
		served.Put("after", "1")
		served.Server.Kill()
		served.Server.Restart(c.T)
		served.Reconnect()
		served.hashKV("hash after a kill", served.Maintenance)
		served.Everything("everything after a kill")
	})
}

func TestARestoreMayRaiseTheRevisionAndCallAllBeforeCompacted(t *testing.T) {
	onBoth(t, func(c *Case) {
		served := c.serve(c.restore(snapshotOfEtcd(c), "--bump-revision", "1000", "--mark-compacted"))
		harness.Refuse(served.Case, "the revision before", served.KV.Range, &pb.RangeRequest{Key: []byte("apple"), Revision: 600},
			codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
		served.Put("after", "1")
		served.hashKV("hash after a put", served.Maintenance)
		served.Server.Kill()
		served.Server.Restart(c.T)
		served.Reconnect()
		served.hashKV("hash after a kill", served.Maintenance)
	})
}

func TestTheHashOfARestoredStoreIsSaidInEveryFormat(t *testing.T) {
	onBoth(t, func(c *Case) {
		data := c.restore(snapshotOfEtcd(c))
		store := filepath.Join(data, "member", "snap", "db")
		for _, format := range []string{"simple", "json", "fields", "table", "protobuf", "nope"} {
			c.utl("hash as "+format, "hashkv", store, "-w", format)
		}
		c.utl("hash at a revision", "hashkv", store, "--rev", "100")
		c.utl("hash of the future", "hashkv", store, "--rev", "100000")
		c.utl("hash of what is compacted", "hashkv", store, "--rev", "2")
		c.utl("defragment", "defrag", "--data-dir", data)
		c.utl("hash after it", "hashkv", store)
		c.utl("nothing to defragment", "defrag", "--data-dir", "none")
		for _, line := range []string{"hashkv", "hashkv missing", "hashkv a b", "hashkv --rev x", "hashkv --help", "defrag", "defrag --help"} {
			c.utl(line, strings.Fields(line)...)
		}
	})
}

func TestTheToolSaysWhatEtcdutlSays(t *testing.T) {
	onBoth(t, func(c *Case) {
		file := snapshotOfEtcd(c)
		content, err := os.ReadFile(file)
		if err != nil {
			c.Fatal(err)
		}
		c.Mask(filepath.Dir(file), "folder")
		write := func(name string, content []byte) string {
			path := filepath.Join(filepath.Dir(file), name)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				c.Fatal(err)
			}
			return path
		}
		files := map[string]string{
			"whole": file, "missing": filepath.Join(filepath.Dir(file), "missing"),
			"short": write("short", content[:100]), "zeros": write("zeros", make([]byte, 20000)),
			"without hash": write("nohash", content[:len(content)-32]),
		}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			path := files[name]
			// The hash differs from run to run: it covers what a server picks.
			args := []string{"snapshot", "restore", path, "--data-dir", filepath.Join(c.TempDir(), "data")}
			c.utl("restore "+name, args...)
			if name != "whole" && name != "without hash" {
				c.utl("status "+name, "snapshot", "status", path)
			}
		}
		c.utl("restore without hash, unchecked", "snapshot", "restore", files["without hash"], "--skip-hash-check",
			"--data-dir", filepath.Join(c.TempDir(), "data"))
		for _, line := range []string{
			"version", "nope", "completion", "completion nope", "completion bash zsh", "completion --help", "snapshot --help", "snapshot status", "snapshot status --help", "snapshot status a b",
			"snapshot status --nope", "snapshot status -w", "snapshot restore", "snapshot restore x --bump-revision 5",
			"snapshot restore x --mark-compacted", "snapshot restore x --bump-revision -1 --mark-compacted",
			"snapshot restore x --name other", "snapshot restore x --initial-cluster default=http://127.0.0.1:1",
			"snapshot restore x --initial-cluster a=b", "snapshot restore x --initial-advertise-peer-urls foo",
			"snapshot restore x --data-dir .", "snapshot restore x --data-dir none --wal-dir .",
		} {
			c.utl(line, strings.Fields(line)...)
		}
	})
}

// Both tools on one file: the hash of a snapshot must be the same too.
func TestTheStatusOfASnapshotIsThatOfEtcdutlInEveryFormat(t *testing.T) {
	onBoth(t, func(c *Case) {
		seedEveryBucket(c)
		file := filepath.Join(c.TempDir(), "snapshot")
		c.Must("snapshot", "save", file)
		for _, format := range []string{"simple", "json", "fields", "table"} {
			args := []string{"snapshot", "status", file, "-w", format}
			if etcd, etched := c.tool("etcdutl", args...), c.tool("etchedutl", args...); etcd != etched {
				c.Errorf("%s: etcdutl says\n%s\netchedutl\n%s", format, etcd, etched)
			}
		}
	})
}
