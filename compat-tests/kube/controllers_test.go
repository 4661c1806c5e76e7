//go:build whole

package kube

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"etched.local/compat-tests/harness"
	"go.etcd.io/etcd/client/v3"
)

const (
	replicas = 500
	// controlDeadline is how long all controllers together may take for one wish of hundreds of pods.
	controlDeadline = 5 * time.Minute
)

// Finally asks until the controllers have done their work.
func (c *Case) Finally(what string, holds func() bool) {
	c.Helper()
	began := time.Now()
	harness.Within(c, controlDeadline, what, holds)
	c.Logf("%s after %.1f s", what, time.Since(began).Seconds())
}

// template is of pods that are deployed, with this image.
func podTemplate(app, image string) Object {
	return Object{"metadata": Object{"labels": Object{"app": app}},
		"spec": Object{"containers": []Object{{"name": app, "image": image}}}}
}

// Deploy makes a Deployment and a Service in front of it.
func (c *Case) Deploy(app string, count int, image string) {
	c.Helper()
	c.Must(http.StatusCreated, http.MethodPost, c.Path("v1", "services"), service(app, Object{"selector": Object{"app": app}}))
	c.Must(http.StatusCreated, http.MethodPost, c.Path("apps/v1", "deployments"), Object{"metadata": Object{"name": app},
		"spec": Object{"replicas": count, "selector": Object{"matchLabels": Object{"app": app}}, "template": podTemplate(app, image)}})
}

// Scale sets the number of replicas.
func (c *Case) Scale(app string, count int) {
	c.Helper()
	c.Must(http.StatusOK, http.MethodPatch, c.Path("apps/v1", "deployments", app, "scale"),
		patch{mergePatch, fmt.Sprintf(`{"spec":{"replicas":%d}}`, count)})
}

// AwaitDeployed waits until the Deployment says that this many pods of its newest template are available
// and no others are left, and the Service has as many addresses.
func (c *Case) AwaitDeployed(app string, count int) {
	c.Helper()
	want := float64(count)
	c.Finally(fmt.Sprintf("%s has %d replicas", app, count), func() bool {
		object := c.Get(c.Path("apps/v1", "deployments", app))
		number := func(path ...string) float64 { value, _ := at(object, path...).(float64); return value }
		return number("status", "observedGeneration") == number("metadata", "generation") &&
			number("status", "replicas") == want && number("status", "updatedReplicas") == want &&
			number("status", "availableReplicas") == want && len(c.pods(app)) == count
	})
	c.Finally(fmt.Sprintf("the service of %s has %d addresses", app, count), func() bool { return c.addresses(app) == count })
}

func (c *Case) pods(app string) []Item {
	c.Helper()
	return c.List(query(c.Path("v1", "pods"), "labelSelector", "app="+app)).Items
}

// addresses is how many ready endpoints the Service of this name has.
func (c *Case) addresses(app string) (sum int) {
	c.Helper()
	slices := c.Get(query(c.Path("discovery.k8s.io/v1", "endpointslices"), "labelSelector", "kubernetes.io/service-name="+app))
	items, _ := at(slices, "items").([]any)
	for _, slice := range items {
		endpoints, _ := at(slice, "endpoints").([]any)
		for _, endpoint := range endpoints {
			if ready, _ := at(endpoint, "conditions", "ready").(bool); ready {
				sum++
			}
		}
	}
	return sum
}

// ExpectRunning expects all pods of a Deployment to run this image on nodes that hold no more than they can.
func (c *Case) ExpectRunning(app, image string) {
	c.Helper()
	perNode, states := map[string]int{}, map[string]int{}
	pods := c.pods(app)
	for _, pod := range pods {
		containers, _ := at(pod.Spec, "containers").([]any)
		states[fmt.Sprintf("%s with %d container, %s", textAt(pod.Status, "phase"), len(containers), textAt(containers[0], "image"))]++
		perNode[textAt(pod.Spec, "nodeName")]++
	}
	if want := "Running with 1 container, " + image; states[want] != len(pods) {
		c.Errorf("of %s are %v; expected is %s", app, states, want)
	}
	for name, count := range perNode {
		if name == "" || count > podsPerNode {
			c.Errorf("node %q has %d pods", name, count)
		}
	}
	c.Logf("%d nodes have pods of %s", len(perNode), app)
}

// ExpectGone expects no key of the namespace's objects of this kind in the store.
func (c *Case) ExpectGone(kind string) {
	c.Helper()
	answer := need(c.StoreClient().Get(c.Context(), defaultPrefix+kind+"/"+c.Namespace+"/", clientv3.WithPrefix(), clientv3.WithCountOnly()))
	if answer.Count != 0 {
		c.Errorf("the store has %d keys of %s", answer.Count, kind)
	}
}

// census counts the pods that came and went, each once. An apiserver ends a watch whose client is too slow
// for it: the census goes on where it was, and nothing may be missing.
type census struct {
	done               chan struct{}
	version            string
	came, went, opened int
	broken             []string
}

// StartCensus watches the body's pods from now on, until as many have gone and none is left.
func (c *Case) StartCensus(gone int) *census {
	c.Helper()
	path := c.Path("v1", "pods")
	n := &census{done: make(chan struct{}), version: c.List(path).Metadata.ResourceVersion}
	ctx := c.T.Context()
	go func() {
		defer close(n.done)
		there := map[string]bool{}
		for len(n.broken) == 0 && (n.went < gone || len(there) > 0) {
			watch, err := c.Apiserver().OpenWatch(ctx, query(path, "resourceVersion", n.version))
			if err != nil {
				n.broken = append(n.broken, err.Error())
				return
			}
			n.opened++
			for event := range watch.Events {
				n.see(event, there)
				if n.went >= gone && len(there) == 0 {
					break
				}
			}
			watch.Stop()
		}
	}()
	return n
}

func (n *census) see(event Event, there map[string]bool) {
	uid := event.Object.Metadata.UID
	n.version = event.Object.Metadata.ResourceVersion
	switch {
	case event.Type == "ADDED" && !there[uid]:
		there[uid] = true
		n.came++
	case event.Type == "DELETED" && there[uid]:
		delete(there, uid)
		n.went++
	case event.Type == "MODIFIED" && there[uid]:
	default:
		n.broken = append(n.broken, fmt.Sprintf("%s of %s, which was there: %v", event.Type, event.Object.Metadata.Name, there[uid]))
	}
}

// ExpectCensus waits for the end of a census and expects nothing odd in it.
func (c *Case) ExpectCensus(n *census) {
	c.Helper()
	select {
	case <-n.done:
	case <-time.After(Deadline):
		c.Fatalf("the watch of pods has not seen all of them go within %v", Deadline)
	}
	for _, broken := range n.broken {
		c.Errorf("the watch of pods: %s", broken)
	}
	c.Logf("%d pods came, %d went, seen by %d watches", n.came, n.went, n.opened)
}

func TestADeploymentIsScheduledRolledUndoneAndScaledToZero(t *testing.T) {
	Controlled.On(t, func(c *Case) {
		pods := c.StartCensus(3 * replicas)
		c.Deploy("web", replicas, "example.com/web:1")
		c.AwaitDeployed("web", replicas)
		c.ExpectRunning("web", "example.com/web:1")
		c.Must(http.StatusOK, http.MethodPatch, c.Path("apps/v1", "deployments", "web"),
			patch{strategicPatch, `{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"example.com/web:2"}]}}}}`})
		c.AwaitDeployed("web", replicas)
		c.Does(`deployment "web" successfully rolled out`, "", "rollout", "status", "deployment/web")
		c.ExpectRunning("web", "example.com/web:2")
		c.Does("deployment.apps/web rolled back", "", "rollout", "undo", "deployment/web")
		c.AwaitDeployed("web", replicas)
		c.ExpectRunning("web", "example.com/web:1")
		c.Notef("ReplicaSets: %d", len(c.List(c.Path("apps/v1", "replicasets")).Items))
		c.Scale("web", 0)
		c.AwaitDeployed("web", 0)
		c.ExpectGone("pods")
		c.ExpectCensus(pods)
		c.ExpectNodesWell()
	})
}

// ExpectNodesWell expects that the fake nodes were told nothing that a kubelet would complain about.
func (c *Case) ExpectNodesWell() {
	c.Helper()
	for _, problem := range c.Nodes.Problems() {
		c.Errorf("a node was told: %s", problem)
	}
	for _, item := range c.List("/api/v1/nodes").Items {
		if taints, _ := at(item.Spec, "taints").([]any); len(taints) > 0 {
			c.Errorf("%s has the taints %v", item.Metadata.Name, taints)
		}
	}
}

const dependents = 60

// own makes an owner with dependents and returns its path and the version after that.
func (c *Case) own(owner string) (path, version string) {
	c.Helper()
	made := c.Must(http.StatusCreated, http.MethodPost, c.ConfigMaps(), configMap(owner, "owner"))
	for i := range dependents {
		object := configMap(fmt.Sprintf("%s-%d", owner, i), owner)
		object["metadata"].(Object)["ownerReferences"] = []Object{{"apiVersion": "v1", "kind": "ConfigMap", "name": owner,
			"uid": textAt(made, "metadata", "uid"), "blockOwnerDeletion": true}}
		made := c.Must(http.StatusCreated, http.MethodPost, c.ConfigMaps(), object)
		version = textAt(made, "metadata", "resourceVersion")
	}
	return c.ConfigMaps(owner), version
}

// deletions reads a watch until this many objects of the owner are deleted; in order, the owner's included.
func (c *Case) deletions(watch *Watch, owner string, count int) (names []string) {
	c.Helper()
	for len(names) < count {
		event := c.Next(watch)
		if name := event.Object.Metadata.Name; event.Type == "DELETED" && strings.HasPrefix(name, owner) {
			names = append(names, name)
		}
	}
	return names
}

func TestWhatAnOwnerLeavesIsCollectedAsTheDeletionSays(t *testing.T) {
	Controlled.On(t, func(c *Case) {
		remove := func(owner, policy string, gone int) []string {
			path, version := c.own(owner)
			watch := c.Watch(query(c.ConfigMaps(), "resourceVersion", version))
			c.Must(http.StatusOK, http.MethodDelete, path, Object{"propagationPolicy": policy})
			return c.deletions(watch, owner, gone)
		}
		if names := remove("background", "Background", dependents+1); names[0] != "background" {
			c.Errorf("in the background the owner ends first, not %s", names[0])
		}
		if names := remove("foreground", "Foreground", dependents+1); names[dependents] != "foreground" {
			c.Errorf("in the foreground the owner ends last, not after %d", len(names))
		}
		remove("orphan", "Orphan", 1)
		left := c.List(c.ConfigMaps()).Items
		orphans := 0
		for _, item := range left {
			if strings.HasPrefix(item.Metadata.Name, "orphan-") && len(item.Metadata.OwnerReferences) == 0 {
				orphans++
			}
		}
		c.Notef("%d orphans", orphans)
		if orphans != dependents {
			c.Errorf("%d of %d objects are left with no owner", orphans, dependents)
		}
		c.Deploy("short", 30, "example.com/short:1")
		c.AwaitDeployed("short", 30)
		c.Must(http.StatusOK, http.MethodDelete, c.Path("apps/v1", "deployments", "short"), nil)
		c.Finally("its ReplicaSet and pods are gone", func() bool {
			return len(c.List(c.Path("apps/v1", "replicasets")).Items) == 0 && len(c.pods("short")) == 0
		})
		c.ExpectGone("pods")
		c.ExpectGone("replicasets")
		c.ExpectNodesWell()
	})
}

func TestANamespaceEndsWithAllThatIsInIt(t *testing.T) {
	Controlled.On(t, func(c *Case) {
		c.Define("gadgets", "Gadget")
		for i := range 20 {
			c.Must(http.StatusCreated, http.MethodPost, c.Path("example.com/v1", "gadgets"), custom("Gadget", itemName(i), Object{"size": 1}))
			c.Must(http.StatusCreated, http.MethodPost, c.Path("v1", "secrets"), named(itemName(i)))
		}
		for _, r := range resources {
			c.Fill(r, 0, 300)
		}
		c.Deploy("inside", 40, "example.com/inside:1")
		c.AwaitDeployed("inside", 40)
		held := configMap("held", "1")
		held["metadata"].(Object)["finalizers"] = []string{"example.com/hold"}
		c.Must(http.StatusCreated, http.MethodPost, c.ConfigMaps(), held)
		path := "/api/v1/namespaces/" + c.Namespace
		c.Must(http.StatusOK, http.MethodDelete, path, nil)
		c.Finally("only what is held is left", func() bool {
			return len(c.List(c.ConfigMaps()).Items) == 1 && len(c.List(c.Path("v1", "pods")).Items) == 0
		})
		if phase := textAt(c.Get(path), "status", "phase"); phase != "Terminating" {
			c.Errorf("the namespace is %s while something is in it", phase)
		}
		c.Must(http.StatusOK, http.MethodPatch, c.ConfigMaps("held"), patch{mergePatch, `{"metadata":{"finalizers":null}}`})
		c.Finally("the namespace is gone", func() bool { return c.Ask(http.MethodGet, path, nil).Code == http.StatusNotFound })
		all := need(c.StoreClient().Get(c.Context(), defaultPrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly()))
		for _, kv := range all.Kvs {
			if strings.Contains(string(kv.Key)+"/", "/"+c.Namespace+"/") {
				c.Errorf("the store still has %s", kv.Key)
			}
		}
		c.ExpectNodesWell()
	})
}
