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
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"

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
