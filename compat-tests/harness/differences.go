package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
)

// rule is one line of differences.txt: where etched may differ from etcd, and why.
type rule struct {
	number           int
	test, step, path *regexp.Regexp
	reason           string
}

// loadRules reads the one list of known differences. Its form is told at the head of the file.
var loadRules = sync.OnceValues(func() ([]rule, error) {
	_, here, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(here), "..", "differences.txt"))
	if err != nil {
		return nil, err
	}
	var rules []rule
	for number, line := range strings.Split(string(text), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		columns := strings.Split(line, "\t")
		if len(columns) != 4 || columns[3] == "" {
			return nil, fmt.Errorf("differences.txt:%d: not four columns with a reason", number+1)
		}
		rules = append(rules, rule{number + 1, glob(columns[0]), glob(columns[1]), glob(columns[2]), columns[3]})
	}
	return rules, nil
})

// glob: `*` stands for any text, everything else for itself.
func glob(pattern string) *regexp.Regexp {
	quoted := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`)
	return regexp.MustCompile("^" + quoted + "$")
}

// allowed is the rule that this difference stands in the list by, or nil.
func allowed(rules []rule, test string, d Difference) *rule {
	for _, r := range rules {
		if r.test.MatchString(test) && r.step.MatchString(d.Step) && r.path.MatchString(d.Path) {
			return &r
		}
	}
	return nil
}
