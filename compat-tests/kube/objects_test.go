package kube

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

func TestAnObjectWithAFinalizerStaysUntilItIsTakenOff(t *testing.T) {
	Plain.On(t, func(c *Case) {
		held := configMap("held", "1")
		held["metadata"].(Object)["finalizers"] = []string{"example.com/hold"}
		created := c.Must(http.StatusCreated, http.MethodPost, c.ConfigMaps(), held)
		watch := c.Watch(query(c.ConfigMaps(), "resourceVersion", textAt(created, "metadata", "resourceVersion")))
		c.Must(http.StatusOK, http.MethodDelete, c.ConfigMaps("held"), nil)
		if textAt(c.Get(c.ConfigMaps("held")), "metadata", "deletionTimestamp") == "" {
			c.Error("nothing says that it is being deleted")
		}
		if event := c.Next(watch); event.Type != "MODIFIED" || event.Object.Metadata.DeletionTimestamp == "" {
			c.Errorf("instead of its mark: %+v", event)
		}
		c.Refused(http.StatusConflict, "AlreadyExists", http.MethodPost, c.ConfigMaps(), configMap("held", "2"))
		c.Must(http.StatusOK, http.MethodPatch, c.ConfigMaps("held"), patch{mergePatch, `{"metadata":{"finalizers":null}}`})
		if event := c.Next(watch); event.Type != "DELETED" {
			c.Errorf("instead of its end: %+v", event)
		}
		c.Refused(http.StatusNotFound, "NotFound", http.MethodGet, c.ConfigMaps("held"), nil)
	})
}

func TestANamespaceEndsWhenItIsFinalized(t *testing.T) {
	Plain.On(t, func(c *Case) {
		name := c.Namespace + "-ending"
		path := "/api/v1/namespaces/" + name
		c.Must(http.StatusCreated, http.MethodPost, "/api/v1/namespaces", named(name))
		c.Must(http.StatusCreated, http.MethodPost, path+"/configmaps", configMap("inside", "1"))
		c.Must(http.StatusOK, http.MethodDelete, path, nil)
		ending := c.Get(path)
		if textAt(ending, "status", "phase") != "Terminating" {
			c.Errorf("phase %q", textAt(ending, "status", "phase"))
		}
		// The apiserver knows it from its cache.
		c.Eventually("nothing more can be made in it", func() bool {
			return c.Ask(http.MethodPost, query(path+"/configmaps", "dryRun", "All"), configMap("late", "1")).Code == http.StatusForbidden
		})
		c.Refused(http.StatusForbidden, "Forbidden", http.MethodPost, path+"/configmaps", configMap("late", "1"))
		// What the namespace controller does in a whole cluster.
		c.Must(http.StatusOK, http.MethodDelete, path+"/configmaps", nil)
		ending["spec"] = Object{"finalizers": []string{}}
		c.Must(http.StatusOK, http.MethodPut, path+"/finalize", ending)
		c.Refused(http.StatusNotFound, "NotFound", http.MethodGet, path, nil)
	})
}

func TestSecretsKeepTheirBytesAndImmutableOnesTheirState(t *testing.T) {
	Plain.On(t, func(c *Case) {
		secrets := func(names ...string) string { return c.Path("v1", "secrets", names...) }
		bytes := base64.StdEncoding.EncodeToString([]byte{0, 1, 0xff, '\n', 0x80})
		secret := Object{"metadata": Object{"name": "pass"}, "data": Object{"key": bytes}, "immutable": true}
		c.Must(http.StatusCreated, http.MethodPost, secrets(), secret)
		if got := textAt(c.Get(secrets("pass")), "data", "key"); got != bytes {
			c.Errorf("%q instead of %q", got, bytes)
		}
		c.Refused(http.StatusUnprocessableEntity, "Invalid", http.MethodPatch, secrets("pass"),
			patch{mergePatch, `{"data":{"key":"AAAA"}}`})
		c.Refused(http.StatusUnprocessableEntity, "Invalid", http.MethodPatch, secrets("pass"),
			patch{mergePatch, `{"type":"other"}`})
		c.Must(http.StatusOK, http.MethodDelete, secrets("pass"), nil)
	})
}

const servicesAtOnce = 24

func service(name string, spec Object) Object {
	spec["ports"] = []Object{{"port": 80, "protocol": "TCP"}}
	return Object{"metadata": Object{"name": name}, "spec": spec}
}

func TestServicesMadeAtOnceGetAddressesAndPortsOfTheirOwn(t *testing.T) {
	Plain.On(t, func(c *Case) {
		services := func(names ...string) string { return c.Path("v1", "services", names...) }
		made := make([]Object, servicesAtOnce)
		var group sync.WaitGroup
		for i := range made {
			group.Go(func() {
				answer, err := c.Apiserver().Ask(c.Context(), http.MethodPost, services(),
					service(fmt.Sprintf("s-%d", i), Object{"type": "NodePort"}))
				if err != nil || answer.Code != http.StatusCreated {
					c.Errorf("service %d: %v %d %s", i, err, answer.Code, answer.Body)
					return
				}
				made[i] = need(into[Object](answer))
			})
		}
		group.Wait()
		addresses, ports := map[string]bool{}, map[float64]bool{}
		for _, object := range made {
			addresses[textAt(object, "spec", "clusterIP")] = true
			list, _ := at(object, "spec", "ports").([]any)
			if len(list) == 1 {
				port, _ := at(list[0], "nodePort").(float64)
				ports[port] = true
			}
		}
		if len(addresses) != servicesAtOnce || len(ports) != servicesAtOnce || addresses[""] {
			c.Fatalf("%d services got %d addresses and %d ports", servicesAtOnce, len(addresses), len(ports))
		}
		taken := textAt(made[0], "spec", "clusterIP")
		status := c.Ask(http.MethodPost, services(), service("thief", Object{"clusterIP": taken}))
		if status.Code != http.StatusUnprocessableEntity || !strings.Contains(string(status.Body), "already allocated") {
			c.Errorf("an address that is taken: %d %s", status.Code, status.Body)
		}
		c.Must(http.StatusOK, http.MethodDelete, services("s-0"), nil)
		c.Eventually("the address is free again", func() bool {
			return c.Ask(http.MethodPost, services(), service("heir", Object{"clusterIP": taken})).Code == http.StatusCreated
		})
	})
}
