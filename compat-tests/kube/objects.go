package kube

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
)

// fillers is how many requests Fill has open at a time.
const fillers = 8

// resource is a kind of objects that the tests of lists and watches use: ConfigMaps, which the apiserver
// answers from its watch cache, and Events, which it always asks the store for.
type resource struct {
	name   string
	object func(c *Case, name, value string) Object
	value  func(Item) string
}

var resources = []resource{
	{
		name:   "configmaps",
		object: func(_ *Case, name, value string) Object { return configMap(name, value) },
		value:  func(item Item) string { return item.Data["value"] },
	},
	{
		name: "events",
		object: func(c *Case, name, value string) Object {
			return Object{
				"metadata": Object{"name": name}, "message": value, "reason": "Tested", "type": "Normal",
				"involvedObject": Object{"kind": "ConfigMap", "namespace": c.Namespace, "name": "one"},
			}
		},
		value: func(item Item) string { return item.Message },
	},
}

func (r resource) path(c *Case, names ...string) string { return c.Path("v1", r.name, names...) }

// itemName is the name of the i-th object; names are in the order of the numbers.
func itemName(i int) string { return fmt.Sprintf("item-%05d", i) }

// Fill makes objects from..to-1 with their numbers as values.
func (c *Case) Fill(r resource, from, to int) {
	c.Helper()
	numbers := make(chan int)
	var group sync.WaitGroup
	for range fillers {
		group.Go(func() {
			for i := range numbers {
				answer, err := c.Apiserver().Ask(c.T.Context(), http.MethodPost, r.path(c), r.object(c, itemName(i), strconv.Itoa(i)))
				if err != nil || answer.Code != http.StatusCreated {
					c.Errorf("%s %d: %v %d %s", r.name, i, err, answer.Code, answer.Body)
				}
			}
		})
	}
	for i := from; i < to; i++ {
		numbers <- i
	}
	close(numbers)
	group.Wait()
	if c.Failed() {
		c.FailNow()
	}
}

// Set gives an object another value, and returns its version.
func (c *Case) Set(r resource, name, value string) string {
	c.Helper()
	object := r.object(c, name, value)
	object["metadata"].(Object)["namespace"] = c.Namespace
	return textAt(c.Must(http.StatusOK, http.MethodPut, r.path(c, name), object), "metadata", "resourceVersion")
}

// revision is a resource version as the number that it is.
func revision(version string) int64 {
	number, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		panic(err)
	}
	return number
}
