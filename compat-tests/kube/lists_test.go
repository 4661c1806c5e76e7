package kube

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
)

const (
	manyObjects = 1200
	pageSize    = 100
)

// busy changes, adds and removes objects until it is told to stop.
type busy struct {
	rounds atomic.Int64
	stop   context.CancelFunc
	done   chan struct{}
}

func startBusy(c *Case, r resource) *busy {
	ctx, stop := context.WithCancel(c.T.Context())
	b := &busy{stop: stop, done: make(chan struct{})}
	ask := func(method, path string, body any) {
		if answer, err := c.Apiserver().Ask(c.T.Context(), method, path, body); err != nil || answer.Code >= 300 {
			c.Errorf("%s %s: %v %d %s", method, path, err, answer.Code, answer.Body)
		}
	}
	go func() {
		defer close(b.done)
		for round := 0; ctx.Err() == nil; round++ {
			old, added := itemName(round*7%manyObjects), fmt.Sprintf("item-%05d-new", round)
			ask(http.MethodPatch, r.path(c, old), patch{mergePatch, string(asJSON(r.object(c, old, "changed")))})
			ask(http.MethodPost, r.path(c), r.object(c, added, "new"))
			ask(http.MethodDelete, r.path(c, added), nil)
			b.rounds.Add(1)
		}
	}()
	c.Cleanup(b.end)
	return b
}

func (b *busy) end() {
	b.stop()
	<-b.done
}

// awaitRound waits until a whole round was written from now on.
func (b *busy) awaitRound(c *Case) {
	c.Helper()
	until := b.rounds.Load() + 2
	c.Eventually("a round of writes", func() bool { return b.rounds.Load() >= until || c.Failed() })
}

// expectOriginals expects exactly the objects as Fill made them.
func expectOriginals(c *Case, r resource, what string, items []Item) {
	c.Helper()
	if len(items) != manyObjects {
		c.Errorf("%s: %d %s instead of %d", what, len(items), r.name, manyObjects)
		return
	}
	for i, item := range items {
		if item.Metadata.Name != itemName(i) || r.value(item) != strconv.Itoa(i) {
			c.Errorf("%s: at %d is %s = %q", what, i, item.Metadata.Name, r.value(item))
			return
		}
	}
}

func TestPagesOfALongListAreOfOneVersionWhileWritesGoOn(t *testing.T) {
	Plain.On(t, func(c *Case) {
		for _, r := range resources {
			c.Fill(r, 0, manyObjects)
			page := c.List(query(r.path(c), "limit", strconv.Itoa(pageSize)))
			version := page.Metadata.ResourceVersion
			writes := startBusy(c, r)
			items, pages := page.Items, 1
			for page.Metadata.Continue != "" {
				writes.awaitRound(c)
				if left := page.Metadata.RemainingItemCount; left == nil || *left != int64(manyObjects-len(items)) {
					c.Errorf("after %d %s remaining is %v", len(items), r.name, left)
				}
				page = c.List(query(r.path(c), "limit", strconv.Itoa(pageSize), "continue", page.Metadata.Continue))
				if page.Metadata.ResourceVersion != version {
					c.Errorf("page %d of %s is of version %s, the first of %s", pages, r.name, page.Metadata.ResourceVersion, version)
				}
				items, pages = append(items, page.Items...), pages+1
			}
			expectOriginals(c, r, "pages", items)
			exact := c.List(query(r.path(c), "resourceVersion", version, "resourceVersionMatch", "Exact"))
			expectOriginals(c, r, "exact", exact.Items)
			if exact.Metadata.ResourceVersion != version {
				c.Errorf("the exact list is of version %s instead of %s", exact.Metadata.ResourceVersion, version)
			}
			writes.end()
			c.Notef("%s: %d pages", r.name, pages)
		}
	})
}

func TestAListNotOlderThanAVersionIsNot(t *testing.T) {
	Plain.On(t, func(c *Case) {
		for _, r := range resources {
			c.Fill(r, 0, 10)
			for i := range 20 {
				value := fmt.Sprintf("set-%d", i)
				version := c.Set(r, itemName(3), value)
				for _, match := range []string{"NotOlderThan", "Exact"} {
					list := c.List(query(r.path(c), "resourceVersion", version, "resourceVersionMatch", match))
					newer := revision(list.Metadata.ResourceVersion) - revision(version)
					if newer < 0 || (match == "Exact" && newer != 0) {
						c.Errorf("%s %s of %s: version %s", match, r.name, version, list.Metadata.ResourceVersion)
					}
					if got := r.value(list.Items[3]); len(list.Items) != 10 || got != value {
						c.Errorf("%s %s: %d items, %q instead of %q", match, r.name, len(list.Items), got, value)
					}
				}
			}
		}
	})
}

func TestAListOfAFutureVersionIsRefused(t *testing.T) {
	Plain.On(t, func(c *Case) {
		for _, r := range resources {
			c.Fill(r, 0, 3)
			future := strconv.FormatInt(revision(c.List(r.path(c)).Metadata.ResourceVersion)+1_000_000, 10)
			for _, match := range []string{"NotOlderThan", "Exact"} {
				c.Notef("%s %s", r.name, match)
				status := c.Refused(http.StatusGatewayTimeout, "Timeout", http.MethodGet,
					query(r.path(c), "resourceVersion", future, "resourceVersionMatch", match), nil)
				if status.Message == "" {
					c.Error("without a text")
				}
			}
		}
	})
}

func TestAListSeesEveryAcknowledgedWrite(t *testing.T) {
	Plain.On(t, func(c *Case) {
		before := c.Metric("apiserver_watch_cache_consistent_read_total", `success="true"`)
		for _, r := range resources {
			c.Fill(r, 0, 5)
			for i := range 40 {
				value := fmt.Sprintf("set-%d", i)
				version := c.Set(r, itemName(i%5), value)
				list := c.List(r.path(c))
				if got := r.value(list.Items[i%5]); got != value || revision(list.Metadata.ResourceVersion) < revision(version) {
					c.Errorf("%s: a list of version %s after %s has %q instead of %q", r.name, list.Metadata.ResourceVersion, version, got, value)
				}
			}
		}
		after := c.Metric("apiserver_watch_cache_consistent_read_total", `success="true"`)
		if after-before < 40 {
			c.Errorf("only %v consistent reads from the cache", after-before)
		}
	})
}

func TestDeleteCollectionRemovesAThousandObjectsAndNoOthers(t *testing.T) {
	Plain.On(t, func(c *Case) {
		for _, r := range resources {
			c.Fill(r, 0, 1000)
			kept := r.object(c, "kept", "yes")
			kept["metadata"].(Object)["labels"] = Object{"keep": "yes"}
			version := textAt(c.Must(http.StatusCreated, http.MethodPost, r.path(c), kept), "metadata", "resourceVersion")
			watch := c.Watch(query(r.path(c), "resourceVersion", version))
			c.Must(http.StatusOK, http.MethodDelete, query(r.path(c), "labelSelector", "keep!=yes"), nil)
			gone := map[string]bool{}
			for len(gone) < 1000 {
				event := c.Next(watch)
				if event.Type != "DELETED" || gone[event.Object.Metadata.Name] {
					c.Fatalf("%s: %s of %s", r.name, event.Type, event.Object.Metadata.Name)
				}
				gone[event.Object.Metadata.Name] = true
			}
			if left := c.List(r.path(c)).Items; len(left) != 1 || left[0].Metadata.Name != "kept" {
				c.Errorf("%d %s are left", len(left), r.name)
			}
		}
	})
}
