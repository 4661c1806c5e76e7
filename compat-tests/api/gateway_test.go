package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	. "etched.local/compat-tests/harness"
)

// gatewayHeaders are what a client of the JSON gateway can depend on.
var gatewayHeaders = []string{"Content-Type", "Grpc-Metadata-Content-Type", "Www-Authenticate", "Location"}

// own is what is each server's own, wherever it stands in an answer.
var own = regexp.MustCompile(`"(raft_term|raftTerm|dbSize|dbSizeInUse)":"\d+"`)

// post sends a body to a path of the gateway and gives what came back as one text.
func post(c *Case, path, body string, headers ...field) string {
	c.Helper()
	return send(c, "POST", path, strings.NewReader(body), headers...)
}

func send(c *Case, method, path string, body io.Reader, headers ...field) string {
	c.Helper()
	answer := open(c, method, path, body, headers...)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	if len(text) > smallAnswer || method == "HEAD" {
		return front(answer) + "\n" + tidy(string(text))
	}
	return head(answer) + "\n" + tidy(string(text))
}

// open sends a request and gives the answer as soon as its head is there.
func open(c *Case, method, path string, body io.Reader, headers ...field) *http.Response {
	c.Helper()
	r, err := http.NewRequestWithContext(c.Context(), method, c.Server.URL()+path, body)
	if err != nil {
		c.Fatal(err)
	}
	for _, header := range headers {
		r.Header.Set(header.Name, header.Value)
	}
	transport := &http.Transport{DisableCompression: true}
	c.Cleanup(transport.CloseIdleConnections)
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	answer, err := client.Do(r)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

// smallAnswer is up to where Go's server finds out by itself how long an answer is.
const smallAnswer = 2000

// head is the status line, the headers and whether the length is known before the body.
func head(answer *http.Response) string {
	kind := "chunked"
	if answer.ContentLength >= 0 {
		kind = "with its length"
	}
	return front(answer) + "\n" + kind
}

func front(answer *http.Response) string {
	lines := []string{answer.Status}
	for _, name := range gatewayHeaders {
		for _, value := range answer.Header.Values(name) {
			lines = append(lines, name+": "+value)
		}
	}
	return strings.Join(lines, "\n")
}

// tidy takes out of every line of JSON the spaces that Go's library puts there in some builds, and what is each
// server's own.
func tidy(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		var compact bytes.Buffer
		if json.Compact(&compact, []byte(line)) == nil {
			line = compact.String()
		}
		lines[i] = own.ReplaceAllString(line, `"$1":"..."`)
	}
	return strings.Join(lines, "\n") + "<end>"
}

func TestGatewayAnswersEveryRoute(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, r := range []struct{ path, body string }{
			{"kv/put", `{"key":"YQ==","value":"MQ=="}`},
			{"kv/put", `{"key":"YQ==","value":"Mg==","prev_kv":true}`},
			{"kv/put", `{"key":"Yg==","value":"Mg=="}`},
			{"kv/range", `{"key":"YQ==","range_end":"eg=="}`},
			{"kv/range", `{"key":"YQ==","rangeEnd":"eg==","limit":1,"sort_order":"DESCEND","sortTarget":"MOD"}`},
			{"kv/range", `{"key":"YQ==","range_end":"eg==","count_only":true}`},
			{"kv/range", `{"key":"bm9wZQ=="}`},
			{"kv/txn", `{"compare":[{"key":"YQ==","target":"VALUE","value":"Mg=="},{"key":"YQ==","result":"GREATER","target":"VERSION","version":"1"}],
				"success":[{"request_put":{"key":"Yw==","value":"Yw=="}},{"requestRange":{"key":"YQ=="}},
				{"requestTxn":{"success":[{"requestDeleteRange":{"key":"Yg==","prevKv":true}}]}}],
				"failure":[{"requestRange":{"key":"Yg=="}}]}`},
			{"kv/txn", `{"compare":[{"key":"YQ==","target":"CREATE","createRevision":0}],"failure":[{"requestRange":{"key":"YQ=="}}]}`},
			{"kv/deleterange", `{"key":"YQ==","range_end":"AA==","prev_kv":true}`},
			{"kv/compaction", `{"revision":"3","physical":true}`},
			{"lease/grant", `{"ID":"7","TTL":600}`},
			{"kv/put", `{"key":"bA==","lease":"7"}`},
			{"lease/keepalive", `{"ID":"7"}`},
			{"lease/leases", `{}`},
			{"kv/lease/leases", ``},
			{"lease/revoke", `{"ID":7}`},
			{"lease/timetolive", `{"ID":7,"keys":true}`},
			{"kv/lease/timetolive", `{"ID":"7"}`},
			{"lease/grant", `{"ID":"8","TTL":600}`},
			{"kv/lease/revoke", `{"ID":"8"}`},
			{"cluster/member/list", `{}`},
			{"maintenance/alarm", `{}`},
			{"maintenance/alarm", `{"action":"ACTIVATE","memberID":"0","alarm":"NOSPACE"}`},
			{"kv/put", `{"key":"YQ==","value":"MQ=="}`},
			{"maintenance/alarm", `{"action":"DEACTIVATE","alarm":"NOSPACE"}`},
			{"maintenance/defragment", `{}`},
			{"maintenance/hashkv", `{}`},
			{"maintenance/transfer-leadership", `{"targetID":"5"}`},
		} {
			c.Note(r.path, post(c, "/v3/"+r.path, r.body))
		}
		// The index of the log and the sizes of the store are each server's own.
		status := post(c, "/v3/maintenance/status", `{}`)
		c.Note("maintenance/status", regexp.MustCompile(`"(raft\w*Index|dbSizeQuota)":"\d+"`).ReplaceAllString(status, `"$1":"..."`))
		hash := post(c, "/v3/maintenance/hash", `{}`)
		c.Note("maintenance/hash", regexp.MustCompile(`"hash":\d+`).ReplaceAllString(hash, `"hash":...`))
	})
}

// Each service has steps of its own: a line of differences.txt goes when its service comes.
func TestGatewayReachesServicesThatCameLater(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, r := range []struct{ path, body string }{
			{"auth/status", `{}`},
			{"auth/enable", `{}`},
			{"auth/user/add", `{"name":"root","password":"secret"}`},
			{"auth/user/add", `{"name":"alice","options":{"no_password":true}}`},
			{"auth/user/add", `{"name":"alice","password":"a"}`},
			{"auth/user/list", `{}`},
			{"auth/role/add", `{"name":"root"}`},
			{"auth/role/add", `{"name":"reader"}`},
			{"auth/role/grant", `{"name":"reader","perm":{"permType":"READWRITE","key":"YQ==","range_end":"eg=="}}`},
			{"auth/role/get", `{"role":"reader"}`},
			{"auth/role/list", `{}`},
			{"auth/user/grant", `{"user":"root","role":"root"}`},
			{"auth/user/grant", `{"user":"alice","role":"reader"}`},
			{"auth/user/get", `{"name":"alice"}`},
			{"auth/user/changepw", `{"name":"root","password":"secret2"}`},
			{"auth/user/revoke", `{"name":"alice","role":"reader"}`},
			{"auth/user/delete", `{"name":"alice"}`},
			{"auth/role/revoke", `{"role":"reader","key":"YQ==","rangeEnd":"eg=="}`},
			{"auth/role/delete", `{"role":"reader"}`},
			{"auth/disable", `{}`},
			{"maintenance/downgrade", `{"action":"VALIDATE","version":"3.6"}`},
			{"maintenance/downgrade", `{"action":"CANCEL"}`},
			{"cluster/member/remove", `{"ID":"5"}`},
			{"cluster/member/promote", `{"ID":"5"}`},
			{"cluster/member/add", `{"peerURLs":["no url"]}`},
			{"cluster/member/update", `{"ID":"5","peerURLs":["http://127.0.0.1:1"]}`},
		} {
			service, _, _ := strings.Cut(r.path, "/")
			c.Note(service+": "+r.path, post(c, "/v3/"+r.path, r.body))
		}
	})
}

// tokenOf asks for a token of a user.
func tokenOf(c *Case, name, password string) string {
	c.Helper()
	request := fmt.Sprintf(`{"name":%q,"password":%q}`, name, password)
	body := open(c, "POST", "/v3/auth/authenticate", strings.NewReader(request)).Body
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		c.Fatal(err)
	}
	var answer struct{ Token string }
	if err := json.Unmarshal(text, &answer); err != nil || answer.Token == "" {
		c.Fatalf("no token: %s", text)
	}
	return answer.Token
}

func TestGatewayKnowsItsUsersByTheirTokens(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, r := range []struct{ path, body string }{
			{"user/add", `{"name":"root","password":"r"}`}, {"user/add", `{"name":"alice","password":"a"}`},
			{"role/add", `{"name":"root"}`}, {"role/add", `{"name":"reader"}`},
			{"role/grant", `{"name":"reader","perm":{"key":"YQ==","range_end":"Yg=="}}`},
			{"user/grant", `{"user":"root","role":"root"}`}, {"user/grant", `{"user":"alice","role":"reader"}`},
			{"enable", `{}`},
		} {
			c.Note(r.path, post(c, "/v3/auth/"+r.path, r.body))
		}
		c.Note("wrong password", post(c, "/v3/auth/authenticate", `{"name":"alice","password":"b"}`))
		token := tokenOf(c, "alice", "a")
		for _, header := range []field{
			{Name: "Authorization", Value: token}, {Name: "Authorization", Value: "Bearer " + token},
			{Name: "Grpc-Metadata-Token", Value: token}, {Name: "Grpc-Metadata-Authorization", Value: token},
			{Name: "Token", Value: token}, {Name: "Authorization", Value: "Basic nobody"}, {Name: "Grpc-Metadata-Token", Value: "x.1"},
		} {
			step := header.Name + " " + strings.Replace(header.Value, token, "of alice", 1)
			c.Note(step+": read", post(c, "/v3/kv/range", `{"key":"YQ=="}`, header))
			c.Note(step+": write", post(c, "/v3/kv/put", `{"key":"YQ=="}`, header))
			c.Note(step+": renew", post(c, "/v3/lease/keepalive", `{"ID":1}`, header))
		}
		for _, path := range []string{"kv/range", "lease/keepalive", "maintenance/snapshot", "maintenance/status", "auth/user/list", "cluster/member/list"} {
			c.Note("nobody: "+path, post(c, "/v3/"+path, `{"ID":1}`))
		}
		alice := field{Name: "Authorization", Value: token}
		s := openStream(c, "/v3/watch", strings.NewReader(`{"create_request":{"key":"YQ=="}}{"create_request":{"key":"Yg=="}}`), alice)
		s.line("a watch that is allowed")
		s.line("a watch that is not")
	})
}

func TestGatewayLocksAndElects(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Grant(7, 600)
		for _, r := range []struct{ path, body string }{
			{"lock/lock", `{"name":"bA==","lease":"123"}`},
			{"lock/lock", `{"name":"bA==","lease":"7"}`},
			{"lock/unlock", `{"key":"bC83"}`},
			{"lock/unlock", `{"key":"bm9wZQ=="}`},
			{"election/leader", `{"name":"ZQ=="}`},
			{"election/proclaim", `{"value":"dg=="}`},
			{"election/resign", `{}`},
			{"election/campaign", `{"name":"ZQ==","lease":"7","value":"djE="}`},
			{"election/leader", `{"name":"ZQ=="}`},
			{"election/proclaim", `{"leader":{"name":"ZQ==","key":"ZS83","rev":"4","lease":"7"},"value":"djI="}`},
			{"election/proclaim", `{"leader":{"name":"ZQ==","key":"ZS83","rev":"5","lease":"7"},"value":"djM="}`},
		} {
			c.Note(r.path, post(c, "/v3/"+r.path, r.body))
		}
		s := openStream(c, "/v3/election/observe", strings.NewReader(`{"name":"ZQ=="} {"name":"eA=="}`))
		s.line("observed")
		c.Put("e/7", "v4")
		s.line("observed again")
		c.Everything("what all of it led to")
	})
}

func TestGatewaySendsASnapshotLineByLine(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", strings.Repeat("x", 1_000_000))
		s := openStream(c, "/v3/maintenance/snapshot", strings.NewReader(``))
		c.Note("head", head(s.answer))
		lines, bytes := 0, 0
		var last struct {
			Result struct {
				Blob    []byte
				Version string
				Left    string `json:"remaining_bytes"`
			}
		}
		for {
			line, err := s.lines.ReadBytes('\n')
			if err == io.EOF {
				break
			}
			last.Result.Left = ""
			if err := json.Unmarshal(line, &last); err != nil {
				c.Fatal(err)
			}
			lines, bytes = lines+1, bytes+len(last.Result.Blob)
		}
		c.Notef("all of it", "lines: %t, bytes: %t", lines > 10, bytes > 1_000_000)
		c.Notef("the last line", "%d bytes, left %q, version %q", len(last.Result.Blob), last.Result.Left, last.Result.Version)
		c.Note("no JSON", post(c, "/v3/maintenance/snapshot", `x`))
	})
}

func TestGatewayTakesWhatGosLibraryTakesAndRefusesTheRest(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		for _, body := range []string{
			``, ` `, `{}`, `[]`, `null`, `5`, `"x"`, `true`, `{`, `}`, `{]`, `{"key"`, `{"key"}`, `{"key":`, `{"key":}`,
			`{"key":"YQ=="`, `{"key":"YQ==",}`, `{"key":"YQ=="}}`, `{"key":"YQ=="} x`, `{"key":"YQ=="}{"key":"Yg=="}`,
			`{key:"YQ=="}`, `{'key':"YQ=="}`, `{"key":"YQ==" "limit":1}`, `{"key":tru}`, `{"key":nul}`, `{"key":-}`,
			`{"key":"YQ==","limit":01}`, `{"key":"YQ==","limit":1.}`, `{"key":"YQ==","limit":1e}`,
			"{\"key\":\"YQ==\n\"}", `{"key":"\x"}`, `{"key":"\u00zz"}`, `{"key":"\u0059Q=="}`, `{"k\u0065y":"YQ=="}`,
			`{"x":"\ud83d\ude00","key":"YQ=="}`, `{"x":"\ud83d","key":"YQ=="}`, `{"x":"\ude00"}`, `{"x":"\ud83d"}`,
			"{\"x\":\"\xff\"}", "{\"x\":\"\xc3\"}", "\xff", "\x00", `{"é":1,"key":5}`, "\n\n {\n\"key\": 5}",
			`{"key":5}`, `{"key":null}`, `{"key":{}}`, `{"key":[]}`, `{"key":["YQ=="]}`, `{"key":true}`, `{"key":"*"}`,
			`{"key":"YQ"}`, `{"key":"YQ="}`, `{"key":"Y"}`, `{"key":"YR=="}`, `{"key":"YQ==\n"}`, `{"key":"-_+/"}`, `{"key":"_w=="}`, `{"key":"/w"}`,
			`{"KEY":"YQ=="}`, `{"Key":"YQ=="}`, `{"":1}`, `{"[a.b]":1,"key":"YQ=="}`, `{"@type":"x","key":"YQ=="}`,
			`{"nope":{"a":[1,{"b":null}]},"key":"YQ=="}`, `{"key":"YQ==","key":"YQ=="}`, `{"range_end":"","rangeEnd":""}`,
			`{"key":"YQ==","limit":"5"}`, `{"key":"YQ==","limit":1.0}`, `{"key":"YQ==","limit":10e-1}`, `{"key":"YQ==","limit":1.5}`,
			`{"key":"YQ==","limit":"1e1"}`, `{"key":"YQ==","limit":" 1"}`, `{"key":"YQ==","limit":"1 "}`, `{"key":"YQ==","limit":""}`,
			`{"key":"YQ==","limit":"1x"}`, `{"key":"YQ==","limit":"1 x"}`, `{"key":"YQ==","limit":"0x1"}`, `{"key":"YQ==","limit":"+1"}`,
			`{"key":"YQ==","limit":9223372036854775807}`, `{"key":"YQ==","limit":9223372036854775808}`, `{"key":"YQ==","limit":-1}`,
			`{"key":"YQ==","limit":true}`, `{"key":"YQ==","limit":{}}`, `{"key":"YQ==","limit":[1]}`, `{"key":"YQ==","limit":1e400}`,
			`{"key":"YQ==","keys_only":"true"}`, `{"key":"YQ==","keys_only":1}`, `{"key":"YQ==","keysOnly":true}`,
			`{"key":"YQ==","sort_order":"NOPE"}`, `{"key":"YQ==","sort_order":"descend"}`, `{"key":"YQ==","sort_order":1}`, `{"key":"YQ==","sort_order":"1"}`,
			`{"key":"YQ==","sort_order":99}`, `{"key":"YQ==","sort_order":2147483648}`, `{"key":"YQ==","sort_order":1.5}`, `{"key":"YQ==","sort_order":true}`,
		} {
			c.Note(short(body), post(c, "/v3/kv/range", body))
		}
		for _, r := range []struct{ path, body string }{
			{"kv/txn", `{"compare":[{"key":"YQ==","version":1,"lease":2}]}`},
			{"kv/txn", `{"compare":[{"key":"YQ==","version":null,"lease":0,"target":"LEASE"}]}`},
			{"kv/txn", `{"success":[{"requestPut":{"key":"YQ=="},"requestRange":{"key":"YQ=="}}]}`},
			{"kv/txn", `{"success":[null]}`}, {"kv/txn", `{"success":{}}`}, {"kv/txn", `{"success":null}`}, {"kv/txn", `{"success":[{}]}`},
			{"kv/txn", `{"success":[1]}`}, {"kv/txn", `{"success":[[]]}`}, {"kv/txn", `{"compare":[{"result":"NOT_EQUAL","key":"YQ==","value":""}]}`},
			{"lease/grant", `{"ttl":"100","ID":"9"}`}, {"lease/grant", `{"TTL":"-1","ID":"10"}`}, {"lease/grant", `{"TTL":"9999999999999"}`},
			{"lease/revoke", `{"ID":"99"}`}, {"maintenance/alarm", `{"memberID":-1}`}, {"maintenance/alarm", `{"memberID":18446744073709551616}`},
			{"maintenance/hashkv", `{"revision":100}`}, {"kv/compaction", `{"revision":100}`}, {"kv/compaction", `{"revision":1}`},
			{"cluster/member/list", `{"linearizable":true}`},
		} {
			c.Note(r.path+" "+short(r.body), post(c, "/v3/"+r.path, r.body))
		}
		c.Everything("what all of it led to")
	})
}

// short is a text that fits into the name of a step.
func short(text string) string { return fmt.Sprintf("%.80q", text) }

func TestGatewayRefusesTransactionsNestedTooDeep(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, levels := range []int{2, 100, 130, 280} {
			body := strings.Repeat(`{"success":[{"requestTxn":`, levels) + "{}" + strings.Repeat("}]}", levels)
			answer := post(c, "/v3/kv/txn", body)
			c.Notef(fmt.Sprint(levels, " levels"), "%.300s", answer)
		}
		// Below this there are other words for it, but no other code.
		body := strings.Repeat(`{"success":[{"requestTxn":`, 2000) + "{}" + strings.Repeat("}]}", 2000)
		c.Notef("2000 levels", "%s", strings.SplitN(post(c, "/v3/kv/txn", body), "\n", 2)[0])
		c.Note("arrays without end", post(c, "/v3/kv/txn", strings.Repeat("[", 20_000)))
	})
}

func TestGatewayRoutesGoByPathAndMethod(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			c.Note(method, send(c, method, "/v3/kv/range", nil))
		}
		for _, path := range []string{
			"/v3/", "/v3/kv", "/v3/kv/nope", "/v3/kv/range/", "/v3/kv/Range", "/v3/kv/rangestream", "/v3beta/kv/range",
			"/v3beta/nope", "/v3alpha/kv/range", "/v3beta", "/v2/keys", "/v3/kv/range?key=YQ==", "/v3/kv/range:x", "/v3x",
		} {
			c.Note("POST "+path, post(c, path, `{"key":"YQ=="}`))
		}
		for _, method := range []string{"GET", "HEAD", "POST"} {
			c.Note(method+" /v3", send(c, method, "/v3", nil))
			c.Note(method+" /v3?a=b&c", send(c, method, "/v3?a=b&c", nil))
		}
		for _, kind := range []string{"", "application/json", "text/plain", "application/x-www-form-urlencoded", "application/grpc"} {
			c.Note("type "+kind, post(c, "/v3/kv/range", `{"key":"YQ=="}`, field{Name: "Content-Type", Value: kind}, field{Name: "Accept", Value: "text/html"}))
		}
	})
}

func TestGatewayTakesMetadataAndTimeoutFromHeaders(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, header := range []field{
			{Name: "Grpc-Timeout", Value: "1n"}, {Name: "Grpc-Timeout", Value: "0n"}, {Name: "Grpc-Timeout", Value: "-1S"},
			{Name: "Grpc-Timeout", Value: "5x"}, {Name: "Grpc-Timeout", Value: "5"}, {Name: "Grpc-Timeout", Value: "S"},
			{Name: "Grpc-Timeout", Value: "10S"}, {Name: "Grpc-Timeout", Value: "1234567890S"}, {Name: "Grpc-Timeout", Value: ""},
			{Name: "Grpc-Metadata-Hasleader", Value: "true"}, {Name: "Grpc-Metadata-X-Bin", Value: "AAE="},
			{Name: "Grpc-Metadata-X-Bin", Value: "!"}, {Name: "Grpc-Metadata-Grpc-Encoding", Value: "gzip"},
			{Name: "Grpc-Metadata-Content-Type", Value: "text/plain"}, {Name: "Grpc-Metadata-X", Value: "é"},
			{Name: "Grpc-Metadata-Client-Api-Version", Value: "3.7.1"}, {Name: "Token", Value: "nobody's"},
			{Name: "Authorization", Value: "Bearer nobody's"}, {Name: "Grpc-Metadata-Token", Value: "nobody's"},
		} {
			c.Note(header.Name+" "+header.Value, post(c, "/v3/kv/range", `{"key":"YQ=="}`, header))
		}
		c.Note("a stream", post(c, "/v3/lease/keepalive", `{"ID":1}`, field{Name: "Grpc-Timeout", Value: "1n"}))
		c.Note("a stream with a bad timeout", post(c, "/v3/lease/keepalive", `{"ID":1}`, field{Name: "Grpc-Timeout", Value: "5x"}))
	})
}

func TestGatewayKeepsToTheSizesOfGrpc(t *testing.T) {
	OnBoth(t, func(c *Case) {
		value := func(bytes int) string { return strings.Repeat("QUFB", bytes/3) }
		for _, r := range []struct {
			name  string
			bytes int
		}{{"fits", 1_500_000}, {"above max-request-bytes", 1_600_000}, {"above what gRPC takes", 3_000_000}} {
			c.Note(r.name, post(c, "/v3/kv/put", `{"key":"YQ==","value":"`+value(r.bytes)+`"}`))
			// White space is no part of the message.
			c.Note(r.name+" with white space", post(c, "/v3/kv/put", strings.Repeat(" \n", 1_000_000)+`{"key":"YQ==","value":"`+value(r.bytes)+`"}`))
		}
		for i := range 6 {
			c.Put(fmt.Sprint("large", i), strings.Repeat(fmt.Sprint(i), 1_000_000))
		}
		answer := open(c, "POST", "/v3/kv/range", strings.NewReader(`{"key":"bGFyZ2U=","range_end":"bGFyZ2Y="}`))
		defer answer.Body.Close()
		var all struct {
			Kvs   []struct{ Key, Value []byte }
			Count string
		}
		if err := json.NewDecoder(answer.Body).Decode(&all); err != nil {
			c.Fatal(err)
		}
		c.Notef("6 MB", "%s, count %s, %d keys, the last %s of %d bytes", answer.Status, all.Count, len(all.Kvs),
			all.Kvs[5].Key, len(all.Kvs[5].Value))
	})
}

func TestGatewayCanBeSwitchedOff(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, path := range []string{"/v3/kv/range", "/v3beta/kv/range", "/v3", "/v3/", "/version"} {
			c.Note("POST "+path, post(c, path, `{"key":"YQ=="}`))
		}
	}, "--enable-grpc-gateway=false")
}

func TestGatewayStandsBehindTheFilterOfHttp(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for _, header := range []field{{Name: "Origin", Value: "http://a.example:80"}, {Name: "Origin", Value: "http://b.example:80"}} {
			answer := open(c, "POST", "/v3/kv/range", strings.NewReader(`{"key":"YQ=="}`), header)
			answer.Body.Close()
			c.Notef(header.Value, "%s %q", answer.Status, answer.Header.Values("Access-Control-Allow-Origin"))
		}
		c.Note("another host", say(c, "POST /v3/kv/range HTTP/1.1\r\nHost: b.example\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", true)[:31])
	}, "--cors=http://a.example:80", "--host-whitelist=127.0.0.1")
}
