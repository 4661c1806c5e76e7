//go:build whole

package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"etched.local/compat-tests/harness"
)

// The addresses and ports that kubeadm writes into its manifests. It takes no loopback address for a node's
// own and has no flags for the store's ports, so they are replaced in what it wrote.
const (
	nodeAddress    = "192.0.2.1"
	otherLoopback  = "127.0.0.2"
	storePort      = "2379"
	storePeerPort  = "2380"
	storeProbePort = "2381"
	apiserverPort  = "6443"
)

// What kubeadm is told: of the store, one of the last two.
const (
	configuration = `
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: ` + nodeAddress + `}
nodeRegistration: {name: node-1, criSocket: "unix:///none"}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
certificatesDir: <dir>/pki
apiServer: {certSANs: [127.0.0.1]}
etcd:
`
	localStore = `
  local: {dataDir: <dir>/data, imageRepository: registry.example.com, imageTag: 3.7.1}
`
	externalStore = `
  external:
    endpoints: ["<endpoint>"]
    caFile: <dir>/pki/etcd/ca.crt
    certFile: <dir>/pki/apiserver-etcd-client.crt
    keyFile: <dir>/pki/apiserver-etcd-client.key
`
)

// adm is a control plane as kubeadm sets one up, without the containers: the commands of its manifests.
type adm struct {
	*testing.T
	dir   string
	ports map[string]string
}

// kubeadm runs it with this choice of store in its configuration, and returns all that it printed.
func (a *adm) kubeadm(store string, args ...string) string {
	a.Helper()
	config := filepath.Join(a.dir, "config.yaml")
	endpoint := "https://127.0.0.1:" + a.ports[storePort]
	content := strings.NewReplacer("<dir>", a.dir, "<endpoint>", endpoint).Replace(configuration + store)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		a.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(a.Context(), startDeadline)
	defer cancel()
	command := exec.CommandContext(ctx, program("kubeadm"), append(args, "--config", config)...)
	command.Env = []string{"HOME=" + a.dir, "PATH=" + os.Getenv("PATH"), "KUBEADM_INIT_DRYRUN_DIR=" + a.dir}
	output, err := command.CombinedOutput()
	if err != nil {
		a.Fatalf("kubeadm %v: %v\n%s", args, err, output)
	}
	return string(output)
}

// commandOf is the command of the one container of a manifest, with loopback addresses and free ports in it.
func (a *adm) commandOf(manifest string) (command []string) {
	a.Helper()
	replaced := []string{"https://" + nodeAddress + ":" + storePort, "https://" + otherLoopback + ":" + a.ports[storePort],
		nodeAddress + ":" + storePeerPort, "127.0.0.1:" + a.ports[storePeerPort]}
	for port, chosen := range a.ports {
		replaced = append(replaced, "127.0.0.1:"+port, "127.0.0.1:"+chosen, "--secure-port="+port, "--secure-port="+chosen)
	}
	replacer := strings.NewReplacer(replaced...)
	inside := false
	for line := range strings.Lines(string(need(os.ReadFile(filepath.Join(a.dir, manifest+".yaml"))))) {
		word, item := strings.CutPrefix(strings.TrimSpace(line), "- ")
		switch {
		case word == "command:":
			inside = true
		case inside && item:
			command = append(command, replacer.Replace(word))
		case inside:
			return command
		}
	}
	a.Fatalf("%s.yaml has no command", manifest)
	return nil
}

// run starts a program under the name that the manifest calls it by.
func (a *adm) run(binary string, command []string, more ...string) *process {
	a.Helper()
	name := filepath.Join(a.dir, command[0])
	if err := os.Symlink(binary, name); err != nil {
		a.Fatal(err)
	}
	p := &process{program: name, flags: append(command[1:], more...), logFile: name + ".log"}
	if err := p.launch(); err != nil {
		a.Fatal(err)
	}
	a.Cleanup(func() {
		if a.Failed() {
			a.Logf("the last lines of %s:\n%s", name, p.LogTail(15))
		}
		p.Kill()
	})
	return p
}

// awaitProbe waits until a probe of the store's manifest is answered as the kubelet wants it.
func (a *adm) awaitProbe(path string) {
	a.Helper()
	harness.Within(a, Deadline, path, func() bool {
		answer, err := http.Get("http://127.0.0.1:" + a.ports[storeProbePort] + path)
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// kubectl runs it as the user that kubeadm writes a file for.
func (a *adm) kubectl(args ...string) string {
	a.Helper()
	command := exec.Command(program("kubectl"), append([]string{"--kubeconfig", filepath.Join(a.dir, "super-admin.conf"),
		"--server", "https://127.0.0.1:" + a.ports[apiserverPort], "--cache-dir", a.dir}, args...)...)
	command.Env = []string{"HOME=" + a.dir, "PATH=" + os.Getenv("PATH")}
	output, err := command.CombinedOutput()
	if err != nil {
		a.Fatalf("kubectl %v: %v\n%s", args, err, output)
	}
	return strings.TrimSpace(string(output))
}

func TestTheStaticPodsThatKubeadmWritesRun(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) { staticPods(&adm{T: t, dir: t.TempDir(), ports: map[string]string{}}, kind) })
	}
}

func staticPods(a *adm, kind harness.Kind) {
	for _, port := range []string{storePort, storePeerPort, storeProbePort, apiserverPort} {
		_, a.ports[port] = split(harness.FreePort(a))
	}
	a.kubeadm(localStore, "init", "phase", "certs", "all")
	a.kubeadm(localStore, "init", "phase", "kubeconfig", "super-admin", "--kubeconfig-dir", a.dir)
	a.kubeadm(localStore, "init", "phase", "etcd", "local", "--dry-run")
	a.kubeadm(localStore, "init", "phase", "control-plane", "apiserver", "--dry-run")

	store := a.run(harness.Binary(string(kind)), a.commandOf("etcd"))
	a.awaitProbe("/readyz")
	a.awaitProbe("/livez")
	said := a.kubeadm(externalStore, "init", "phase", "preflight", "--dry-run", "--ignore-preflight-errors=all")
	if strings.Contains(said, "ExternalEtcdVersion") {
		a.Errorf("kubeadm does not take it for an external store:\n%s", said)
	}

	api := Apiserver{Address: "127.0.0.1:" + a.ports[apiserverPort], client: a.client()}
	api.process = *a.run(program("kube-apiserver"), a.commandOf("kube-apiserver"), "--bind-address=127.0.0.1",
		"--disable-admission-plugins=ServiceAccount")
	api.AwaitReady(a)
	a.kubectl("create", "configmap", "kept", "--from-literal=color=red")
	store.Kill()
	if err := store.launch(); err != nil {
		a.Fatal(err)
	}
	a.awaitProbe("/readyz")
	api.AwaitReady(a)
	if color := a.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.color}"); color != "red" {
		a.Errorf("after a kill of the store the color is %q", color)
	}
	a.saveAndRestore(kind, store, &api)
}

// saveAndRestore goes back to a snapshot as a whole cluster has to: what was made after it is gone, versions
// go on above all that were told before, and the apiserver starts anew.
func (a *adm) saveAndRestore(kind harness.Kind, store *process, api *Apiserver) {
	a.Helper()
	snapshot := filepath.Join(a.dir, "backup.db")
	a.tool("etcdctl", "--endpoints=https://127.0.0.1:"+a.ports[storePort], "--cacert="+a.dir+"/pki/etcd/ca.crt",
		"--cert="+a.dir+"/pki/etcd/healthcheck-client.crt", "--key="+a.dir+"/pki/etcd/healthcheck-client.key",
		"snapshot", "save", snapshot)
	a.kubectl("create", "configmap", "late", "--from-literal=color=blue")
	before := revision(a.kubectl("get", "configmap", "late", "-o", "jsonpath={.metadata.resourceVersion}"))
	api.Stop(a)
	store.Stop(a)
	if err := os.Rename(filepath.Join(a.dir, "data"), filepath.Join(a.dir, "data.before")); err != nil {
		a.Fatal(err)
	}
	peer := "https://127.0.0.1:" + a.ports[storePeerPort]
	tools := map[harness.Kind]string{harness.Etcd: "etcdutl", harness.Etched: "etchedutl"}
	a.tool(tools[kind], "snapshot", "restore", snapshot, "--data-dir", filepath.Join(a.dir, "data"),
		"--name=node-1", "--initial-cluster=node-1="+peer, "--initial-advertise-peer-urls="+peer,
		"--bump-revision=1000000000", "--mark-compacted")
	if err := store.launch(); err != nil {
		a.Fatal(err)
	}
	a.awaitProbe("/readyz")
	api.Start(a)
	if left := a.kubectl("get", "configmaps", "-o", "name"); !strings.Contains(left, "/kept") || strings.Contains(left, "/late") {
		a.Errorf("after the restore there are %q", left)
	}
	a.kubectl("create", "configmap", "new", "--from-literal=color=green")
	if now := revision(a.kubectl("get", "configmap", "new", "-o", "jsonpath={.metadata.resourceVersion}")); now < before+1_000_000 {
		a.Errorf("versions go on at %d after %d", now, before)
	}
}

// tool runs one of the store's tools, which must end well.
func (a *adm) tool(name string, args ...string) {
	a.Helper()
	output, err := exec.Command(harness.Binary(name), args...).CombinedOutput()
	if err != nil {
		a.Fatalf("%s %v: %v\n%s", name, args, err, output)
	}
}

// client trusts the certificates that kubeadm made.
func (a *adm) client() *http.Client {
	a.Helper()
	pki := func(name string) string { return filepath.Join(a.dir, "pki", name) }
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(need(os.ReadFile(pki("ca.crt"))))
	own := need(tls.LoadX509KeyPair(pki("apiserver-kubelet-client.crt"), pki("apiserver-kubelet-client.key")))
	config := &tls.Config{RootCAs: trusted, Certificates: []tls.Certificate{own}}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
}
