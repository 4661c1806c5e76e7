//go:build whole

package kube

import (
	"net/http"
	"strings"
	"testing"
)

const leaderLease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager"

// holder is who leads the controller-managers, and how often that has changed.
func (c *Case) holder() (identity string, transitions float64) {
	c.Helper()
	answer := c.Ask(http.MethodGet, leaderLease, nil)
	if answer.Code != http.StatusOK {
		return "", 0
	}
	lease := need(into[Object](answer))
	transitions, _ = at(lease, "spec", "leaseTransitions").(float64)
	return textAt(lease, "spec", "holderIdentity"), transitions
}

// awaitOther waits until another than this leads, and says which controller-manager that is.
func (c *Case) awaitOther(than string) (leader *process, identity string) {
	c.Helper()
	c.Finally("another controller-manager leads", func() bool {
		identity, _ = c.holder()
		return identity != "" && identity != than
	})
	// The one whose run says so: those before it were killed, and began anew or not.
	c.Finally("it knows", func() bool {
		for _, manager := range c.Managers {
			if manager.alive() && strings.Contains(manager.LogOfRun(), "Successfully acquired lease") {
				leader = manager
			}
		}
		return leader != nil
	})
	return leader, identity
}

func TestTheLeadershipMovesWhenAControllerManagerIsKilled(t *testing.T) {
	OnOwn(t, Options{Managers: 2, Nodes: 3}, func(c *Case) {
		leader, first := c.awaitOther("")
		c.Deploy("web", 40, "example.com/web:1")
		c.AwaitDeployed("web", 40)
		_, before := c.holder()
		leader.Kill()
		c.Scale("web", 80)
		next, second := c.awaitOther(first)
		if next == leader {
			c.Error("the one that was killed leads")
		}
		c.AwaitDeployed("web", 80)
		c.ExpectRunning("web", "example.com/web:1")
		// What was killed comes back and only waits.
		if err := leader.launch(); err != nil {
			c.Fatal(err)
		}
		c.Scale("web", 20)
		c.AwaitDeployed("web", 20)
		if now, _ := c.holder(); now != second {
			c.Errorf("%s leads instead of %s", now, second)
		}
		next.Kill()
		_, third := c.awaitOther(second)
		c.Scale("web", 0)
		c.AwaitDeployed("web", 0)
		_, after := c.holder()
		c.Notef("%v changes of the leader", after-before)
		if third == first || after-before != 2 {
			c.Errorf("%s, %s, %s led: %v changes", first, second, third, after-before)
		}
		c.ExpectNodesWell()
	})
}
