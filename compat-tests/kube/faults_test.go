package kube

import (
	"net/http"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/v3"
)

// Between two kills this many writes are acknowledged.
const writesBetweenKills = 150

func TestAcknowledgedWritesOutliveKillsOfTheApiserverAndOfTheStore(t *testing.T) {
	// It is also how long an apiserver that is stopped waits for the watches that are open.
	options := Options{Apiservers: 2, Flags: []string{"--request-timeout=10s"}}
	OnOwn(t, options, func(c *Case) {
		first, second := c.Apiservers[0], c.Apiservers[1]
		c.AwaitPeers()
		version := c.List(c.ConfigMaps()).Metadata.ResourceVersion
		w := c.StartWriters()
		// One watches at an apiserver that is killed, the other at one that lives.
		killed, alive := c.StartWitness(first, version), c.StartWitness(second, version)

		c.AwaitWrites(w, writesBetweenKills)
		first.Kill()
		c.AwaitWrites(w, writesBetweenKills) // those of the second
		first.Start(c)
		c.AwaitWrites(w, writesBetweenKills)
		c.expectNoComplaint(c.T)
		first.Stop(c)
		c.ForgiveComplaints() // it says that it ends its watches
		first.Start(c)
		c.AwaitWrites(w, writesBetweenKills)
		c.expectNoComplaint(c.T) // till here the store was there

		for range 3 {
			c.Store.Kill()
			c.Store.Restart(c)
			c.AwaitWrites(w, writesBetweenKills)
		}
		first.AwaitReady(c)
		second.AwaitReady(c)
		w.stop()
		c.ExpectAcknowledged(w)
		c.Must(http.StatusCreated, http.MethodPost, c.ConfigMaps(), configMap("last", "1"))
		c.ExpectWitnessed(killed, w)
		c.ExpectWitnessed(alive, w)
		if alive.opened != 1 || alive.relists != 0 {
			c.Errorf("the watch at the apiserver that lived was opened %d times", alive.opened)
		}
		expectHealthToFollow(c)
		c.ForgiveComplaints() // the store was gone
		c.Set(resources[0], "last", "2")
		c.List(c.ConfigMaps())
	})
}

// AwaitPeers waits until each apiserver has its entry among the peers: one that starts while there is none
// complains. The first try of an apiserver may fail beside another on an empty store, the next is ten
// seconds later.
func (c *Case) AwaitPeers() {
	c.Helper()
	store := c.StoreClient()
	c.Eventually("all apiservers are among the peers", func() bool {
		answer := need(store.Get(c.Context(), defaultPrefix+"masterleases/", clientv3.WithPrefix(), clientv3.WithCountOnly()))
		return answer.Count == int64(len(c.Apiservers))
	})
}

// expectHealthToFollow expects the apiserver's checks of the store to fail while it is gone.
func expectHealthToFollow(c *Case) {
	c.Helper()
	checks := []string{"/livez/etcd", "/readyz/etcd", "/readyz/etcd-readiness"}
	c.Store.Kill()
	for _, path := range checks {
		c.Eventually(path+" fails", func() bool {
			return c.Ask(http.MethodGet, path, nil).Code == http.StatusInternalServerError
		})
	}
	answer := c.Ask(http.MethodGet, "/readyz?verbose", nil)
	if answer.Code != http.StatusInternalServerError || !strings.Contains(string(answer.Body), "[-]etcd failed") {
		c.Errorf("/readyz: %d %s", answer.Code, answer.Body)
	}
	c.Store.Restart(c)
	for _, path := range checks {
		c.Eventually(path+" is well again", func() bool {
			return c.Ask(http.MethodGet, path, nil).Code == http.StatusOK
		})
	}
}
