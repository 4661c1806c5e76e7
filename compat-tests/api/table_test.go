package api

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	. "etched.local/compat-tests/harness"
)

// tableOfMetrics is the state of each metric, by docs/compat.tsv.
func tableOfMetrics(t *testing.T) map[string]string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(here), "..", "..", "docs", "compat.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	_, rows, found := strings.Cut(string(text), "\n[metrics] ")
	if !found {
		t.Fatal("docs/compat.tsv has no table of metrics")
	}
	states := map[string]string{}
	for _, row := range strings.Split(rows, "\n")[1:] {
		cells := strings.Split(row, "\t")
		if strings.HasPrefix(row, "[") {
			break
		}
		if len(cells) < 3 || strings.HasPrefix(row, "#") {
			continue
		}
		for _, name := range strings.Split(cells[1], ", ") {
			states[strings.Trim(name, "`")] = cells[2]
		}
	}
	return states
}

// What etcd shows has a row; what etched shows has a row that says yes; what has a row that says yes and is
// on etcd is on etched. Some come only after their first sample, which not all have in here.
func TestTheTableOfMetricsIsWhatTheServersShow(t *testing.T) {
	states := tableOfMetrics(t)
	etcd := map[string]bool{}
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		c.Everything("range")
		fetch(c, "GET", "/health")
		_, body := request(c, "GET", "/metrics")
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewBufferString(body))
		if err != nil {
			c.Fatal(err)
		}
		for name := range families {
			state, known := states[name]
			if !known {
				c.Errorf("%s has no row in docs/compat.tsv", name)
			} else if !c.Server.Real() && !strings.HasPrefix(state, "yes") {
				c.Errorf("%s is there, but its row says %q", name, state)
			}
			if c.Server.Kind == Etcd {
				etcd[name] = true
			}
		}
		for name, state := range states {
			if etcd[name] && strings.HasPrefix(state, "yes") && families[name] == nil {
				c.Errorf("%s is on etcd only, but its row says yes", name)
			}
		}
	}, "--metrics=extensive")
}
