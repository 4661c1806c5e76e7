package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// startControllers runs the controller-managers that the options ask for, and one scheduler, until the
// test ends. Nobody waits for them here: whoever needs their work sees it done.
func (c *Cluster) startControllers(t testing.TB) {
	t.Helper()
	for number := range c.options.Managers {
		c.Managers = append(c.Managers, c.controller(t, "kube-controller-manager", number+1,
			"--use-service-account-credentials=true",
			"--service-account-private-key-file="+c.keys.file("accounts.key"),
			"--root-ca-file="+c.keys.kube.file,
		))
	}
	if c.options.Managers > 0 {
		c.Scheduler = c.controller(t, "kube-scheduler", 1)
	}
	for _, p := range append([]*process{c.Scheduler}, c.Managers...) {
		if p == nil {
			continue
		}
		if err := p.launch(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
	}
}

// controller is a program that works on the first apiserver, under the name that RBAC knows it by.
func (c *Cluster) controller(t testing.TB, program string, number int, flags ...string) *process {
	t.Helper()
	name := fmt.Sprintf("%s-%d", program, number)
	return &process{
		program: program,
		flags: append([]string{
			"--kubeconfig=" + c.kubeconfig(t, name, "system:"+program),
			// Its own port says nothing that the tests ask.
			"--secure-port=0",
			// By itself it asks 20 times a second, which is what a test would measure.
			"--kube-api-qps=400", "--kube-api-burst=800",
		}, flags...),
		logFile: filepath.Join(c.dir, name+".log"),
	}
}

// kubeconfig writes the file with which a program talks to the first apiserver as this user.
func (c *Cluster) kubeconfig(t testing.TB, name, user string) string {
	t.Helper()
	own := c.keys.pairOf(t, c.keys.kube, name, user)
	config := Object{
		"apiVersion": "v1", "kind": "Config", "current-context": "it",
		"clusters": []Object{{"name": "it", "cluster": Object{
			"server": "https://" + c.Apiservers[0].Address, "certificate-authority": c.keys.kube.file}}},
		"users": []Object{{"name": "it", "user": Object{
			"client-certificate": own.certFile, "client-key": own.keyFile}}},
		"contexts": []Object{{"name": "it", "context": Object{"cluster": "it", "user": "it"}}},
	}
	file := c.keys.file(name + ".kubeconfig")
	if err := os.WriteFile(file, asJSON(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
