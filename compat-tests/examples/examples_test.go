// Package examples runs etcd's own examples of clientv3 on both servers. Their sources lie in the module of etcd's
// tests; nothing of them is kept here.
package examples

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	. "etched.local/compat-tests/harness"
)

// forClusters are examples that change the members: with one member etcd loses its quorum by the first.
const forClusters = "^ExampleCluster_member(Add|AddAsLearner|Remove|Update)$"

// program is the examples as a test binary, compiled once.
var program = sync.OnceValues(func() (string, error) {
	folder, err := filepath.Abs("../../target/compat/examples")
	if err != nil {
		return "", err
	}
	module := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "go.etcd.io/etcd/tests/v3")
	module.Dir = "../common"
	dir, err := module.Output()
	if err != nil {
		return "", fmt.Errorf("the module of etcd's tests: %w", err)
	}
	sources, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "integration/clientv3/examples/example*_test.go"))
	if err != nil || len(sources) == 0 {
		return "", fmt.Errorf("no examples in %s: %w", dir, err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	for _, source := range append(sources, "testdata/main_test.go", "../go.mod", "../go.sum") {
		text, err := os.ReadFile(source)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(source)), text, 0o644); err != nil {
			return "", err
		}
	}
	binary := filepath.Join(folder, "examples.test")
	build := exec.Command("go", "test", "-mod=mod", "-c", "-o", binary, ".")
	build.Dir = folder
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, said)
	}
	return binary, nil
})

// The examples of one list of members expect three; all others pass.
func TestTheExamplesOfClientv3EndAlike(t *testing.T) {
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	verdict := regexp.MustCompile(`(?m)^--- (PASS|FAIL): (\S+)`)
	OnBoth(t, func(c *Case) {
		run := exec.CommandContext(c.T.Context(), binary, "-test.run=^Example", "-test.skip="+forClusters, "-test.v", "-test.timeout=90s")
		run.Env = append(os.Environ(), "EXAMPLES_ENDPOINT="+c.Server.Client)
		run.Dir = c.TempDir()
		said, _ := run.CombinedOutput()
		passed := 0
		for _, match := range verdict.FindAllStringSubmatch(string(said), -1) {
			c.NoteUnder(match[2], match[1])
			if match[1] == "PASS" {
				passed++
			}
		}
		if passed < 20 {
			c.Errorf("only %d examples passed:\n%s", passed, said)
		}
	}, "--watch-progress-notify-interval=200ms")
}
