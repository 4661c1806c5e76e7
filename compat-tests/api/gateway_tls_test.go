package api

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	. "etched.local/compat-tests/harness"
)

// secure is a client of the JSON gateway over TLS.
type secure struct {
	c      *Case
	client *http.Client
}

// overTLS speaks one version of HTTP, on one connection as long as that holds.
func overTLS(c *Case, config *tls.Config, http2 bool) secure {
	config.NextProtos = []string{map[bool]string{true: "h2", false: "http/1.1"}[http2]}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2, DisableCompression: true}
	c.Cleanup(transport.CloseIdleConnections)
	return secure{c, &http.Client{Transport: transport}}
}

func (s secure) open(path string, body io.Reader, headers ...field) *http.Response {
	s.c.Helper()
	r, err := http.NewRequestWithContext(s.c.Context(), "POST", "https://"+s.c.Server.Client+path, body)
	if err != nil {
		s.c.Fatal(err)
	}
	for _, header := range headers {
		r.Header.Set(header.Name, header.Value)
	}
	answer, err := s.client.Do(r)
	if err != nil {
		s.c.Fatalf("%s: %v", path, err)
	}
	s.c.Cleanup(func() { answer.Body.Close() })
	return answer
}

func (s secure) post(path, body string, headers ...field) string {
	s.c.Helper()
	answer := s.open(path, strings.NewReader(body), headers...)
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.c.Fatalf("%s: %v", path, err)
	}
	if answer.StatusCode != http.StatusOK {
		// Over TLS etcd's gRPC runs on Go's HTTP server, and whether a refusal has this one is chance there.
		answer.Header.Del("Grpc-Metadata-Content-Type")
	}
	return answer.Proto + " " + front(answer) + "\n" + tidy(string(text))
}

func TestGatewaySpeaksBothHttpVersionsOverTls(t *testing.T) {
	files, ca := newFolder(t), root("ca", p256())
	flags := append(files.serverPair(ca.sign("server", p256())), bothOnOne)
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		t.Run(name, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				s := overTLS(c, trusting(ca, nil, 0), http2)
				for _, r := range []struct{ path, body string }{
					{"/v3/kv/put", `{"key":"YQ==","value":"MQ=="}`},
					{"/v3/kv/put", `{"key":"YQ==","value":"Mg==","prev_kv":true}`},
					{"/v3/kv/range", `{"key":"YQ==","range_end":"eg=="}`},
					{"/v3/kv/txn", `{"compare":[{"key":"YQ==","target":"VALUE","value":"Mg=="}],
						"success":[{"requestRange":{"key":"YQ=="}}]}`},
					{"/v3/kv/range", `{`}, {"/v3/kv/range", `{"key":"!"}`}, {"/v3/kv/nowhere", `{}`},
					{"/v3/kv/compaction", `{"revision":"99"}`},
					{"/v3/lease/grant", `{"ID":"7","TTL":600}`}, {"/v3/lease/keepalive", `{"ID":"7"}`},
					{"/v3/cluster/member/list", `{}`},
				} {
					c.Note(r.path, s.post(r.path, r.body))
				}
				large := strings.Repeat("A", 1<<20)
				c.Note("a large value", s.post("/v3/kv/put", `{"key":"Yg==","value":"`+large+`"}`))
				answer := s.open("/v3/kv/range", strings.NewReader(`{"key":"Yg=="}`))
				body := need(io.ReadAll(answer.Body))
				c.Notef("it comes back", "%v %v", answer.Status, strings.Contains(string(body), large))
			}, flags...)
		})
	}
}

func TestGatewayStreamsOverTls(t *testing.T) {
	files, ca := newFolder(t), root("ca", p256())
	flags := append(files.serverPair(ca.sign("server", p256())), bothOnOne)
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		t.Run(name, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				s := overTLS(c, trusting(ca, nil, 0), http2)
				c.Put("a", "1")
				answer := s.open("/v3/watch", strings.NewReader(`{"create_request":{"key":"YQ==","start_revision":1,"prev_kv":true}}`))
				c.Note("head", answer.Proto+" "+front(answer))
				stream := &jsonStream{c: c, answer: answer, lines: bufio.NewReader(answer.Body)}
				stream.line("created")
				stream.line("what was before")
				c.Note("a put on the same connection", s.post("/v3/kv/put", `{"key":"YQ==","value":"Mg=="}`))
				stream.line("put")
				c.Delete("a")
				stream.line("delete")
				answer.Body.Close()
				c.Eventually("the client's leaving ends the watch", func() bool { return strings.HasSuffix(watchers(c), " 0") })
			}, flags...)
		})
	}
}

func TestGatewayOverTlsAsksForATokenNotForACertificate(t *testing.T) {
	files, ca := newFolder(t), root("ca", p256())
	flags := append(files.serverPair(ca.sign("root", p256())), "--trusted-ca-file="+files.authorities(ca),
		"--client-cert-auth", bothOnOne, "--bcrypt-cost", "4")
	OnBoth(t, func(c *Case) {
		conn := c.Server.Dial(c, grpc.WithTransportCredentials(credentials.NewTLS(trusting(ca, ca.sign("root", p256()), 0))))
		a := asker{c: c, auth: pb.NewAuthClient(conn)}
		root := a.enable()
		anything := field{Name: "Accept", Value: "*/*"}
		for name, http2 := range map[string]bool{"HTTP/1": false, "HTTP/2": true} {
			for _, user := range []string{"root", "stranger", ""} {
				s := overTLS(c, trusting(ca, ca.sign(user, p256()), 0), http2)
				get := func(step string, headers ...field) {
					c.NoteUnder(fmt.Sprintf("%s as %q: %s", name, user, step), s.post("/v3/kv/range", `{"key":"YQ=="}`, headers...))
				}
				get("no token", anything)
				get("a bad token", anything, field{Name: "Authorization", Value: "x.1"})
				get("root's token", anything, field{Name: "Authorization", Value: root.token})
				// The certificate of the server itself names root here.
				get("nothing at all")
			}
		}
	}, flags...)
}

// Node is not among what the tests need; without it this one is left out, and `run` says so.
func TestGatewayServesANodeClient(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not there: no node client is tested")
	}
	files, ca := newFolder(t), root("ca", p256())
	flags := append(files.serverPair(ca.sign("server", p256())), bothOnOne)
	trusted := files.write("root.pem", ca.pem())
	OnBoth(t, func(c *Case) {
		script := filepath.Join("..", "node", "gateway.mjs")
		text, err := exec.CommandContext(c.Context(), node, script, "https://"+c.Server.Client, trusted).CombinedOutput()
		if err != nil {
			c.Fatalf("%v\n%s", err, text)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		if len(lines) < 20 {
			c.Errorf("only %d answers", len(lines))
		}
		for _, line := range lines {
			parts := strings.SplitN(line, "\t", 3)
			c.Note(parts[0], parts[1]+" "+tidy(parts[2]))
		}
	}, flags...)
}
