package kube

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// What an apiserver makes in an empty store, by itself.
var bootstrapped = []string{
	"/api/v1/namespaces/default", "/api/v1/namespaces/kube-system", "/api/v1/namespaces/kube-public",
	"/api/v1/namespaces/kube-node-lease",
	"/api/v1/namespaces/default/services/kubernetes",
	"/api/v1/namespaces/default/endpoints/kubernetes",
	"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
	"/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
	"/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin",
	"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/cluster-admin",
	"/apis/scheduling.k8s.io/v1/priorityclasses/system-cluster-critical",
	"/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/exempt",
	"/apis/networking.k8s.io/v1/servicecidrs/kubernetes",
	"/apis/networking.k8s.io/v1/ipaddresses/10.96.0.1",
}

// Kinds of which an apiserver makes many.
var bootstrappedLists = []string{
	"/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
	"/apis/rbac.authorization.k8s.io/v1/roles", "/apis/scheduling.k8s.io/v1/priorityclasses",
	"/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
	"/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
	"/apis/apiregistration.k8s.io/v1/apiservices",
}

func TestAnApiserverBecomesReadyAndMakesItsBootstrapObjects(t *testing.T) {
	Plain.On(t, func(c *Case) {
		for _, path := range bootstrapped {
			c.Eventually(path, func() bool { return c.Ask(http.MethodGet, path, nil).Code == http.StatusOK })
		}
		for _, path := range bootstrappedLists {
			var names []string
			for _, item := range c.List(path).Items {
				names = append(names, item.Metadata.Name)
			}
			// They are ready before the last of them is made, but no test makes one whose name has a colon.
			slices.Sort(names)
			names = slices.DeleteFunc(names, func(name string) bool { return strings.Contains(name, "example.com") })
			c.Notef("%s: %s", path, strings.Join(names, " "))
			if len(names) == 0 {
				c.Errorf("%s: none", path)
			}
		}
		address := textAt(c.Get("/api/v1/namespaces/default/services/kubernetes"), "spec", "clusterIP")
		if address != "10.96.0.1" {
			c.Errorf("the apiserver's own service has the address %q", address)
		}
	})
}

func TestHealthChecksOfTheStoreSayOk(t *testing.T) {
	Plain.On(t, func(c *Case) {
		for _, path := range []string{"/livez/etcd", "/readyz/etcd", "/readyz/etcd-readiness", "/healthz/etcd"} {
			answer := c.Ask(http.MethodGet, path, nil)
			if answer.Code != http.StatusOK || string(answer.Body) != "ok" {
				c.Errorf("%s: %d %s", path, answer.Code, answer.Body)
			}
		}
		c.Notef("%s", c.Ask(http.MethodGet, "/readyz?verbose", nil).Body)
		said := c.Kubectl("", "get", "--raw", "/livez?verbose")
		if said.Code != 0 || !strings.Contains(said.Out, "[+]etcd ok") {
			c.Errorf("kubectl: %+v", said)
		}
	})
}

func TestAnApiserverHoldsALeaseOfItsOwnAndRenewsItsEntryAmongThePeers(t *testing.T) {
	Plain.On(t, func(c *Case) {
		c.Eventually("its lease", func() bool {
			list := c.List("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases")
			return slices.ContainsFunc(list.Items, func(item Item) bool {
				return strings.HasPrefix(item.Metadata.Name, "apiserver-")
			})
		})
		store := c.StoreClient()
		entry := func() (lease int64) {
			answer := need(store.Get(c.Context(), "/registry/masterleases/192.0.2.1"))
			if len(answer.Kvs) != 1 {
				return 0
			}
			return answer.Kvs[0].Lease
		}
		var first int64
		c.Eventually("its entry with a lease", func() bool { first = entry(); return first != 0 })
		// Every ten seconds it is written again, under another lease.
		c.Eventually("another lease", func() bool { now := entry(); return now != 0 && now != first })
	})
}
