//go:build e2e

// This file stands in for the one of the same name in etcd's suite when run.py builds the suite for TLS: every
// cluster of a test gets TLS for clients and peers, whatever the test asks for, and the cases that a test repeats for
// several kinds of cluster run on one member only, since etcd's own have three members where they have TLS.
package common

import (
	"context"
	"os"
	"testing"

	"go.etcd.io/etcd/tests/v3/framework"
	"go.etcd.io/etcd/tests/v3/framework/config"
	"go.etcd.io/etcd/tests/v3/framework/e2e"
	intf "go.etcd.io/etcd/tests/v3/framework/interfaces"
)

// kinds of TLS, by the name that run.py gives.
var kinds = map[string]config.TLSConfig{"TLS": config.ManualTLS, "AutoTLS": config.AutoTLS}

// What the tests call by these names.
var (
	WithAuth        = e2e.WithAuth
	WithAuthToken   = e2e.WithAuthToken
	WithDialTimeout = e2e.WithDialTimeout
	WithEndpoints   = e2e.WithEndpoints
	WithHTTP2Debug  = e2e.WithHTTP2Debug
	WithTCPClient   = e2e.WithTCPClient
	WithUnixClient  = e2e.WithUnixClient
)

func init() {
	name := os.Getenv("SUITE_TLS")
	kind, known := kinds[name]
	if !known {
		panic("SUITE_TLS names no kind of TLS: " + name)
	}
	testRunner = secured{framework.E2eTestRunner, kind}
	clusterTestCases = func() []testCase {
		return []testCase{{name: name, config: config.NewClusterConfig(config.WithClusterSize(1))}}
	}
}

// secured starts clusters with TLS.
type secured struct {
	intf.TestRunner
	kind config.TLSConfig
}

func (s secured) NewCluster(ctx context.Context, t testing.TB, options ...config.ClusterOption) intf.Cluster {
	t.Helper()
	options = append(options[:len(options):len(options)], config.WithClientTLS(s.kind), config.WithPeerTLS(s.kind))
	return s.TestRunner.NewCluster(ctx, t, options...)
}
