package kube

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// How the fake nodes work.
const (
	// leaseEvery is how often a node renews its Lease, as a kubelet does.
	leaseEvery = 10 * time.Second
	// podWriters is how many pods are written at a time, for all nodes together.
	podWriters = 16
	// podsWaiting is how many pods may wait to be written; the watch is read no further than that.
	podsWaiting = 10_000
	podsPerNode = 110
)

// nodes are fake nodes: this client alone writes what their kubelets would write. It registers them,
// renews their Leases, says of each pod that was bound to one of them that it runs, and takes away those
// that are to end.
//
//	watch of all pods --> waiting --> podWriters --> PATCH status, DELETE
type nodes struct {
	apiserver *Apiserver
	waiting   chan Item

	mu       sync.Mutex
	problems []string
}

// startNodes registers this many nodes and keeps them alive until the test ends.
func startNodes(t testing.TB, a *Apiserver, count int) *nodes {
	t.Helper()
	n := &nodes{apiserver: a, waiting: make(chan Item, podsWaiting)}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	t.Cleanup(func() { cancel(); group.Wait() })
	for i := range count {
		name := nodeName(i)
		n.must(ctx, t, "/api/v1/nodes", node(name))
		n.must(ctx, t, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", Object{
			"metadata": Object{"name": name}, "spec": renewed(name),
		})
	}
	group.Go(func() { n.renew(ctx, count) })
	group.Go(func() { n.follow(ctx) })
	for range podWriters {
		group.Go(func() { n.write(ctx) })
	}
	return n
}

func nodeName(i int) string { return fmt.Sprintf("node-%04d", i) }

func node(name string) Object {
	capacity := Object{"cpu": "64", "memory": "256Gi", "pods": fmt.Sprint(podsPerNode)}
	now := time.Now().UTC().Format(time.RFC3339)
	return Object{
		"metadata": Object{"name": name, "labels": Object{"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
		"status": Object{
			"capacity": capacity, "allocatable": capacity,
			"conditions": []Object{{"type": "Ready", "status": "True", "reason": "KubeletReady",
				"lastHeartbeatTime": now, "lastTransitionTime": now}},
		},
	}
}

// renewed is the spec of a node's Lease as of now.
func renewed(name string) Object {
	return Object{"holderIdentity": name, "leaseDurationSeconds": 40,
		"renewTime": time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")}
}

func (n *nodes) must(ctx context.Context, t testing.TB, path string, object Object) {
	t.Helper()
	n.ask(ctx, http.MethodPost, path, object, http.StatusCreated)
	for _, problem := range n.Problems() {
		t.Fatal(problem)
	}
}

// ask sends a request and keeps an answer other than these; nothing is answered any more at the end.
func (n *nodes) ask(ctx context.Context, method, path string, body any, good ...int) {
	answer, err := n.apiserver.Ask(ctx, method, path, body)
	if ctx.Err() != nil {
		return
	}
	for _, code := range good {
		if err == nil && answer.Code == code {
			return
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.problems = append(n.problems, fmt.Sprintf("%s %s: %v %d %.300s", method, path, err, answer.Code, answer.Body))
}

// Problems are the answers that a kubelet would not expect.
func (n *nodes) Problems() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.problems...)
}

// renew renews all Leases once every leaseEvery, spread over that time.
func (n *nodes) renew(ctx context.Context, count int) {
	ticker := time.NewTicker(leaseEvery / time.Duration(count))
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		name := nodeName(i % count)
		n.ask(ctx, http.MethodPatch, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+name,
			patch{mergePatch, string(asJSON(Object{"spec": renewed(name)}))}, http.StatusOK)
	}
}

// follow reads all pods that are bound and every change of them, again when the watch has ended.
func (n *nodes) follow(ctx context.Context) {
	path := query("/api/v1/pods", "fieldSelector", "spec.nodeName!=", "sendInitialEvents", "true",
		"resourceVersionMatch", "NotOlderThan", "allowWatchBookmarks", "true")
	for ctx.Err() == nil {
		watch, err := n.apiserver.OpenWatch(ctx, path)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(pollEvery): // there is nobody to answer; not a wait for anything
			}
			continue
		}
		for event := range watch.Events {
			if event.Type != "ADDED" && event.Type != "MODIFIED" {
				continue
			}
			select {
			case n.waiting <- event.Object:
			case <-ctx.Done():
			}
		}
		watch.Stop()
	}
}

// write brings pods to what their nodes would make of them.
func (n *nodes) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case pod := <-n.waiting:
			n.writePod(ctx, pod)
		}
	}
}

func (n *nodes) writePod(ctx context.Context, pod Item) {
	path := "/api/v1/namespaces/" + pod.Metadata.Namespace + "/pods/" + pod.Metadata.Name
	switch {
	case pod.Metadata.DeletionTimestamp != "":
		// It may be gone already, and another may have its name.
		n.ask(ctx, http.MethodDelete, path, Object{"gracePeriodSeconds": 0, "preconditions": Object{"uid": pod.Metadata.UID}},
			http.StatusOK, http.StatusNotFound, http.StatusConflict)
	case textAt(pod.Status, "phase") == "Pending":
		n.ask(ctx, http.MethodPatch, path+"/status", patch{strategicPatch, string(asJSON(running(pod)))},
			http.StatusOK, http.StatusNotFound, http.StatusConflict)
	}
}

// running is a change of a pod's status: all its containers run.
func running(pod Item) Object {
	now := time.Now().UTC().Format(time.RFC3339)
	var conditions, containers []Object
	for _, kind := range []string{"Initialized", "Ready", "ContainersReady", "PodReadyToStartContainers"} {
		conditions = append(conditions, Object{"type": kind, "status": "True", "lastTransitionTime": now})
	}
	list, _ := at(pod.Spec, "containers").([]any)
	for _, container := range list {
		containers = append(containers, Object{
			"name": textAt(container, "name"), "image": textAt(container, "image"), "imageID": "fake", "ready": true,
			"started": true, "restartCount": 0, "state": Object{"running": Object{"startedAt": now}},
		})
	}
	// An address from its uid: pods on fake nodes talk to nobody.
	var sum byte
	for _, letter := range []byte(pod.Metadata.UID) {
		sum = sum*31 + letter
	}
	address := fmt.Sprintf("10.0.%d.%d", len(pod.Metadata.Name), sum)
	return Object{
		"metadata": Object{"uid": pod.Metadata.UID},
		"status": Object{"phase": "Running", "startTime": now, "hostIP": "192.0.2.200", "podIP": address,
			"podIPs": []Object{{"ip": address}}, "conditions": conditions, "containerStatuses": containers},
	}
}
