//go:build programs

// Package build only pins what the tests of kube-apiserver need compiled: `go build` of these two
// packages, by the `run` command of compat-tests. Nothing here is compiled with the tests.
package build

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
