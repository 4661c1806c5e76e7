package kube

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
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

	process
	client *http.Client
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
