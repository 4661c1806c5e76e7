package kube

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

func TestAWriteWithAnOldVersionIsRefused(t *testing.T) {
	Plain.On(t, func(c *Case) {
		old := c.Must(http.StatusCreated, http.MethodPost, c.ConfigMaps(), configMap("one", "1"))
		c.Must(http.StatusOK, http.MethodPatch, c.ConfigMaps("one"), patch{mergePatch, `{"data":{"value":"2"}}`})
		version := textAt(old, "metadata", "resourceVersion")
		c.Refused(http.StatusConflict, "Conflict", http.MethodPut, c.ConfigMaps("one"), old)
		c.Refused(http.StatusConflict, "Conflict", http.MethodPatch, c.ConfigMaps("one"),
			patch{mergePatch, `{"metadata":{"resourceVersion":"` + version + `"},"data":{"value":"3"}}`})
		c.Refused(http.StatusConflict, "Conflict", http.MethodDelete, c.ConfigMaps("one"),
			Object{"preconditions": Object{"resourceVersion": version}})
		c.Refused(http.StatusConflict, "Conflict", http.MethodDelete, c.ConfigMaps("one"),
			Object{"preconditions": Object{"uid": "00000000-0000-0000-0000-000000000000"}})
		c.Refused(http.StatusConflict, "AlreadyExists", http.MethodPost, c.ConfigMaps(), configMap("one", "4"))
		c.Refused(http.StatusNotFound, "NotFound", http.MethodDelete, c.ConfigMaps("two"), nil)
		now := c.Get(c.ConfigMaps("one"))
		if value := textAt(now, "data", "value"); value != "2" {
			c.Errorf("the value has become %q", value)
		}
		c.Must(http.StatusOK, http.MethodDelete, c.ConfigMaps("one"),
			Object{"preconditions": Object{"resourceVersion": textAt(now, "metadata", "resourceVersion")}})
	})
}

const (
	counters   = 8
	increments = 20
)

// increment adds one to a counter by compare-and-swap, as often as it takes; it says how often that was.
func increment(c *Case, a *Apiserver, path string) (tries int, err error) {
	for {
		tries++
		answer, err := a.Ask(c.Context(), http.MethodGet, path, nil)
		if err != nil {
			return tries, err
		}
		object := need(into[Object](answer))
		value, err := strconv.Atoi(textAt(object, "data", "value"))
		if err != nil {
			return tries, fmt.Errorf("%w in %s", err, answer.Body)
		}
		object["data"] = Object{"value": strconv.Itoa(value + 1)}
		answer, err = a.Ask(c.Context(), http.MethodPut, path, object)
		if err != nil {
			return tries, err
		}
		switch answer.Code {
		case http.StatusOK:
			return tries, nil
		case http.StatusConflict:
		default:
			return tries, fmt.Errorf("%d %s", answer.Code, answer.Body)
		}
	}
}

// countTogether increments one counter from many sides, through all apiservers in turn.
func countTogether(c *Case) {
	c.Helper()
	c.Must(http.StatusCreated, http.MethodPost, c.ConfigMaps(), configMap("counter", "0"))
	var group sync.WaitGroup
	var tries atomic.Int64
	for i := range counters {
		group.Go(func() {
			for range increments {
				needed, err := increment(c, c.Apiservers[i%len(c.Apiservers)], c.ConfigMaps("counter"))
				if err != nil {
					c.Errorf("counter %d: %v", i, err)
					return
				}
				tries.Add(int64(needed))
			}
		})
	}
	group.Wait()
	if value := textAt(c.Get(c.ConfigMaps("counter")), "data", "value"); value != strconv.Itoa(counters*increments) {
		c.Errorf("%d increments made it %s", counters*increments, value)
	}
	c.Logf("%d increments took %d tries", counters*increments, tries.Load())
}

func TestParallelCompareAndSwapLosesNoUpdate(t *testing.T) {
	Plain.On(t, countTogether)
}

func TestOfParallelCreationsOfOneNameOneWins(t *testing.T) {
	Plain.On(t, func(c *Case) {
		for round := range 10 {
			var group sync.WaitGroup
			var created, refused atomic.Int64
			for i := range counters {
				group.Go(func() {
					answer, err := c.Apiserver().Ask(c.Context(), http.MethodPost, c.ConfigMaps(),
						configMap(fmt.Sprintf("race-%d", round), strconv.Itoa(i)))
					switch {
					case err != nil:
						c.Error(err)
					case answer.Code == http.StatusCreated:
						created.Add(1)
					case answer.Code == http.StatusConflict:
						refused.Add(1)
					}
				})
			}
			group.Wait()
			if created.Load() != 1 || refused.Load() != counters-1 {
				c.Errorf("round %d: %d created, %d refused", round, created.Load(), refused.Load())
			}
		}
	})
}
