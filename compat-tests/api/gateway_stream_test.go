package api

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	. "etched.local/compat-tests/harness"
)

// jsonStream is a streaming answer that is read line by line.
type jsonStream struct {
	c      *Case
	answer *http.Response
	lines  *bufio.Reader
}

// openStream sends all requests of a call; the answer's head comes with its first line. Go's server reads the
// whole body before it writes, so on etcd a client of HTTP/1 cannot do one after the other.
func openStream(c *Case, path string, requests io.Reader, headers ...field) *jsonStream {
	c.Helper()
	answer := open(c, "POST", path, requests, headers...)
	c.Cleanup(func() { answer.Body.Close() })
	return &jsonStream{c: c, answer: answer, lines: bufio.NewReader(answer.Body)}
}

func (s *jsonStream) read(step string) string {
	s.c.Helper()
	line, err := s.lines.ReadString('\n')
	if err != nil {
		s.c.Fatalf("%s: %v after %q", step, err, line)
	}
	return line
}

// line notes the next line.
func (s *jsonStream) line(step string) {
	s.c.Helper()
	s.c.Note(step, tidy(s.read(step)))
}

func watchers(c *Case) string {
	_, body := request(c, "GET", "/metrics")
	for _, line := range strings.Split(body, "\n") {
		if strings.HasPrefix(line, "etcd_debugging_mvcc_watcher_total ") {
			return line
		}
	}
	return ""
}

func TestGatewayWatchesLineByLine(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		s := openStream(c, "/v3/watch",
			strings.NewReader(`{"create_request":{"key":"YQ==","range_end":"eg==","start_revision":1,"prev_kv":true}}`))
		c.Note("head", head(s.answer))
		s.line("created")
		s.line("what was before")
		c.Put("a", "<2&>")
		s.line("put")
		c.Delete("a")
		s.line("delete")
		c.Note("watchers", watchers(c))
		s.answer.Body.Close()
		c.Eventually("the client's leaving ends the watch", func() bool { return strings.HasSuffix(watchers(c), " 0") })
	})
}

func TestGatewayTakesManyRequestsOfOneWatch(t *testing.T) {
	OnBoth(t, func(c *Case) {
		s := openStream(c, "/v3/watch", strings.NewReader(
			`{"create_request":{"key":"YQ==","watch_id":"9","filters":["NOPUT"]}} {"createRequest":{"key":"YQ==","watch_id":9}}`+
				"\n"+`{}{"progressRequest":{}}{"create_request":{"key":"Yg==","start_revision":"-5"}}`+
				`{"cancel_request":{"watch_id":9}}{"cancel_request":{"watch_id":77}}{"create_request":{"key":"Yw==","watchId":5}} x`))
		// The progress comes between these, as it happens.
		for range 5 {
			line := s.read("created or canceled")
			for !strings.Contains(line, `"created"`) && !strings.Contains(line, `"canceled"`) {
				line = s.read("created or canceled")
			}
			c.Note("answer", tidy(line))
		}
		c.Put("c", "1")
		for {
			if line := s.read("event"); strings.Contains(line, `"events"`) {
				c.Note("event", tidy(line))
				return
			}
		}
	})
}

func TestGatewayWatchOfCompactedHistoryIsCanceledWithItsRevision(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for i := range 3 {
			c.Put("a", fmt.Sprint(i))
		}
		c.Note("compact", post(c, "/v3/kv/compaction", `{"revision":"4"}`))
		s := openStream(c, "/v3/watch", strings.NewReader(`{"create_request":{"key":"YQ==","start_revision":2}}{"create_request":{"key":"Yg=="}}`))
		s.line("created")
		for range 2 {
			line := s.read("the second one, and the end of the first")
			c.NoteUnder(fmt.Sprint("canceled: ", strings.Contains(line, `"canceled"`)), tidy(line))
		}
		c.Put("b", "1")
		s.line("the stream goes on")
	})
}

func TestGatewayWatchesEndWhenTheirClientGoes(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for range 20 {
			s := openStream(c, "/v3/watch", strings.NewReader(`{"create_request":{"key":"YQ=="}}`))
			s.read("created")
			s.answer.Body.Close()
		}
		c.Eventually("no watcher is left", func() bool { return strings.HasSuffix(watchers(c), " 0") })
	})
}

func TestGatewayStreamsBothWaysAtOnceOnEtched(t *testing.T) {
	OnBoth(t, func(c *Case) {
		if c.Server.Real() {
			return // see openStream
		}
		requests, send := io.Pipe()
		c.Cleanup(func() { send.Close() })
		ask := func(text string) {
			if _, err := io.WriteString(send, text); err != nil {
				c.Fatal(err)
			}
		}
		go io.WriteString(send, `{"create_request":{"key":"YQ=="}}`)
		s := openStream(c, "/v3/watch", requests)
		s.read("created")
		ask(`{"progre`)
		ask(`ssRequest":{}} `)
		if line := s.read("progress"); strings.Contains(line, "events") || !strings.Contains(line, "header") {
			c.Errorf("no progress: %s", line)
		}
		c.Put("a", "1")
		if line := s.read("put"); !strings.Contains(line, `"kv":{"key":"YQ=="`) {
			c.Errorf("no event: %s", line)
		}
		// The client leaves while its side is open.
		s.answer.Body.Close()
		c.Eventually("no watcher is left", func() bool { return strings.HasSuffix(watchers(c), " 0") })
	})
}

func TestGatewayWatchEndsByItsTimeoutWithALine(t *testing.T) {
	OnBoth(t, func(c *Case) {
		body := `{"create_request":{"key":"YQ=="}}`
		answer := post(c, "/v3/watch", body, field{Name: "Grpc-Timeout", Value: "300m"})
		// etcd's own client hears of the timeout or of the reset that comes with it, as it happens.
		answer = strings.Replace(answer, "stream terminated by RST_STREAM with error code: CANCEL", "context deadline exceeded", 1)
		c.Note("watch", answer)
	})
}

func TestGatewayRenewsLeasesAsLongAsRequestsCome(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Grant(7, 600)
		for _, body := range []string{
			`{"ID":7}`, `{"ID":7}{"ID":8}`, ``, `{}`, `x`, `{"ID":7} x`, `{"ID":7}{"ID":true}{"ID":7}`, `{"ID":7`, "\n\n{\"ID\":\n7}\n\n",
		} {
			c.Note(short(body), post(c, "/v3/lease/keepalive", body))
		}
	})
}

func TestGatewayLeavesTheConnectionUsable(t *testing.T) {
	OnBoth(t, func(c *Case) {
		request := func(path, body string) string {
			return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
		}
		chunked := "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"8\r\n{\"key\":\"\r\n4\r\nYQ==\r\n2\r\n\"}\r\n0\r\n\r\n"
		text := say(c, request("/v3/kv/put", `{"key":"YQ==","value":"MQ=="} and more`)+request("/v3/kv/range", `{"key":5}`)+
			request("/v3/lease/keepalive", `{"ID":1}`)+chunked+
			"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", true)
		for _, part := range strings.Split(text, "HTTP/1.1 ")[1:] {
			c.Note("answer", part[:3]+fmt.Sprint(strings.Contains(part, `"etcdserver"`), strings.Contains(part, `"kvs"`)))
		}
	})
}

func TestGatewayAnswersHttp10(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, r := range []struct{ path, body string }{{"/v3/kv/range", `{"key":"YQ=="}`}, {"/v3/lease/keepalive", `{"ID":1}`}} {
			answer := say(c, fmt.Sprintf("POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", r.path, len(r.body), r.body), true)
			first, _, _ := strings.Cut(answer, "\r\n")
			_, body, _ := strings.Cut(answer, "\r\n\r\n")
			c.Note(r.path, first+"\n"+tidy(body))
		}
	})
}
