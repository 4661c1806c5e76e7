package api

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	. "etched.local/compat-tests/harness"
)

// mixinMetrics are the metrics that the dashboard and the alerts which come with etcd ask for.
func mixinMetrics(t *testing.T) []string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "go.etcd.io/etcd/v3").Output()
	if err != nil {
		t.Fatal(err)
	}
	// In an expression a metric is followed by its labels, by its range or by a bracket or comparison.
	name := regexp.MustCompile(`\b((?:etcd|grpc_server|process)_[a-z0-9_]+)(?:\{|\[|\s*\))`)
	found, folders := map[string]bool{}, map[string]int{}
	root := filepath.Join(strings.TrimSpace(string(dir)), "contrib", "mixin")
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".libsonnet" {
			return err
		}
		text, err := os.ReadFile(path)
		for _, match := range name.FindAllSubmatch(text, -1) {
			base := string(match[1])
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				base = strings.TrimSuffix(base, suffix)
			}
			found[base] = true
			folders[filepath.Base(filepath.Dir(path))]++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	sort.Strings(names)
	if len(names) < 15 || folders["alerts"] < 10 || folders["dashboards"] < 40 {
		t.Fatalf("the mixin asks for %v only, in %v: it is written in another way now", names, folders)
	}
	return names
}

// What only members of a cluster have is absent on both servers.
func TestEveryMetricThatEtcdsDashboardAndAlertsAskForIsThere(t *testing.T) {
	names := mixinMetrics(t)
	OnBoth(t, func(c *Case) {
		c.Put("a", "1")
		c.Everything("range")
		_, body := request(c, "GET", "/metrics")
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewBufferString(body))
		if err != nil {
			c.Fatal(err)
		}
		for _, name := range names {
			kind := "absent"
			if family := families[name]; family != nil {
				kind = strings.ToLower(family.GetType().String())
			}
			c.NoteUnder(name, kind)
		}
	}, "--metrics=extensive")
}
