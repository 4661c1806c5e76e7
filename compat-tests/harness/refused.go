package harness

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Run is what came of a process that was to end by itself.
type Run struct {
	// Code is its exit code; -1 when it was still running at the end.
	Code int
	// Output is all that it wrote.
	Output string
}

// EachAlone runs the body for etcd, then for etched, and gives what it says of both. For starts that are
// refused, where there is no server to call.
func EachAlone(t *testing.T, body func(t *testing.T, kind Kind) string) (etcd, etched string) {
	t.Helper()
	t.Parallel()
	t.Run(string(Etcd), func(sub *testing.T) { etcd = body(sub, Etcd) })
	t.Run(string(Etched), func(sub *testing.T) { etched = body(sub, Etched) })
	return etcd, etched
}

// Refused runs a server with nothing but these flags and a data dir of its own, and waits for its end.
// `through` gives the command that runs the program, or is nil. What is not given has etcd's defaults,
// ports included: only for starts that end before anything is bound.
func Refused(t *testing.T, kind Kind, through func(program string) []string, flags ...string) Run {
	t.Helper()
	command := []string{Binary(string(kind))}
	if through != nil {
		command = through(command[0])
	}
	folder := t.TempDir()
	client, peer := freePorts(t)
	chosen := strings.NewReplacer("<client>", client, "<peer>", peer, "<data>", filepath.Join(folder, "data"))
	for _, flag := range flags {
		command = append(command, chosen.Replace(flag))
	}
	process := exec.Command(command[0], command[1:]...)
	process.Dir = folder
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var output bytes.Buffer
	process.Stdout, process.Stderr = &output, &output
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(readyDeadline, func() { _ = process.Process.Kill() })
	defer late.Stop()
	err := process.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	back := strings.NewReplacer(client, "<client>", peer, "<peer>", folder, "<folder>")
	return Run{process.ProcessState.ExitCode(), back.Replace(output.String())}
}
