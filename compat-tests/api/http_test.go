package api

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	. "etched.local/compat-tests/harness"
)

// shownHeaders are the ones a client can depend on.
var shownHeaders = []string{
	"Content-Type", "X-Content-Type-Options", "Allow", "Location",
	"Access-Control-Allow-Methods", "Access-Control-Allow-Origin", "Access-Control-Allow-Headers",
}

func request(c *Case, method, path string, headers ...field) (*http.Response, string) {
	c.Helper()
	r, err := http.NewRequestWithContext(c.Context(), method, c.Server.URL()+path, nil)
	if err != nil {
		c.Fatal(err)
	}
	for _, header := range headers {
		r.Header.Set(header.Name, header.Value)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(r)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		c.Fatal(err)
	}
	return answer, string(body)
}

// fetch is the status, the shown headers and the body as one text.
func fetch(c *Case, method, path string, headers ...field) string {
	c.Helper()
	answer, body := request(c, method, path, headers...)
	lines := []string{answer.Proto + " " + answer.Status}
	for _, name := range shownHeaders {
		for _, value := range answer.Header.Values(name) {
			lines = append(lines, name+": "+value)
		}
	}
	return strings.Join(append(lines, strings.Split("body: "+body+"<end>", "\n")...), "\n")
}

func TestHttpEndpointsAnswerEveryMethod(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Eventually("the cluster version is known", func() bool {
			_, body := request(c, "GET", "/version")
			return strings.Contains(body, `"etcdcluster":"3.7.0","storage":"3.7.0"`)
		})
		for _, path := range []string{
			"/version", "/health", "/livez", "/readyz", "/livez/serializable_read",
			"/readyz/data_corruption", "/readyz/serializable_read", "/readyz/linearizable_read", "/readyz/non_learner",
			"/readyz/nope", "/livez/nope", "/livez/", "/readyz/", "/health/", "/version/",
			"/", "/nope", "/v2/keys", "/config", "/members", "/raft", "/debug/pprof/",
			"/health?serializable=true", "/health?serializable=yes", "/health?exclude=NOSPACE",
			"/livez?verbose", "/livez?verbose=0", "/livez?exclude=serializable_read", "/livez?exclude=nope",
			"/livez/serializable_read?verbose", "/livez/serializable_read?exclude=serializable_read",
		} {
			for _, method := range []string{"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"} {
				c.Note(method+" "+path, fetch(c, method, path))
			}
		}
		verbose := func(path string) {
			answer, body := request(c, "GET", path)
			checks := strings.Split(body, "\n") // their order is random on etcd
			sort.Strings(checks)
			c.Note(path, answer.Status+"\n"+strings.Join(checks, "\n"))
		}
		verbose("/readyz?verbose")
		verbose("/readyz?verbose&exclude=linearizable_read&exclude=data_corruption")
	})
}

func TestHealthFollowsTheAlarms(t *testing.T) {
	OnBoth(t, func(c *Case) {
		probe := func(step string) {
			c.Helper()
			for _, path := range []string{
				"/health", "/health?exclude=NOSPACE", "/health?exclude=nospace", "/health?exclude=CORRUPT",
				"/health?exclude=NOSPACE&exclude=CORRUPT", "/health?serializable=true",
				"/livez", "/readyz/data_corruption", "/readyz/serializable_read", "/readyz/linearizable_read",
				"/readyz?exclude=data_corruption",
			} {
				c.Note(step+" "+path, fetch(c, "GET", path))
			}
			_, body := request(c, "GET", "/readyz")
			checks := strings.Split(body, "\n")
			sort.Strings(checks)
			c.Note(step+" /readyz", strings.Join(checks, "\n"))
		}
		raised(c, pb.AlarmType_NOSPACE)
		probe("NOSPACE")
		raised(c, pb.AlarmType_CORRUPT)
		cleared(c, pb.AlarmType_NOSPACE)
		probe("CORRUPT")
		cleared(c, pb.AlarmType_CORRUPT)
		probe("none")
	})
}

func TestHttpHeadersOfOtherOriginsAndVersions(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Note("origin", fetch(c, "GET", "/health", field{Name: "Origin", Value: "http://else.example"}))
		c.Note("preflight", fetch(c, "OPTIONS", "/health", field{Name: "Origin", Value: "http://else.example"}, field{Name: "Access-Control-Request-Method", Value: "POST"}))
		c.Note("upgrade to h2c is ignored", fetch(c, "GET", "/health", field{Name: "Upgrade", Value: "h2c"}, field{Name: "Connection", Value: "Upgrade, HTTP2-Settings"}, field{Name: "HTTP2-Settings", Value: "AAMAAABkAAQAAP__"}))
		for _, r := range []struct{ name, text string }{
			{"HTTP/1.0", "GET /health HTTP/1.0\r\n\r\n"},
			{"HTTP/1.0 with host", "GET /health HTTP/1.0\r\nHost: x\r\n\r\n"},
			{"HTTP/1.1", "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"},
			{"HTTP/1.1 without host", "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n"},
			{"negative length", "POST /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: -1\r\n\r\n"},
			{"space in a header name", "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nBad Header: y\r\n\r\n"},
		} {
			head, body, _ := strings.Cut(say(c, r.text, true), "\r\n\r\n")
			status := strings.SplitN(head, "\r\n", 2)[0]
			if strings.Contains(status, " 400 ") {
				// Which words say so is the library's business.
				status, body = status[:len("HTTP/1.1 400")], ""
			}
			c.Note(r.name, status+"\n"+body)
		}
		h2 := exchange(c, grpcFields("/version", field{Name: ":method", Value: "GET"}, field{Name: "content-type"}, field{Name: "te"}), nil)
		c.Note("HTTP/2 without gRPC", h2)
	})
}

func TestALongHeaderOfHttp1IsRefused(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Note("100 KiB", fetch(c, "GET", "/health", field{Name: "X-Large", Value: strings.Repeat("h", 100<<10)}))
		answer := say(c, "GET /health HTTP/1.1\r\nHost: x\r\nX-Large: "+strings.Repeat("h", 1<<20+8<<10)+"\r\n\r\n", true)
		c.Note("above 1 MiB", strings.SplitN(answer, "\r\n", 2)[0])
		stillServes(c)
	})
}

func TestMetricsAreReadByPrometheusAndHaveEtcdsNames(t *testing.T) {
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		c.Everything("range")
		c.Delete("a")
		c.Grant(5, 600)
		s := c.OpenWatch()
		s.Create("watch", watchAll())
		answer, body := request(c, "GET", "/metrics")
		c.Note("status", answer.Status+"\n"+answer.Header.Get("Content-Type"))
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewBufferString(body))
		if err != nil {
			c.Fatal(err)
		}
		for name, family := range families {
			kinds := map[string]bool{}
			for _, metric := range family.Metric {
				for _, label := range metric.Label {
					kinds[label.GetName()] = true
				}
			}
			var names []string
			for label := range kinds {
				names = append(names, label)
			}
			sort.Strings(names)
			c.NoteUnder("metric "+name, strings.ToLower(family.GetType().String())+" "+strings.Join(names, ","))
		}
		value := func(name string) float64 {
			total := 0.0
			for _, metric := range families[name].GetMetric() {
				total += metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
			}
			return total
		}
		for _, name := range []string{
			"etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_is_learner", "etcd_server_leader_changes_seen_total",
			"etcd_mvcc_put_total", "etcd_mvcc_delete_total", "etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_current_revision",
			"etcd_debugging_mvcc_watcher_total", "etcd_debugging_mvcc_watch_stream_total", "etcd_debugging_lease_granted_total",
			"etcd_server_proposals_failed_total", "etcd_server_proposals_pending", "etcd_server_quota_backend_bytes",
		} {
			if families[name] == nil {
				continue // its absence is a difference already
			}
			c.NoteUnder("value of "+name, strings.TrimSpace(expfmtNumber(value(name))))
		}
		for _, method := range []string{"POST", "HEAD"} {
			answer, _ := request(c, method, "/metrics")
			c.NoteUnder(method, answer.Status)
		}
	})
}

// What promtool says of metrics (`promtool check metrics`) it says of etched's as it says of etcd's.
func TestMetricsAreLintedAsEtcdsAre(t *testing.T) {
	etcd := map[string][]string{}
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		c.Everything("range")
		c.Grant(5, 600)
		c.OpenWatch().Create("watch", watchAll())
		_, body := request(c, "GET", "/metrics")
		problems, err := promlint.New(strings.NewReader(body)).Lint()
		if err != nil {
			c.Fatal(err)
		}
		found := map[string][]string{}
		for _, problem := range problems {
			found[problem.Metric] = append(found[problem.Metric], problem.Text)
		}
		if c.Server.Kind == Etcd {
			etcd = found
			return
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(body))
		if err != nil {
			c.Fatal(err)
		}
		for name := range families {
			slices.Sort(found[name])
			slices.Sort(etcd[name])
			if !slices.Equal(found[name], etcd[name]) {
				c.Errorf("%s: promlint says %q, of etcd's %q", name, found[name], etcd[name])
			}
		}
	}, "--metrics=extensive")
}

func expfmtNumber(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
