package kube

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// definition is a CRD of namespaced objects: spec.size is a number, the rest is free.
func definition(plural, kind string) Object {
	schema := Object{"type": "object", "properties": Object{
		"spec": Object{"type": "object", "x-kubernetes-preserve-unknown-fields": true,
			"properties": Object{"size": Object{"type": "integer", "minimum": 1}}},
	}}
	return Object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": Object{"name": plural + ".example.com"},
		"spec": Object{
			"group": "example.com", "scope": "Namespaced",
			"names": Object{"plural": plural, "singular": strings.ToLower(kind), "kind": kind},
			"versions": []Object{{"name": "v1", "served": true, "storage": true,
				"schema": Object{"openAPIV3Schema": schema}, "subresources": Object{"status": Object{}}}},
		},
	}
}

const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// Define makes a CRD and waits until its objects are served.
func (c *Case) Define(plural, kind string) {
	c.Helper()
	c.Must(http.StatusCreated, http.MethodPost, definitions, definition(plural, kind))
	c.Eventually("it is served", func() bool {
		return c.Ask(http.MethodGet, c.Path("example.com/v1", plural), nil).Code == http.StatusOK
	})
}

// custom is an object of such a CRD.
func custom(kind, name string, spec Object) Object {
	return Object{"apiVersion": "example.com/v1", "kind": kind, "metadata": Object{"name": name}, "spec": spec}
}

func TestCustomResourcesAreServedWatchedAndEndWithTheirDefinition(t *testing.T) {
	Plain.On(t, func(c *Case) {
		c.Define("widgets", "Widget")
		widgets := func(names ...string) string { return c.Path("example.com/v1", "widgets", names...) }
		watch := c.Watch(query(widgets(), "resourceVersion", c.List(widgets()).Metadata.ResourceVersion))
		c.Must(http.StatusCreated, http.MethodPost, widgets(), custom("Widget", "one", Object{"size": 1, "free": []int{1, 2}}))
		c.Refused(http.StatusUnprocessableEntity, "Invalid", http.MethodPost, widgets(), custom("Widget", "two", Object{"size": 0}))
		c.Must(http.StatusOK, http.MethodPatch, widgets("one"), patch{mergePatch, `{"spec":{"size":7}}`})
		c.Must(http.StatusOK, http.MethodPatch, widgets("one")+"/status", patch{mergePatch, `{"status":{"seen":true}}`})
		if got := fmt.Sprint(at(c.Get(widgets("one")), "spec")); got != "map[free:[1 2] size:7]" {
			c.Errorf("it has become %s", got)
		}
		c.Eventually("kubectl knows the kind", func() bool { return c.kubectl("", "get", "widgets").Code == 0 })
		c.Does("widget.example.com/one", "", "get", "widgets", "-o", "name")
		c.Must(http.StatusOK, http.MethodDelete, definitions+"/widgets.example.com", nil)
		c.Eventually("the definition is gone", func() bool {
			return c.Ask(http.MethodGet, definitions+"/widgets.example.com", nil).Code == http.StatusNotFound
		})
		var seen []string
		for len(seen) == 0 || seen[len(seen)-1] != "DELETED one" {
			event := c.Next(watch)
			seen = append(seen, event.Type+" "+event.Object.Metadata.Name)
		}
		c.Notef("events: %v", seen)
		if answer := need(c.StoreClient().Get(c.Context(), defaultPrefix+"example.com/widgets/"+c.Namespace+"/one")); answer.Count != 0 {
			c.Error("the object is still in the store")
		}
	})
}
