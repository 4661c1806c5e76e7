//go:build e2e

// Package common only pins what etcd's own black-box suite, go.etcd.io/etcd/tests/v3/common, is
// compiled from. The suite's tests live in the module cache; `go mod tidy` does not look at the
// tests of a dependency, so what they import is named here.
package common

import (
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/stretchr/testify/require"
	_ "go.etcd.io/etcd/client/pkg/v3/fileutil"
	_ "go.etcd.io/etcd/client/v3"
	_ "go.etcd.io/etcd/server/v3/etcdserver/txn"
	_ "go.etcd.io/etcd/server/v3/storage/mvcc/testutil"
	_ "go.etcd.io/etcd/tests/v3/framework"
	_ "google.golang.org/protobuf/testing/protocmp"
)
