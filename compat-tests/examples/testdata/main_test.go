// What etcd's examples of clientv3 expect beside them, for a server that runs already. It is compiled together with
// them, outside of this folder: see examples_test.go.
package clientv3_test

import (
	"os"
	"time"
)

const (
	dialTimeout    = 5 * time.Second
	requestTimeout = 10 * time.Second
)

func exampleEndpoints() []string { return []string{os.Getenv("EXAMPLES_ENDPOINT")} }

func forUnitTestsRunInMockedContext(_ func(), example func()) { example() }
