package kube

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is one running program of Kubernetes, with a log that outlives its runs.
type process struct {
	// program is one of Kubernetes's, or a path.
	program string
	flags   []string
	logFile string
	// logBefore is how long the log was when the last run began.
	logBefore int
	cmd       *exec.Cmd
	done      chan struct{}
}

// program is the path of one of Kubernetes's programs: from KUBE_APISERVER_BIN, KUBECTL_BIN and so on,
// else where the `run` command puts them.
func program(name string) string {
	if path := os.Getenv(strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_BIN"); path != "" {
		return path
	}
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "target", "compat", "kube", name)
}

// launch starts the process without waiting for it to be ready.
func (p *process) launch() error {
	log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.logBefore = len(p.Log())
	path := p.program
	if !filepath.IsAbs(path) {
		path = program(path)
	}
	p.cmd = exec.Command(path, p.flags...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return err
	}
	p.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(p.cmd, p.done)
	return nil
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the process with SIGKILL and waits for its end.
func (p *process) Kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// Stop ends the process with SIGTERM and waits for its end.
func (p *process) Stop(t testing.TB) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopDeadline):
		t.Fatalf("%s does not end on SIGTERM\n%s", p.program, p.LogTail(20))
	}
}

// Log is all that its runs have written so far.
func (p *process) Log() string {
	content, err := os.ReadFile(p.logFile)
	if err != nil {
		return ""
	}
	return string(content)
}

// LogOfRun is what the last run has written so far.
func (p *process) LogOfRun() string { return p.Log()[p.logBefore:] }

// LogTail is the last lines of the log.
func (p *process) LogTail(lines int) string {
	all := strings.Split(strings.TrimRight(p.Log(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
