//go:build programs

// Package build only pins what the tests of Kubernetes need compiled: `go build` of these packages, by
// the `run` command of compat-tests. Nothing here is compiled with the tests.
package build

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubeadm"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
