// Package ctl runs the real etcdctl against both servers: what it prints, and its exit code, must be
// the same. Times, sizes and ids that a server picks are replaced before.
package ctl

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"etched.local/compat-tests/harness"
)

// Case adds etcdctl to the harness's case.
type Case struct {
	*harness.Case
}

var replaced = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`took = [0-9.]+[µmn]?s`), "took = <time>"},
	{regexp.MustCompile(`took [0-9.]+[µmn]?s`), "took <time>"},
	{regexp.MustCompile(`"Took" : [0-9.]+[µmn]?s`), `"Took" : <time>`},
	{regexp.MustCompile(`│ +[0-9.]+[µmn]?s │`), "│ <time> │"},
	{regexp.MustCompile(`"took":"[^"]*"`), `"took":"<time>"`},
	{regexp.MustCompile(`("dbSize(InUse)?":)\d+`), "$1<size>"},
	{regexp.MustCompile(`("DBSize(InUse)?" : )\d+`), "$1<size>"},
	{regexp.MustCompile(`\d+(\.\d+)? [kM]?B\b`), "<size>"},
	{regexp.MustCompile(`\d+%( │|,)`), "<share>$1"},
	{regexp.MustCompile(`remaining\(\d+s\)`), "remaining(<time>)"},
	{regexp.MustCompile(`"ttl":\d+`), `"ttl":<time>`},
	{regexp.MustCompile(`"TTL" : \d+`), `"TTL" : <time>`},
}

var (
	tableEdge = regexp.MustCompile(`^[│┌├└|+]`)
	repeated  = regexp.MustCompile(`([ ─-])[ ─-]+`)
)

// plain is a text without what differs from run to run.
func plain(text string) string {
	var lines []string
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, `{"level":`) {
			continue // the client's own log
		}
		for _, r := range replaced {
			line = r.pattern.ReplaceAllString(line, r.by)
		}
		// Tables are as wide as the sizes and times in them.
		if tableEdge.MatchString(line) {
			line = repeated.ReplaceAllString(line, "$1")
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func (c *Case) command(args ...string) *exec.Cmd {
	args = append([]string{"--endpoints", c.Server.Client}, args...)
	command := exec.CommandContext(c.T.Context(), harness.Binary("etcdctl"), args...)
	command.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "ETCDCTL_") // flags of its own, and where it is
	})
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return command
}

// Run runs etcdctl to its end and records exit code, standard output and standard error.
func (c *Case) Run(args ...string) string { c.Helper(); return c.RunWith("", args...) }

// RunWith does so with this text as standard input.
func (c *Case) RunWith(stdin string, args ...string) string {
	c.Helper()
	stdout, stderr, code := c.output(stdin, args...)
	text := plain(stdout)
	if errors := plain(stderr); errors != "" {
		text += "\nstderr: " + errors
	}
	if code != 0 {
		text += "\nexit code " + strconv.Itoa(code)
	}
	c.Note(strings.Join(args, " "), text)
	return stdout
}

// Must is Run of something that has to succeed; its output is not recorded.
func (c *Case) Must(args ...string) string {
	c.Helper()
	stdout, stderr, code := c.output("", args...)
	if code != 0 {
		c.Fatalf("etcdctl %v: exit %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

func (c *Case) output(stdin string, args ...string) (string, string, int) {
	c.Helper()
	command := c.command(args...)
	var stdout, stderr bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &stdout, &stderr
	var exit *exec.ExitError
	if err := command.Run(); err != nil && !errors.As(err, &exit) {
		c.Fatalf("etcdctl %v: %v", args, err)
	}
	return stdout.String(), stderr.String(), command.ProcessState.ExitCode()
}

// Running is an etcdctl that goes on until it is interrupted.
type Running struct {
	c       *Case
	command *exec.Cmd
	stdin   io.WriteCloser
	lines   chan string
	stderr  lockedBuffer
	done    chan struct{}
}

// Begin starts an etcdctl that does not end by itself.
func (c *Case) Begin(args ...string) *Running {
	c.Helper()
	r := &Running{c: c, command: c.command(args...), lines: make(chan string, 1000), done: make(chan struct{})}
	stdout, err := r.command.StdoutPipe()
	if err != nil {
		c.Fatal(err)
	}
	if r.stdin, err = r.command.StdinPipe(); err != nil {
		c.Fatal(err)
	}
	r.command.Stderr = &r.stderr
	if err := r.command.Start(); err != nil {
		c.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			r.lines <- lines.Text()
		}
		close(r.lines)
		_ = r.command.Wait()
		close(r.done)
	}()
	c.Cleanup(func() { _ = r.command.Process.Kill(); <-r.done })
	return r
}

// Lines waits for the next n lines of standard output and records them.
func (r *Running) Lines(step string, n int) []string {
	r.c.Helper()
	var got []string
	deadline := time.After(harness.Deadline)
	for len(got) < n {
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.c.Fatalf("%s: etcdctl ended after %q: %s", step, got, r.stderr.String())
			}
			got = append(got, line)
		case <-deadline:
			r.c.Fatalf("%s: only %q in %v: %s", step, got, harness.Deadline, r.stderr.String())
		}
	}
	r.c.Note(step, plain(strings.Join(got, "\n")))
	return got
}

// Quiet fails if there is a line that nobody waited for.
func (r *Running) Quiet(step string) {
	r.c.Helper()
	select {
	case line, ok := <-r.lines:
		if ok {
			r.c.Errorf("%s: unexpected line %q", step, line)
		}
	default:
	}
}

// Type writes a line to standard input.
func (r *Running) Type(line string) {
	r.c.Helper()
	if _, err := io.WriteString(r.stdin, line+"\n"); err != nil {
		r.c.Fatal(err)
	}
}

// Interrupt sends SIGINT and waits for the end.
func (r *Running) Interrupt() {
	r.c.Helper()
	_ = r.command.Process.Signal(syscall.SIGINT)
	r.Wait()
}

// Wait waits for the end and returns the exit code.
func (r *Running) Wait() int {
	r.c.Helper()
	select {
	case <-r.done:
	case <-time.After(harness.Deadline):
		r.c.Fatalf("etcdctl does not end: %s", r.stderr.String())
	}
	return r.command.ProcessState.ExitCode()
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
