package kube

import (
	"strconv"
	"testing"
)

func TestWithoutRangeStreamTheApiserverReadsPages(t *testing.T) {
	OnOwn(t, Options{WithoutRangeStream: true}, func(c *Case) {
		if c.refusing.refused.Load() == 0 {
			c.Error("the apiserver has not tried it")
		}
		for _, r := range resources {
			const objects = 250
			c.Fill(r, 0, objects)
			page := c.List(query(r.path(c), "limit", strconv.Itoa(pageSize)))
			items := page.Items
			for page.Metadata.Continue != "" {
				page = c.List(query(r.path(c), "limit", strconv.Itoa(pageSize), "continue", page.Metadata.Continue))
				items = append(items, page.Items...)
			}
			if len(items) != objects || items[objects-1].Metadata.Name != itemName(objects-1) {
				c.Errorf("%d %s in pages", len(items), r.name)
			}
			// With a selector it looks for more until the page is full.
			few := c.List(query(r.path(c), "limit", "3", "fieldSelector", "metadata.name="+itemName(200)))
			if len(few.Items) != 1 {
				c.Errorf("%d %s selected", len(few.Items), r.name)
			}
		}
		if served := c.StoreMetric("grpc_server_handled_total", `grpc_method="RangeStream"`); served != 0 {
			c.Errorf("the store has answered %v calls of RangeStream", served)
		}
	})
}
