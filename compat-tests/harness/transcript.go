package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Step is one named observation of a body.
type Step struct {
	Name  string
	Lines []Line
}

// Transcript is all a body observed on one server, with what may differ between two runs (ids that
// the server picked, its port, the raft term it started in) replaced by names.
type Transcript struct {
	Steps []Step
	names map[string]string
	term  uint64
}

var (
	termPath = regexp.MustCompile(`(^|\.)(raft_term|raftTerm)$`)
	idPath   = regexp.MustCompile(`(?i)id$|lease|leader`)
)

// add appends a step whose place in the order is part of its name.
func (t *Transcript) add(name string, lines []Line) {
	t.addUnder(fmt.Sprintf("%02d %s", len(t.Steps)+1, t.words(name)), lines)
}

// addUnder appends a step that the other side finds by its name alone, wherever it comes.
func (t *Transcript) addUnder(name string, lines []Line) {
	kept := make([]Line, len(lines))
	for i, line := range lines {
		kept[i] = Line{line.Path, t.normal(line)}
	}
	t.Steps = append(t.Steps, Step{name, kept})
}

func (t *Transcript) normal(line Line) string {
	if termPath.MatchString(line.Path) {
		if term, err := strconv.ParseUint(line.Value, 10, 64); err == nil && term >= t.term {
			return fmt.Sprintf("start%+d", term-t.term)
		}
	}
	if name, ok := t.names[line.Value]; ok && idPath.MatchString(line.Path) {
		return name
	}
	return protobufSpace.Replace(t.words(line.Value))
}

// protobufSpace undoes what Go's protobuf does to its texts in some builds and not in others.
var protobufSpace = strings.NewReplacer("\u00a0", " ", "  alarm:", " alarm:")

// words replaces the names inside a longer text.
func (t *Transcript) words(text string) string {
	for value, name := range t.names {
		if len(value) > 4 {
			text = strings.ReplaceAll(text, value, name)
		}
	}
	return text
}

// save keeps the transcript for a reader, if the environment names a folder for it.
func (t *Transcript) save(test string) {
	folder := os.Getenv("COMPAT_TRANSCRIPTS")
	if folder == "" {
		return
	}
	var text strings.Builder
	for _, step := range t.Steps {
		fmt.Fprintf(&text, "# %s\n", step.Name)
		for _, line := range step.Lines {
			fmt.Fprintf(&text, "%s: %s\n", line.Path, line.Value)
		}
	}
	_ = os.MkdirAll(folder, 0o755)
	_ = os.WriteFile(filepath.Join(folder, strings.ReplaceAll(test, "/", ".")+".txt"), []byte(text.String()), 0o644)
}

// Difference is one line that is not the same on both servers.
type Difference struct{ Step, Path, Etcd, Etched string }

const absent = "(absent)"

// Compare lists where two transcripts differ.
func Compare(etcd, etched *Transcript) []Difference {
	theirs := map[string][]Line{}
	for _, step := range etched.Steps {
		theirs[step.Name] = step.Lines
	}
	var found []Difference
	for _, step := range etcd.Steps {
		lines, ok := theirs[step.Name]
		delete(theirs, step.Name)
		if !ok {
			found = append(found, Difference{step.Name, "missing step", "there", absent})
			continue
		}
		found = append(found, compareLines(step.Name, step.Lines, lines)...)
	}
	for name := range theirs {
		found = append(found, Difference{name, "step too many", absent, "there"})
	}
	return found
}

func compareLines(step string, etcd, etched []Line) []Difference {
	var found []Difference
	theirs := map[string]string{}
	for _, line := range etched {
		theirs[line.Path] = line.Value
	}
	for _, line := range etcd {
		value, ok := theirs[line.Path]
		delete(theirs, line.Path)
		if !ok {
			value = absent
		}
		if value != line.Value {
			found = append(found, Difference{step, line.Path, line.Value, value})
		}
	}
	for _, line := range etched {
		if value, ok := theirs[line.Path]; ok {
			found = append(found, Difference{step, line.Path, absent, value})
		}
	}
	return found
}
