package kube

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3"
)

func TestWhatOneApiserverAcknowledgedIsInTheNextListOfTheOther(t *testing.T) {
	SecuredPair.On(t, func(c *Case) {
		for _, r := range resources {
			c.Fill(r, 0, 4)
			for i := range 40 {
				value := fmt.Sprintf("set-%d", i)
				version := c.Set(r, itemName(i%4), value)
				answer, err := c.Apiservers[1].Ask(c.Context(), http.MethodGet, r.path(c), nil)
				if err != nil || answer.Code != http.StatusOK {
					c.Fatalf("%v %d %s", err, answer.Code, answer.Body)
				}
				list := need(into[List](answer))
				if len(list.Items) != 4 || r.value(list.Items[i%4]) != value || revision(list.Metadata.ResourceVersion) < revision(version) {
					c.Errorf("%s: after %s = %q of version %s the other lists %+v", r.name, itemName(i%4), value, version, list)
				}
			}
		}
	})
}

func TestAWatchAtOneApiserverSeesWhatIsWrittenThroughTheOther(t *testing.T) {
	SecuredPair.On(t, func(c *Case) {
		for _, r := range resources {
			from := c.List(r.path(c)).Metadata.ResourceVersion
			watch, err := c.Apiservers[1].OpenWatch(c.T.Context(), query(r.path(c), "resourceVersion", from))
			if err != nil {
				c.Fatal(err)
			}
			defer watch.Stop()
			expectChanges(c, r, watch, changeAll(c, r, 30))
		}
	})
}

func TestCompareAndSwapThroughTwoApiserversLosesNoUpdate(t *testing.T) {
	SecuredPair.On(t, countTogether)
}

func TestTwoApiserversGiveNoAddressTwice(t *testing.T) {
	SecuredPair.On(t, func(c *Case) {
		addresses, mu := map[string]string{}, sync.Mutex{}
		var group sync.WaitGroup
		for i := range servicesAtOnce {
			group.Go(func() {
				name := fmt.Sprintf("s-%d", i)
				answer, err := c.Apiservers[i%2].Ask(c.Context(), http.MethodPost, c.Path("v1", "services"), service(name, Object{}))
				if err != nil || answer.Code != http.StatusCreated {
					c.Errorf("%s: %v %d %s", name, err, answer.Code, answer.Body)
					return
				}
				address := textAt(need(into[Object](answer)), "spec", "clusterIP")
				mu.Lock()
				defer mu.Unlock()
				if addresses[address] != "" {
					c.Errorf("%s and %s have the address %s", name, addresses[address], address)
				}
				addresses[address] = name
			})
		}
		group.Wait()
	})
}

func TestEverythingIsUnderThePrefixAndOnlyClientsWithACertificateSeeIt(t *testing.T) {
	SecuredPair.On(t, func(c *Case) {
		c.Fill(resources[0], 0, 3)
		store := c.StoreClient()
		all := need(store.Get(c.Context(), "", clientv3.WithPrefix(), clientv3.WithKeysOnly()))
		for _, kv := range all.Kvs {
			key := string(kv.Key)
			// The mark of the last compaction is the only key without prefix.
			if !strings.HasPrefix(key, pairPrefix+"/") && key != "compact_rev_key" {
				c.Errorf("the key %q", key)
			}
		}
		key := pairPrefix + "/configmaps/" + c.Namespace + "/" + itemName(0)
		if answer := need(store.Get(c.Context(), key)); answer.Count != 1 {
			c.Errorf("%d keys %q", answer.Count, key)
		}
		if answer, err := http.Get("http://" + c.Store.Client + "/health"); err == nil {
			answer.Body.Close()
			if answer.StatusCode != http.StatusBadRequest {
				c.Errorf("the store talks without TLS: %s", answer.Status)
			}
		}
		config := trusting(c.keys.store, c.client)
		config.Certificates = nil
		conn, err := tls.Dial("tcp", c.Store.Client, config)
		if err == nil {
			// With TLS 1.3 the refusal comes after the client's side is done.
			_ = conn.SetDeadline(time.Now().Add(Deadline))
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		c.Notef("without a certificate: %v", err)
		if err == nil || !strings.Contains(err.Error(), "certificate required") {
			c.Errorf("without a certificate: %v", err)
		}
	})
}

func TestEventsVanishWhenTheirTimeIsOver(t *testing.T) {
	SecuredPair.On(t, func(c *Case) {
		events := resources[1]
		watch := c.Watch(query(events.path(c), "resourceVersion", c.List(events.path(c)).Metadata.ResourceVersion))
		began := time.Now()
		c.Fill(events, 0, 20)
		answer := need(c.StoreClient().Get(c.Context(), pairPrefix+"/events/"+c.Namespace+"/", clientv3.WithPrefix()))
		leases := map[int64]bool{}
		for _, kv := range answer.Kvs {
			leases[kv.Lease] = true
		}
		if len(answer.Kvs) != 20 || leases[0] || len(leases) > 5 {
			c.Errorf("%d events have the leases %v", len(answer.Kvs), leases)
		}
		for range 20 {
			if event := c.Next(watch); event.Type != "ADDED" {
				c.Fatalf("%+v", event)
			}
		}
		gone := map[string]bool{}
		for len(gone) < 20 {
			event := c.Next(watch)
			if event.Type != "DELETED" || gone[event.Object.Metadata.Name] {
				c.Fatalf("%+v", event)
			}
			gone[event.Object.Metadata.Name] = true
			if lived := time.Since(began); lived < 20*time.Second {
				c.Errorf("%s was gone after %v", event.Object.Metadata.Name, lived)
			}
		}
		if left := c.List(events.path(c)).Items; len(left) != 0 {
			c.Errorf("%d are left", len(left))
		}
	})
}
