package kube

import (
	"errors"
	"net/http"
	"strconv"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3"
)

// AwaitCompaction waits until the apiserver has compacted this version.
func (c *Case) AwaitCompaction(store *clientv3.Client, version string) {
	c.Helper()
	c.Eventually("the apiserver's compaction of "+version, func() bool {
		_, err := store.Get(c.Context(), "compact_rev_key", clientv3.WithRev(revision(version)))
		return errors.Is(err, rpctypes.ErrCompacted)
	})
}

func TestAfterACompactionOldVersionsAreGoneAndATokenLeadsToANewOne(t *testing.T) {
	Compacting.On(t, func(c *Case) {
		store := c.StoreClient()
		for _, r := range resources {
			const objects = 250
			c.Fill(r, 0, objects)
			first := c.List(query(r.path(c), "limit", strconv.Itoa(pageSize)))
			version := first.Metadata.ResourceVersion
			c.Set(r, itemName(objects-1), "changed")
			c.AwaitCompaction(store, version)
			c.Notef("%s", r.name)
			expectNewToken(c, r, first, objects)
			c.Eventually("its exact list is refused", func() bool {
				return c.Ask(http.MethodGet, query(r.path(c), "resourceVersion", version, "resourceVersionMatch", "Exact"), nil).Code == http.StatusGone
			})
			c.Refused(http.StatusGone, "Expired", http.MethodGet,
				query(r.path(c), "resourceVersion", version, "resourceVersionMatch", "Exact"), nil)
			if r.name == "events" {
				expectWatchIsGone(c, r, version)
			}
			if got := len(c.List(r.path(c)).Items); got != objects {
				c.Errorf("%d %s after the compaction", got, r.name)
			}
		}
	})
}

// expectNewToken expects 410 for the token of the first page, and the rest of the list, of now, for the
// token that comes with it.
func expectNewToken(c *Case, r resource, first List, objects int) {
	c.Helper()
	next := query(r.path(c), "limit", strconv.Itoa(pageSize), "continue", first.Metadata.Continue)
	c.Eventually("the token is too old", func() bool { return c.Ask(http.MethodGet, next, nil).Code == http.StatusGone })
	status := c.Refused(http.StatusGone, "Expired", http.MethodGet, next, nil)
	token, items := status.Metadata.Continue, first.Items
	for token != "" {
		page := c.List(query(r.path(c), "limit", strconv.Itoa(pageSize), "continue", token))
		if revision(page.Metadata.ResourceVersion) <= revision(first.Metadata.ResourceVersion) {
			c.Errorf("the rest of %s is of version %s, the first page of %s", r.name, page.Metadata.ResourceVersion, first.Metadata.ResourceVersion)
		}
		items, token = append(items, page.Items...), page.Metadata.Continue
	}
	if len(items) != objects {
		c.Fatalf("%d %s instead of %d", len(items), r.name, objects)
	}
	for i, item := range items {
		want := strconv.Itoa(i)
		if i == objects-1 {
			want = "changed"
		}
		if item.Metadata.Name != itemName(i) || r.value(item) != want {
			c.Errorf("%s: at %d is %s = %q", r.name, i, item.Metadata.Name, r.value(item))
		}
	}
}

func expectWatchIsGone(c *Case, r resource, version string) {
	c.Helper()
	watch := c.Watch(query(r.path(c), "resourceVersion", version))
	event := c.Next(watch)
	c.Notef("%s %d %s %s", event.Type, event.Object.Code, event.Object.Reason, event.Object.Message)
	if event.Type != "ERROR" || event.Object.Code != http.StatusGone || event.Object.Reason != "Expired" {
		c.Errorf("instead of its refusal: %+v", event)
	}
}

func TestWatchesAndWritesGoOnWhileTheApiserverCompacts(t *testing.T) {
	Compacting.On(t, func(c *Case) {
		store := c.StoreClient()
		for _, r := range resources {
			from := c.List(r.path(c)).Metadata.ResourceVersion
			watch := c.Watch(query(r.path(c), "resourceVersion", from))
			for round := range 3 {
				changes := changeAll(c, r, 12)
				expectChanges(c, r, watch, changes)
				c.AwaitCompaction(store, c.List(r.path(c)).Metadata.ResourceVersion)
				c.Must(http.StatusOK, http.MethodDelete, r.path(c), nil)
				for left := 8; left > 0; left-- {
					if event := c.Next(watch); event.Type != "DELETED" {
						c.Fatalf("round %d: %+v", round, event)
					}
				}
			}
		}
	})
}
