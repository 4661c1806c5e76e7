package kube

import (
	"sync"
	"testing"

	"etched.local/compat-tests/harness"
)

// SharedCluster is a cluster of each kind that several tests use side by side. The first test that
// needs it starts it, and it lives until all have ended.
type SharedCluster struct {
	options Options
	etcd    lasting
	etched  lasting
}

type lasting struct {
	once    sync.Once
	cluster *Cluster
	ends    []func()
}

// What the tests share.
var (
	// Plain is as most are; the apiserver asks for sizes and counts more often than by itself.
	Plain = &SharedCluster{options: Options{Flags: []string{
		"--etcd-db-metric-poll-interval=1s", "--etcd-count-metric-poll-period=2s",
	}}}
	// Compacting has an apiserver that compacts every two seconds what is older than that.
	Compacting = &SharedCluster{options: Options{Flags: []string{"--etcd-compaction-interval=2s"}}}
	// SecuredPair is two apiservers that talk TLS with the store, keep everything under a prefix of
	// their own, and let Events live for a short time.
	SecuredPair = &SharedCluster{options: Options{
		Apiservers: 2, Secured: true, Flags: []string{"--etcd-prefix=" + pairPrefix, "--event-ttl=20s"},
	}}
	// Controlled has all of Kubernetes but the kubelets.
	Controlled = &SharedCluster{options: Options{Managers: 1, Nodes: 20}}
)

const pairPrefix = "/another/place"

// On runs the body on the shared cluster of each kind, beside other tests.
func (s *SharedCluster) On(t *testing.T, body func(c *Case)) {
	t.Helper()
	onBoth(t, body, s.get)
}

func (s *SharedCluster) get(t *testing.T, kind harness.Kind) *Cluster {
	t.Helper()
	l := s.of(kind)
	l.once.Do(func() { l.cluster = start(outliving{t, l}, kind, s.options) })
	if l.cluster == nil {
		t.Fatal("the shared cluster did not start")
	}
	return l.cluster
}

func (s *SharedCluster) of(kind harness.Kind) *lasting {
	if kind == harness.Etcd {
		return &s.etcd
	}
	return &s.etched
}

// endShared ends all of them.
func endShared() {
	for _, s := range []*SharedCluster{Plain, Compacting, SecuredPair, Controlled} {
		for _, kind := range kinds {
			for ends := s.of(kind).ends; len(ends) > 0; ends = ends[:len(ends)-1] {
				ends[len(ends)-1]()
			}
		}
	}
}

// outliving is a test whose clean-up waits for the end of all tests.
type outliving struct {
	testing.TB
	lasting *lasting
}

// Cleanup runs later.
func (o outliving) Cleanup(end func()) { o.lasting.ends = append(o.lasting.ends, end) }

// Failed is asked during the clean-up, when nothing can be logged any more.
func (o outliving) Failed() bool { return false }
