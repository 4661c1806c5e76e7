package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"

	. "etched.local/compat-tests/harness"
)

// A connection on which nothing happens is asked for a sign of life; without one it is closed.
func TestConnectionsFollowTheFlags(t *testing.T) {
	OnBoth(t, func(c *Case) {
		r := openRaw(c, c.Server)
		streams, pinged, began := uint32(0), false, time.Now()
		for {
			frame, err := r.framer.ReadFrame()
			if err != nil {
				break
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if value, has := frame.Value(http2.SettingMaxConcurrentStreams); has {
					streams = value
				}
			case *http2.PingFrame:
				pinged = pinged || !frame.IsAck()
			}
		}
		c.Notef("what a connection is told", "%d streams, pinged %v, closed %v", streams, pinged, time.Since(began) < Deadline)
	}, "--max-concurrent-streams=7", "--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s")
}

func TestAnAddressIsSharedWhenTheFlagSaysSo(t *testing.T) {
	const reusePort = 15 // SO_REUSEPORT of Linux, which package syscall does not name
	shared := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		var failed error
		err := conn.Control(func(fd uintptr) { failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, reusePort, 1) })
		if err != nil {
			return err
		}
		return failed
	}}
	for name, flags := range map[string][]string{"alone": nil, "shared": {"--socket-reuse-port", "--socket-reuse-address"}} {
		t.Run(name, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				second, err := shared.Listen(context.Background(), "tcp", c.Server.Client)
				if err == nil {
					second.Close()
				}
				c.Notef("a second one on the address", "%v", err == nil)
			}, flags...)
		})
	}
}

func TestThePeerPortKeepsToItsOwnFlagsOfTls(t *testing.T) {
	files, ca, other := newFolder(t), root("ca", p256()), root("other", p256())
	server := ca.sign("server", p256())
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: need(x509.MarshalPKCS8PrivateKey(server.key))})
	named := func(name string) *made {
		return ca.sign(name, p256(), func(c *x509.Certificate) { c.DNSNames = []string{name, "localhost"} })
	}
	clients := map[string]*made{"none": nil, "good": named("good"), "bad": named("bad"), "revoked": named("good"), "stranger": other.sign("good", p256())}
	flags := []string{
		"--listen-peer-urls=https://<peer>", "--peer-client-cert-auth", "--peer-trusted-ca-file=" + files.authorities(ca),
		"--peer-cert-file=" + files.write("peer.pem", server.pem()), "--peer-key-file=" + files.write("peer-key.pem", key),
		"--peer-crl-file=" + files.write("peer.crl", ca.revoke(clients["revoked"])),
	}
	for name, more := range map[string][]string{
		"any name": nil, "one common name": {"--peer-cert-allowed-cn=good"}, "one host name": {"--peer-cert-allowed-hostname=good"},
	} {
		t.Run(name, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				for name, client := range clients {
					answer, err := getTLS(c, "https://"+c.Server.Peer+"/version", trusting(ca, client, tls.VersionTLS13), false)
					c.NoteUnder(name, fmt.Sprint(strings.Contains(answer, "200 OK"), err == nil))
				}
			}, append(flags, more...)...)
		})
	}
}

// Each use prolongs a token's life: nothing may be asked with it meanwhile.
func TestASimpleTokenEndsAfterItsTime(t *testing.T) {
	OnBoth(t, func(c *Case) {
		root := nobody(c).enable()
		began := time.Now()
		c.Eventually("the time is over", func() bool { return time.Since(began) > 5*time.Second })
		try(root, "after its time", root.auth.UserList, &pb.AuthUserListRequest{})
	}, append(cheap, "--auth-token-ttl=2")...)
}

func TestSlowWorkIsLoggedFromTheDurationsOn(t *testing.T) {
	for name, flags := range map[string][]string{
		"all":  {"--warning-apply-duration=1ns", "--warning-unary-request-duration=1ns"},
		"none": {"--warning-apply-duration=1h", "--warning-unary-request-duration=1h"},
	} {
		t.Run(name, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				c.Put("a", "1")
				c.Everything("range")
				logged := func(line string) bool { return strings.Contains(c.Server.Log(), line) }
				if name == "all" {
					for _, line := range []string{"apply request took too long", "request stats"} {
						c.Eventually(line, func() bool { return logged(line) })
					}
				}
				c.Notef("logged", "%v %v", logged("apply request took too long"), logged("request stats"))
			}, flags...)
		})
	}
}

// logFiles are the files of a write-ahead log in a folder.
func logFiles(c *Case, folder string) int {
	found, err := filepath.Glob(filepath.Join(folder, "*.wal"))
	if err != nil {
		c.Fatal(err)
	}
	return len(found)
}

func TestTheLogIsKeptWhereTheFlagSays(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		there, beside := logFiles(c, c.Server.DataDir+"-log"), logFiles(c, filepath.Join(c.Server.DataDir, "member", "wal"))
		c.Notef("files of the log", "in the folder of the flag %v, in the data directory %v", there > 0, beside > 0)
		c.Server.Kill()
		c.Server.Restart(c)
		c.Reconnect()
		c.Everything("after a kill")
	}, "--wal-dir=<data>-log")
}

// metric is the value of a line of /metrics without labels.
func metric(c *Case, name string) int {
	_, body := request(c, "GET", "/metrics")
	for line := range strings.Lines(body) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				c.Fatal(err)
			}
			return int(number)
		}
	}
	c.Fatalf("no metric %s", name)
	return 0
}

func TestNothingIsSyncedWhenTheFlagSaysSo(t *testing.T) {
	for name, flags := range map[string][]string{"as usual": nil, "unsafe": {"--unsafe-no-fsync"}} {
		t.Run(name, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				synced := func() int { return metric(c, "etcd_disk_wal_fsync_duration_seconds_count") }
				before := synced()
				for range 20 {
					c.Put("a", "1")
				}
				c.Notef("syncs of the log", "one for each put %v, none %v", synced() >= before+20, synced() == before)
			}, flags...)
		})
	}
}

func TestACompactionGoesInBatchesWithRestsAsTheFlagsSay(t *testing.T) {
	for name, flags := range map[string][]string{"as usual": nil, "small": {"--compaction-batch-limit=100", "--compaction-sleep-interval=50ms"}} {
		t.Run(name, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				// Enough keys: what etched does at once ends with a page of its index.
				for round := range 40 {
					puts := &pb.TxnRequest{}
					for at := range 100 {
						put := &pb.PutRequest{Key: fmt.Appendf(nil, "key%d-%d", round%20, at)}
						puts.Success = append(puts.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
					}
					if _, err := c.KV.Txn(c.Context(), puts); err != nil {
						c.Fatal(err)
					}
				}
				batches := func() int { return metric(c, "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count") }
				before, began := batches(), time.Now()
				if _, err := c.KV.Compact(c.Context(), &pb.CompactionRequest{Revision: 41, Physical: true}); err != nil {
					c.Fatal(err)
				}
				took := time.Since(began)
				c.Notef("two thousand keys with two revisions each", "in ten batches %v, at least half a second %v", batches() >= before+10, took > 500*time.Millisecond)
			}, flags...)
		})
	}
}

// The mode that keeps revisions looks every five minutes only, which is for a test with a clock of its own.
func TestRevisionsOlderThanTheRetentionAreCompactedByThemselves(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for range 5 {
			c.Put("a", "1")
		}
		old := &pb.RangeRequest{Key: []byte("a"), Revision: 2}
		c.Eventually("compacted", func() bool {
			_, err := c.KV.Range(c.Context(), old)
			return err != nil
		})
		Refuse(c, "an old revision", c.KV.Range, old, codes.OutOfRange, compacted)
		c.Everything("what is left")
	}, "--auto-compaction-mode=periodic", "--auto-compaction-retention=1s")
}

func TestDebugVarsIsJsonWithTheKeysOfEtcd(t *testing.T) {
	OnBoth(t, func(c *Case) {
		answer, body := request(c, "GET", "/debug/vars")
		var values map[string]any
		if err := json.Unmarshal([]byte(body), &values); err != nil {
			c.Fatal(err)
		}
		for _, key := range []string{"cmdline", "file_descriptor_limit"} {
			c.Notef(key, "%v", values[key] != nil)
		}
		c.Note("head", answer.Status+" "+answer.Header.Get("Content-Type"))
	})
}

func TestPeerPortAnswersVersionAndMembers(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, path := range []string{"/version", "/members", "/members/", "/health", "/metrics", "/v3/kv/range", "/nope"} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				r := need(http.NewRequestWithContext(c.Context(), method, "http://"+c.Server.Peer+path, nil))
				answer, err := http.DefaultClient.Do(r)
				if err != nil {
					c.Fatal(err)
				}
				answer.Body.Close()
				c.Note(method+" "+path, answer.Status+" "+answer.Header.Get("Content-Type")+" "+answer.Header.Get("X-Etcd-Cluster-ID"))
			}
		}
	})
}
