package api

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	. "etched.local/compat-tests/harness"
)

func TestAStartDefragmentsWhenThatFreesEnough(t *testing.T) {
	OnBoth(t, func(c *Case) {
		logged(c, "Skipping defragmentation")
		for i := range 200 {
			c.Put("large", strings.Repeat(fmt.Sprint(i%10), 100_000))
		}
		if _, err := c.KV.Compact(c.Context(), &pb.CompactionRequest{Revision: 201, Physical: true}); err != nil {
			c.Fatal(err)
		}
		before := Ask(c, "hash", c.Maintenance.HashKV, &pb.HashKVRequest{})
		c.Server.Stop(c)
		c.Server.Restart(c)
		c.Reconnect()
		logged(c, "finished defragmenting directory")
		after := Ask(c, "hash of the smaller file", c.Maintenance.HashKV, &pb.HashKVRequest{})
		if before.Hash != after.Hash {
			c.Errorf("hash %d became %d", before.Hash, after.Hash)
		}
		status, err := c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
		if err != nil {
			c.Fatal(err)
		}
		if status.DbSize > 8<<20 {
			c.Errorf("the file still has %d bytes", status.DbSize)
		}
		c.Server.Kill()
		c.Server.Restart(c)
		c.Reconnect()
		logged(c, "Skipping defragmentation")
		c.Everything("all there")
	}, "--bootstrap-defrag-threshold-megabytes", "4")
}

func TestTheQuotaInForceIsSaid(t *testing.T) {
	for quota, lines := range map[string][]string{
		"0":          {"enabled backend quota with default value", "2147483648"},
		"-1":         {"disabled backend quota", "-1"},
		"3000000000": {"enabled backend quota", "3000000000"},
		"9000000000": {"quota exceeds the maximum value", "enabled backend quota", "9000000000"},
	} {
		t.Run(quota, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				for _, msg := range lines[:len(lines)-1] {
					found := false
					for _, line := range strings.Split(c.Server.Log(), "\n") {
						found = found || strings.Contains(line, `"msg":"`+msg+`","quota-name":"v3-applier","quota-size-bytes":`+lines[len(lines)-1]+",") ||
							strings.Contains(line, `"msg":"`+msg+`","quota-name":"v3-applier","quota-size-bytes":`+lines[len(lines)-1]+"}")
					}
					if !found {
						c.Errorf("no line %q\n%s", msg, c.Server.Log())
					}
				}
			}, "--quota-backend-bytes="+quota)
		})
	}
}

// without runs a program with at most 64 KiB of locked memory, and without the capability that lifts the limit.
func without(program string) []string {
	shell := []string{"sh", "-c", `ulimit -l 64 && exec "$@"`, "sh"}
	if os.Geteuid() == 0 {
		shell = append(shell, "setpriv", "--inh-caps=-all", "--bounding-set=-all")
	}
	return append(shell, program)
}

func TestMemoryIsLockedOrTheStartIsRefused(t *testing.T) {
	etcd, etched := EachAlone(t, func(t *testing.T, kind Kind) string {
		run := Refused(t, kind, without, "--memory-mlock", "--listen-client-urls", "http://<client>", "--advertise-client-urls", "http://<client>",
			"--listen-peer-urls", "http://<peer>", "--initial-advertise-peer-urls", "http://<peer>", "--initial-cluster", "default=http://<peer>")
		if !strings.Contains(run.Output, "mlock error: cannot allocate memory") {
			t.Errorf("%s", run.Output)
		}
		return fmt.Sprint("exit code ", run.Code)
	})
	if etcd != etched {
		t.Errorf("DIFFERENCE\n    etcd   %s\n    etched %s", etcd, etched)
	}
}

// mayLock is whether no limit counts for the memory that a process of this user locks.
func mayLock(t *testing.T) bool {
	const memlock, most = 8, 64 << 20 // RLIMIT_MEMLOCK is not among syscall's names.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(memlock, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur == ^uint64(0) || limit.Cur > most {
		return limit.Cur == ^uint64(0)
	}
	memory, err := syscall.Mmap(-1, 0, int(limit.Cur)+1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(memory) }()
	return syscall.Mlock(memory) == nil
}

func TestTheSystemSaysThatMemoryIsLocked(t *testing.T) {
	if !mayLock(t) {
		t.Skip("needs CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK")
	}
	OnBoth(t, func(c *Case) {
		// The store's file and what it is kept in have grown since the start.
		for i := range 100 {
			c.Put(fmt.Sprint("large", i), strings.Repeat("v", 100_000))
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Server.Pid()))
		if err != nil {
			c.Fatal(err)
		}
		locked := 0
		for _, line := range strings.Split(string(status), "\n") {
			_, _ = fmt.Sscanf(line, "VmLck: %d kB", &locked)
		}
		if locked < 10_000 {
			c.Errorf("%d kB are locked\n%s", locked, status)
		}
	}, "--memory-mlock")
}

func TestTheInitDaemonIsToldWhenTheMemberServes(t *testing.T) {
	etcd, etched := EachAlone(t, func(t *testing.T, kind Kind) string {
		path := filepath.Join(t.TempDir(), "notify")
		daemon, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer daemon.Close()
		server := StartIn(t, kind, []string{"NOTIFY_SOCKET=" + path})
		_ = daemon.SetReadDeadline(time.Now().Add(Deadline))
		said := make([]byte, 100)
		length, err := daemon.Read(said)
		if err != nil {
			t.Fatalf("nothing was said: %v\n%s", err, server.Log())
		}
		Eventually(t, "the line after it", func() bool {
			return strings.Contains(server.Log(), "successfully notified init daemon")
		})
		server.Stop(t)
		_ = daemon.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		more, _ := daemon.Read(make([]byte, 100))
		return fmt.Sprintf("%q, then %d bytes more", said[:length], more)
	})
	if etcd != etched {
		t.Errorf("DIFFERENCE\n    etcd   %s\n    etched %s", etcd, etched)
	}
	if !strings.Contains(etcd, "READY=1") {
		t.Error(etcd)
	}
}

func TestANotifySocketThatIsNotThereKeepsNobodyFromServing(t *testing.T) {
	EachAlone(t, func(t *testing.T, kind Kind) string {
		server := StartIn(t, kind, []string{"NOTIFY_SOCKET=" + filepath.Join(t.TempDir(), "nobody")})
		Eventually(t, "the error", func() bool {
			return strings.Contains(server.Log(), "failed to notify systemd for readiness")
		})
		return ""
	})
}

// Limits out of the ordinary are no reason not to start, but said.
func TestLimitsOutOfTheOrdinaryAreWarnedOf(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, text := range []string{"exceeded recommended request limit", "quota exceeds the maximum value",
			"use default bcrypt cost instead of the invalid given cost"} {
			logged(c, text)
		}
		c.Put("large", strings.Repeat("v", 11<<20))
		c.Everything("it is there")
	}, "--max-request-bytes", "20971520", "--quota-backend-bytes", "99999999999", "--bcrypt-cost", "99")
}
