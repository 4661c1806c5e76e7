// Package kube runs the real kube-apiserver and kubectl on real etcd and on etched, and does with them
// what their users do. A body states what it expects and notes what it was told; the notes of both
// servers must be the same.
//
//	test --> Plain.On, OnOwn --> Cluster { kube-apiserver, ... --> etcd or etched } --> Case --> notes
//
// The programs are compiled from the module in build/, by the `run` command of compat-tests. What may be
// used side by side is tested on clusters that live until the end (shared.go); what kills has its own. After each body the apiserver's log must hold no complaint about the store
// (complaints.go). Nothing here knows anything of etcd but its address: it is an apiserver's business.
package kube

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"etched.local/compat-tests/harness"
)

// Options are what sets one cluster apart from others.
type Options struct {
	// Apiservers on the store; 0 is 1.
	Apiservers int
	// Secured is TLS with client certificates between apiservers and store.
	Secured bool
	// WithoutRangeStream is a store that refuses that call, as one before etcd 3.7 does.
	WithoutRangeStream bool
	// Managers is how many kube-controller-managers there are; with one or more there is a scheduler too.
	Managers int
	// Nodes is how many fake nodes there are.
	Nodes int
	// Flags of the apiservers besides the usual ones.
	Flags []string
}

// Cluster is a store with the apiservers on it.
type Cluster struct {
	Kind       harness.Kind
	Store      *harness.Server
	Apiservers []*Apiserver
	Managers   []*process
	Scheduler  *process
	Nodes      *nodes

	options  Options
	dir      string
	keys     *keys
	admin    pair
	client   pair
	refusing *refusing
	log      complaintLog
}

// What the store is started with: what kubeadm sets.
const progressInterval = "--watch-progress-notify-interval=5s"

// start runs a store and its apiservers until the test ends.
func start(t testing.TB, kind harness.Kind, options Options) *Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "compat-kube-"+string(kind)+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &Cluster{Kind: kind, options: options, dir: dir, keys: makeKeys(t, dir)}
	c.admin = c.keys.pair(t, c.keys.kube, "admin", "system:masters")
	c.client = c.keys.pair(t, c.keys.store, "apiserver-store-client")
	c.Store = harness.Start(t, kind, c.storeFlags(t)...)
	if options.WithoutRangeStream {
		c.refusing = startRefusing(t, c.Store.Client)
	}
	for number := range max(1, options.Apiservers) {
		c.Apiservers = append(c.Apiservers, c.apiserver(t, number+1))
	}
	for _, a := range c.Apiservers {
		if err := a.launch(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Kill)
	}
	for _, a := range c.Apiservers {
		a.AwaitReady(t)
	}
	c.startControllers(t)
	if options.Nodes > 0 {
		c.Nodes = startNodes(t, c.Apiservers[0], options.Nodes)
	}
	return c
}

func (c *Cluster) storeFlags(t testing.TB) []string {
	t.Helper()
	if !c.options.Secured {
		return []string{progressInterval}
	}
	own := c.keys.pair(t, c.keys.store, "store")
	return []string{
		progressInterval,
		"--listen-client-urls=https://<client>", "--advertise-client-urls=https://<client>",
		"--cert-file=" + own.certFile, "--key-file=" + own.keyFile,
		"--client-cert-auth", "--trusted-ca-file=" + c.keys.store.file,
	}
}

// apiserver is the n-th apiserver, not yet started.
func (c *Cluster) apiserver(t testing.TB, number int) *Apiserver {
	t.Helper()
	address := harness.FreePort(t)
	_, port := split(address)
	own := c.keys.pair(t, c.keys.kube, fmt.Sprintf("apiserver-%d", number))
	flags := []string{
		"--bind-address=127.0.0.1", "--secure-port=" + port,
		// Only written down, never dialed: an apiserver may not announce a loopback address.
		fmt.Sprintf("--advertise-address=192.0.2.%d", number),
		"--tls-cert-file=" + own.certFile, "--tls-private-key-file=" + own.keyFile,
		"--client-ca-file=" + c.keys.kube.file,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.keys.file("accounts.pub"),
		"--service-account-signing-key-file=" + c.keys.file("accounts.key"),
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=Node,RBAC",
	}
	if c.options.Managers == 0 {
		// No controller makes the accounts that it asks for.
		flags = append(flags, "--disable-admission-plugins=ServiceAccount")
	}
	flags = append(flags, c.towardsStore()...)
	return &Apiserver{
		Address: address,
		process: process{
			program: "kube-apiserver",
			flags:   append(flags, c.options.Flags...),
			logFile: filepath.Join(c.dir, fmt.Sprintf("apiserver-%d.log", number)),
		},
		client: &http.Client{Transport: c.transport()},
	}
}

// towardsStore are the flags that say how to reach the store.
func (c *Cluster) towardsStore() []string {
	switch {
	case c.options.Secured:
		return []string{"--etcd-servers=https://" + c.Store.Client, "--etcd-cafile=" + c.keys.store.file,
			"--etcd-certfile=" + c.client.certFile, "--etcd-keyfile=" + c.client.keyFile}
	case c.refusing != nil:
		return []string{"--etcd-servers=http://" + c.refusing.address}
	default:
		return []string{"--etcd-servers=http://" + c.Store.Client}
	}
}

func (c *Cluster) transport() http.RoundTripper {
	return &http.Transport{TLSClientConfig: trusting(c.keys.kube, c.admin), ForceAttemptHTTP2: true}
}
