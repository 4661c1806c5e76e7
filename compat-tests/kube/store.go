package kube

import (
	"io"
	"net/http"
	"time"

	"go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Prefix under which an apiserver keeps everything, unless told otherwise.
const defaultPrefix = "/registry/"

// StoreClient is a client of the store itself, to see what the apiserver did there.
func (c *Case) StoreClient() *clientv3.Client {
	c.Helper()
	config := clientv3.Config{
		Endpoints: []string{c.Store.Client}, DialTimeout: Deadline, Logger: zap.NewNop(),
		DialKeepAliveTime: 30 * time.Second,
	}
	if c.options.Secured {
		config.TLS = trusting(c.keys.store, c.client)
	}
	client, err := clientv3.New(config)
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { client.Close() })
	return client
}

// StoreMetric adds up the samples of one of the store's metrics.
func (c *Case) StoreMetric(name string, labels ...string) float64 {
	c.Helper()
	response, err := http.Get(c.Store.URL() + "/metrics")
	if err != nil {
		c.Fatal(err)
	}
	defer response.Body.Close()
	return sumOf(need(io.ReadAll(response.Body)), name, labels)
}

// Metric adds up the samples of one of the apiserver's metrics.
func (c *Case) Metric(name string, labels ...string) float64 {
	c.Helper()
	value, err := c.Apiserver().Metric(c.Context(), name, labels...)
	if err != nil {
		c.Fatal(err)
	}
	return value
}
