package kube

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// change is one write and what a watch must say of it.
type change struct{ kind, name, value, version string }

// changeAll creates, changes and deletes objects and returns what a watch must see, in order.
func changeAll(c *Case, r resource, rounds int) (changes []change) {
	c.Helper()
	note := func(kind, name, value string, object Object) {
		changes = append(changes, change{kind, name, value, textAt(object, "metadata", "resourceVersion")})
	}
	for round := range rounds {
		name := itemName(round)
		note("ADDED", name, "1", c.Must(http.StatusCreated, http.MethodPost, r.path(c), r.object(c, name, "1")))
		if round%2 == 0 {
			changes = append(changes, change{"MODIFIED", name, "2", c.Set(r, name, "2")})
		}
		if round%3 == 0 {
			c.Must(http.StatusOK, http.MethodDelete, r.path(c, name), nil)
			value := "1"
			if round%2 == 0 {
				value = "2"
			}
			changes = append(changes, change{"DELETED", name, value, ""})
		}
	}
	return changes
}

// expectChanges reads these from the watch, with versions that only grow.
func expectChanges(c *Case, r resource, watch *Watch, changes []change) {
	c.Helper()
	last := int64(0)
	for i, want := range changes {
		event := c.Next(watch)
		got := change{event.Type, event.Object.Metadata.Name, r.value(event.Object), event.Object.Metadata.ResourceVersion}
		at := revision(got.version)
		if want.version == "" {
			want.version = got.version // an answer to a deletion does not tell it
		}
		if got != want || at <= last {
			c.Fatalf("%s: event %d is %+v instead of %+v, after version %d", r.name, i, got, want, last)
		}
		last = at
	}
}

func TestAWatchFromAVersionSeesEachChangeOnceAndInOrder(t *testing.T) {
	Plain.On(t, func(c *Case) {
		for _, r := range resources {
			from := c.List(r.path(c)).Metadata.ResourceVersion
			open := c.Watch(query(r.path(c), "resourceVersion", from))
			changes := changeAll(c, r, 30)
			expectChanges(c, r, open, changes)
			expectChanges(c, r, c.Watch(query(r.path(c), "resourceVersion", from)), changes)
			// Of a change in the middle, only what comes after it.
			middle := 7
			for changes[middle].version == "" {
				middle++
			}
			later := c.Watch(query(r.path(c), "resourceVersion", changes[middle].version))
			expectChanges(c, r, later, changes[middle+1:])
			// One object alone.
			single := c.Watch(query(r.path(c), "resourceVersion", from, "fieldSelector", "metadata.name="+itemName(6)))
			var own []change
			for _, change := range changes {
				if change.name == itemName(6) {
					own = append(own, change)
				}
			}
			expectChanges(c, r, single, own)
		}
	})
}

const initialEventsEnd = "k8s.io/initial-events-end"

func TestAStreamingListSendsAllObjectsThenABookmarkThenChanges(t *testing.T) {
	Plain.On(t, func(c *Case) {
		const objects = 300
		for _, r := range resources {
			c.Fill(r, 0, objects)
			version := revision(c.Set(r, itemName(0), "0"))
			watch := c.Watch(query(r.path(c), "sendInitialEvents", "true", "resourceVersionMatch", "NotOlderThan",
				"allowWatchBookmarks", "true"))
			seen := map[string]string{}
			event := c.Next(watch)
			for ; event.Type == "ADDED"; event = c.Next(watch) {
				seen[event.Object.Metadata.Name] = r.value(event.Object)
			}
			if event.Type != "BOOKMARK" || event.Object.Metadata.Annotations[initialEventsEnd] != "true" {
				c.Fatalf("%s: instead of the end of the initial events: %+v", r.name, event)
			}
			if at := revision(event.Object.Metadata.ResourceVersion); at < version {
				c.Errorf("%s: the list is of version %d, the last write of %d", r.name, at, version)
			}
			for i := range objects {
				if seen[itemName(i)] != strconv.Itoa(i) {
					c.Errorf("%s: %s has %q", r.name, itemName(i), seen[itemName(i)])
				}
			}
			c.Notef("%s: %d objects", r.name, len(seen))
			c.Set(r, itemName(5), "later")
			next := c.Next(watch)
			for next.Type == "BOOKMARK" { // one may come at any time
				next = c.Next(watch)
			}
			if next.Type != "MODIFIED" || r.value(next.Object) != "later" {
				c.Errorf("%s: instead of the change: %+v", r.name, next)
			}
		}
	})
}

func TestABookmarkTellsAnIdleWatchHowFarItIs(t *testing.T) {
	Plain.On(t, func(c *Case) {
		r := resources[0]
		c.Fill(r, 0, 1)
		watch := c.Watch(query(r.path(c), "resourceVersion", c.List(r.path(c)).Metadata.ResourceVersion,
			"allowWatchBookmarks", "true", "timeoutSeconds", "15"))
		// Not of the kind that is watched: only the store's progress notification can tell of it.
		object := c.Must(http.StatusCreated, http.MethodPost, c.Path("v1", "secrets"), named("elsewhere"))
		written := revision(textAt(object, "metadata", "resourceVersion"))
		for event := range watch.Events {
			if event.Type != "BOOKMARK" {
				c.Fatalf("instead of a bookmark: %+v", event)
			}
			if revision(event.Object.Metadata.ResourceVersion) >= written {
				return
			}
		}
		c.Errorf("the watch ended without a bookmark of version %d or later", written)
	})
}

func TestManyWatchesSeeTheSame(t *testing.T) {
	Plain.On(t, func(c *Case) {
		r := resources[0]
		from := c.List(r.path(c)).Metadata.ResourceVersion
		watches := make([]*Watch, 30)
		for i := range watches {
			watches[i] = c.Watch(query(r.path(c), "resourceVersion", from))
		}
		changes := changeAll(c, r, 20)
		for _, watch := range watches {
			expectChanges(c, r, watch, changes)
		}
	})
}

func TestListsAreReadByRangeStreamAndTheMetricsTellSizes(t *testing.T) {
	Plain.On(t, func(c *Case) {
		events := resources[1]
		before := c.StoreMetric("grpc_server_handled_total", `grpc_method="RangeStream"`, `grpc_code="OK"`)
		c.Fill(events, 0, 50)
		for range 5 {
			if got := len(c.List(events.path(c)).Items); got != 50 {
				c.Errorf("%d events", got)
			}
		}
		after := c.StoreMetric("grpc_server_handled_total", `grpc_method="RangeStream"`, `grpc_code="OK"`)
		if after-before < 5 {
			c.Errorf("five lists made %v calls of RangeStream", after-before)
		}
		store := c.StoreClient()
		c.Eventually("the size that Status tells among the apiserver's metrics", func() bool {
			size := float64(need(store.Status(c.Context(), c.Store.Client)).DbSize)
			// It may have grown since the apiserver asked.
			told := c.Metric("apiserver_storage_size_bytes")
			return told > 0 && told <= size && told >= size/2
		})
		c.Eventually("the number of namespaces", func() bool {
			counted := c.Metric("apiserver_resource_objects", `resource="namespaces"`)
			return counted == float64(len(c.List("/api/v1/namespaces").Items))
		})
	})
}

func TestALeaseObjectIsRenewed(t *testing.T) {
	Plain.On(t, func(c *Case) {
		leases := func(names ...string) string { return c.Path("coordination.k8s.io/v1", "leases", names...) }
		made := c.Must(http.StatusCreated, http.MethodPost, leases(), Object{"metadata": Object{"name": "node"},
			"spec": Object{"holderIdentity": "node", "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}})
		watch := c.Watch(query(leases(), "resourceVersion", textAt(made, "metadata", "resourceVersion")))
		for i := 1; i <= 30; i++ {
			c.Must(http.StatusOK, http.MethodPatch, leases("node"),
				patch{mergePatch, fmt.Sprintf(`{"spec":{"renewTime":"2026-01-01T00:00:%02d.000000Z"}}`, i)})
			if event := c.Next(watch); event.Type != "MODIFIED" {
				c.Fatalf("%+v", event)
			}
		}
		if renewed := textAt(c.Get(leases("node")), "spec", "renewTime"); !strings.HasPrefix(renewed, "2026-01-01T00:00:30") {
			c.Errorf("renewed at %s", renewed)
		}
	})
}
