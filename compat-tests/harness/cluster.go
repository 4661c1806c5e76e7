package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Cluster is several servers that are members of one cluster.
type Cluster struct {
	// Members in the order of their start; one that was removed stays here.
	Members []*Server
	flags   []string
}

// PeerURL under which the others reach a member: with TLS where its flags have some for peers.
func (s *Server) PeerURL() string {
	for _, flag := range s.flags {
		if strings.HasPrefix(flag, "--peer-auto-tls") || strings.HasPrefix(flag, "--peer-cert-file") {
			return "https://" + s.Peer
		}
	}
	return "http://" + s.Peer
}

// StartCluster starts a new cluster with a member of each of these kinds, and waits until all serve. Flags are given to
// each.
func StartCluster(t testing.TB, kinds []Kind, flags ...string) *Cluster {
	t.Helper()
	c := &Cluster{flags: flags}
	for number, kind := range kinds {
		c.Members = append(c.Members, c.prepare(t, number, kind))
	}
	c.start(t, c.Members, "new")
	return c
}

// Join starts a member that the cluster has been told of already.
func (c *Cluster) Join(t testing.TB, member *Server, gone ...*Server) {
	t.Helper()
	c.Members = append(c.Members, member)
	c.start(t, []*Server{member}, "existing", gone...)
}

// Prepare chooses the ports and the directory of a further member, to be added and then joined.
func (c *Cluster) Prepare(t testing.TB, kind Kind) *Server {
	t.Helper()
	return c.prepare(t, len(c.Members), kind)
}

func (c *Cluster) prepare(t testing.TB, number int, kind Kind) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "compat-"+string(kind)+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Kind: kind, DataDir: filepath.Join(dir, "data")}
	s.Client, s.Peer = freePorts(t)
	s.flags = append([]string{"--name", fmt.Sprintf("m%d", number)}, c.flags...)
	s.flags = append(s.flags, "--listen-peer-urls", s.PeerURL(), "--initial-advertise-peer-urls", s.PeerURL())
	t.Cleanup(func() {
		if t.Failed() && s.log != nil {
			t.Logf("last lines of %s (%s):\n%s", s.flags[1], kind, s.log.tail(12))
		}
		s.Kill()
	})
	return s
}

func (c *Cluster) start(t testing.TB, members []*Server, state string, gone ...*Server) {
	t.Helper()
	var initial []string
	for _, s := range c.Members {
		left := false
		for _, other := range gone {
			left = left || other == s
		}
		if !left {
			initial = append(initial, s.flags[1]+"="+s.PeerURL())
		}
	}
	failed := make(chan error, len(members))
	for _, s := range members {
		s.flags = append(s.flags, "--initial-cluster", strings.Join(initial, ","),
			"--initial-cluster-state", state)
		go func() { failed <- s.run() }()
	}
	for range members {
		if err := <-failed; err != nil {
			t.Fatalf("a member did not start: %v", err)
		}
	}
}
