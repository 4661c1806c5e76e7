package kube

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// startDeadline is how long an apiserver may take to be ready, on a machine that has others to serve.
	startDeadline = 3 * time.Minute
	stopDeadline  = time.Minute
	pollEvery     = 50 * time.Millisecond
)

// Apiserver is one running kube-apiserver.
type Apiserver struct {
	// Address is host:port where it serves.
	Address string

	flags   []string
	logFile string
	cmd     *exec.Cmd
	done    chan struct{}
	client  *http.Client
}

// program is the path of kube-apiserver or kubectl: from KUBE_APISERVER_BIN or KUBECTL_BIN, else where
// the `run` command puts them.
func program(name string) string {
	if path := os.Getenv(strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_BIN"); path != "" {
		return path
	}
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "target", "compat", "kube", name)
}

// launch starts the process without waiting for it to be ready.
func (a *Apiserver) launch() error {
	log, err := os.OpenFile(a.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	a.cmd = exec.Command(program("kube-apiserver"), a.flags...)
	a.cmd.Stdout, a.cmd.Stderr = log, log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.cmd.Start(); err != nil {
		a.cmd = nil
		return err
	}
	a.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(a.cmd, a.done)
	return nil
}

// Start runs it, again on its port after a Kill or a Stop, and waits until it is ready.
func (a *Apiserver) Start(t testing.TB) {
	t.Helper()
	if err := a.launch(); err != nil {
		t.Fatal(err)
	}
	a.AwaitReady(t)
}

// AwaitReady waits until /readyz says ok.
func (a *Apiserver) AwaitReady(t testing.TB) {
	t.Helper()
	said := "nothing"
	for end := time.Now().Add(startDeadline); time.Now().Before(end); {
		select {
		case <-a.done:
			t.Fatalf("kube-apiserver ended: %v\n%s", a.cmd.ProcessState, a.LogTail(20))
		case <-time.After(pollEvery):
		}
		answer, err := a.Ask(context.Background(), http.MethodGet, "/readyz?verbose", nil)
		if err == nil && answer.Code == http.StatusOK {
			return
		}
		if err == nil {
			said = string(answer.Body)
		}
	}
	t.Fatalf("kube-apiserver is not ready within %v; it says\n%s\nits log\n%s", startDeadline, said, a.LogTail(40))
}

// Kill ends the process with SIGKILL and waits for its end.
func (a *Apiserver) Kill() {
	if a.cmd != nil {
		_ = a.cmd.Process.Kill()
		<-a.done
	}
}

// Stop ends the process with SIGTERM and waits for its end.
func (a *Apiserver) Stop(t testing.TB) {
	t.Helper()
	_ = a.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.done:
	case <-time.After(stopDeadline):
		t.Fatalf("kube-apiserver does not end on SIGTERM\n%s", a.LogTail(20))
	}
}

// Log is all that its runs have written so far.
func (a *Apiserver) Log() string {
	content, err := os.ReadFile(a.logFile)
	if err != nil {
		return ""
	}
	return string(content)
}

// LogTail is the last lines of the log.
func (a *Apiserver) LogTail(lines int) string {
	all := strings.Split(strings.TrimRight(a.Log(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Metric adds up the samples of a metric whose labels contain all of these texts.
func (a *Apiserver) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	answer, err := a.Ask(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return 0, err
	}
	return sumOf(answer.Body, name, labels), nil
}

// sumOf adds up the samples of one metric in Prometheus's text format.
func sumOf(text []byte, name string, labels []string) float64 {
	var sum float64
next:
	for line := range bytes.Lines(text) {
		rest, found := strings.CutPrefix(string(line), name)
		if !found || (rest[0] != '{' && rest[0] != ' ') {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(rest, label) {
				continue next
			}
		}
		var value float64
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &value); err == nil {
			sum += value
		}
	}
	return sum
}
