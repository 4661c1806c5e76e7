//go:build load

package kube

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"etched.local/compat-tests/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

var scale = flag.Float64("scale", 1, "times the numbers of a large cluster")

// The large cluster, at scale 1.
const (
	loadPods      = 50_000
	loadLeases    = 5_000
	loadClients   = 20
	loadEvents    = 500 // a second
	renewEvery    = 10 * time.Second
	renewFor      = 30 * time.Second
	eventsFor     = 60 * time.Second
	eventsLive    = 30 * time.Second
	quietFor      = 20 * time.Second
	podNamespaces = 20
	// loadWriters is how many requests are open at a time at most.
	loadWriters = 32
	loadTimeout = time.Hour
)

func scaled(number int) int { return max(1, int(float64(number)**scale)) }

// loaded is a cluster that is given load, and what was measured.
type loaded struct {
	*Case
	store  pb.KVClient
	report *report
}

// TestLoad gives the same load to both servers, one after the other, and prints their figures side by side. It is
// no test of speed: it fails only when something is refused, lost or out of order.
func TestLoad(t *testing.T) {
	columns := map[harness.Kind]*report{}
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			// It compacts when it is told to, so that the other phases have none in them.
			options := Options{Flags: []string{"--etcd-compaction-interval=0", fmt.Sprintf("--event-ttl=%v", eventsLive)}}
			c := &Case{T: t, Cluster: start(t, kind, options), Namespace: "default"}
			columns[kind] = &report{}
			l := &loaded{Case: c, report: columns[kind], store: pb.NewKVClient(c.Store.Dial(t))}
			l.run()
			c.expectNoComplaint(t)
		})
	}
	printTable(columns[harness.Etcd], columns[harness.Etched])
}

func (l *loaded) run() {
	l.measure("filling", l.fill)
	l.measure("renewing leases", l.renew)
	l.measure("cold start of the apiserver", l.coldStart)
	l.measure("a list at a version", l.listAtAVersion)
	l.measure("clients list and watch all", l.storm)
	l.measure("overwriting", l.overwrite)
	l.compaction()
	l.measure("events that end", l.events)
}

// measure runs a phase and keeps what it cost the store.
func (l *loaded) measure(name string, phase func() phaseResult) {
	l.Helper()
	meter := startMeter(l.T, l.Cluster.Store.Pid())
	result := phase()
	if l.Failed() {
		l.FailNow()
	}
	l.report.add(name, meter.stop(l.T), result)
	l.Logf("%s: %s", name, l.report.last())
}

// each calls a function for the numbers below count, loadWriters at a time, and returns how long each took.
func (l *loaded) each(count int, do func(i int) error) []time.Duration {
	l.Helper()
	return drive(l.T, count, 0, do)
}

// paced calls it so many times a second.
func (l *loaded) paced(count int, perSecond float64, do func(i int) error) []time.Duration {
	l.Helper()
	return drive(l.T, count, perSecond, do)
}

// write sends a request to the apiserver.
func (l *loaded) write(method, path string, body any, want int) error {
	answer, err := l.Apiserver().Ask(l.T.Context(), method, path, body)
	if err == nil && answer.Code != want {
		err = fmt.Errorf("%s %s: %d %.300s", method, path, answer.Code, answer.Body)
	}
	return err
}

func podNamespace(i int) string { return fmt.Sprintf("load-%d", i%podNamespaces) }

// fill makes all pods and Leases through the apiserver.
func (l *loaded) fill() phaseResult {
	for i := range podNamespaces {
		if err := l.write(http.MethodPost, "/api/v1/namespaces", named(podNamespace(i)), http.StatusCreated); err != nil {
			l.Fatal(err)
		}
	}
	pods := l.each(scaled(loadPods), func(i int) error {
		return l.write(http.MethodPost, "/api/v1/namespaces/"+podNamespace(i)+"/pods", largePod(i), http.StatusCreated)
	})
	l.each(scaled(loadLeases), func(i int) error {
		return l.write(http.MethodPost, nodeLeases, Object{"metadata": named(nodeName(i))["metadata"], "spec": renewed(nodeName(i))}, http.StatusCreated)
	})
	return phaseResult{latencies: pods, note: fmt.Sprintf("%d pods of %d bytes", scaled(loadPods), l.podBytes())}
}

const nodeLeases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

// largePod is as large as pods of real clusters are, about 4 KiB in the store.
func largePod(i int) Object {
	var env []Object
	for n := range 12 {
		env = append(env, Object{"name": fmt.Sprintf("SETTING_%d", n), "value": fmt.Sprintf("value-%d-%d-%s", i, n, strings.Repeat("v", 12))})
	}
	container := func(name string) Object {
		return Object{"name": name, "image": "example.com/team/" + name + ":1.2.3", "env": env,
			"resources": Object{"requests": Object{"cpu": "100m", "memory": "128Mi"}, "limits": Object{"memory": "256Mi"}}}
	}
	return Object{
		"metadata": Object{"name": fmt.Sprintf("pod-%06d", i), "labels": Object{"app": fmt.Sprintf("app-%d", i%500)},
			"annotations": Object{"example.com/checksum": strings.Repeat(fmt.Sprintf("%08x", i*2654435761%(1<<32)), 16)}},
		"spec": Object{"nodeName": nodeName(i % scaled(loadLeases)), "containers": []Object{container("web"), container("side")}},
	}
}

// renew renews all Leases every ten seconds for a while, as kubelets do.
func (l *loaded) renew() phaseResult {
	leases := scaled(loadLeases)
	perSecond := float64(leases) / renewEvery.Seconds()
	return phaseResult{latencies: l.paced(int(perSecond*renewFor.Seconds()), perSecond, func(i int) error {
		name := nodeName(i % leases)
		return l.write(http.MethodPatch, nodeLeases+"/"+name, patch{mergePatch, string(asJSON(Object{"spec": renewed(name)}))}, http.StatusOK)
	})}
}

// coldStart kills the apiserver and waits until its cache of pods answers.
func (l *loaded) coldStart() phaseResult {
	version := l.List(query("/api/v1/pods", "labelSelector", "no=pod")).Metadata.ResourceVersion
	l.Apiserver().Kill()
	began := time.Now()
	l.Apiserver().Start(l.T)
	// Of a version, so that only the cache can answer; with a selector that finds nothing, so that it does so at once.
	path := query("/api/v1/pods", "labelSelector", "no=pod", "resourceVersion", version, "resourceVersionMatch", "NotOlderThan")
	harness.Within(l, loadTimeout, "the cache of pods is filled", func() bool {
		return l.Ask(http.MethodGet, path, nil).Code == http.StatusOK
	})
	l.ForgiveComplaints() // that there was no other apiserver while it was away
	return phaseResult{note: fmt.Sprintf("%.1f s from its start", time.Since(began).Seconds())}
}

// events makes Events at a steady rate for longer than they live, and waits until the last has ended.
func (l *loaded) events() phaseResult {
	perSecond := float64(scaled(loadEvents))
	object := resources[1]
	latencies := l.paced(int(perSecond*eventsFor.Seconds()), perSecond, func(i int) error {
		return l.write(http.MethodPost, object.path(l.Case), object.object(l.Case, fmt.Sprintf("event-%07d", i), "it happened"), http.StatusCreated)
	})
	harness.Within(l, loadTimeout, "all Events have ended", func() bool { return l.count(eventsPrefix) == 0 })
	return phaseResult{latencies: latencies}
}

// drive calls a function for the numbers below count from loadWriters goroutines, so many a second when that is
// not 0, and returns how long each call took from when it was due.
func drive(t *testing.T, count int, perSecond float64, do func(i int) error) []time.Duration {
	t.Helper()
	type due struct {
		i  int
		at time.Time
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	work := make(chan due)
	latencies := make([]time.Duration, count)
	var group sync.WaitGroup
	for range loadWriters {
		group.Go(func() {
			for d := range work {
				if err := do(d.i); err != nil {
					t.Error(err)
					cancel()
				}
				latencies[d.i] = time.Since(d.at)
			}
		})
	}
	began := time.Now()
	for i := 0; i < count && ctx.Err() == nil; i++ {
		at := time.Now()
		if perSecond > 0 {
			at = began.Add(time.Duration(float64(i) / perSecond * float64(time.Second)))
			time.Sleep(time.Until(at)) // the rate is what is measured at
		}
		work <- due{i, at}
	}
	close(work)
	group.Wait()
	return latencies
}
