package api

import (
	"fmt"
	"os"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	. "etched.local/compat-tests/harness"
)

func TestAStartDefragmentsWhenThatFreesEnough(t *testing.T) {
	OnBoth(t, func(c *Case) {
		logged(c, "Skipping defragmentation")
		for i := range 200 {
			c.Put("large", strings.Repeat(fmt.Sprint(i%10), 100_000))
		}
		if _, err := c.KV.Compact(c.Context(), &pb.CompactionRequest{Revision: 201, Physical: true}); err != nil {
			c.Fatal(err)
		}
		before := Ask(c, "hash", c.Maintenance.HashKV, &pb.HashKVRequest{})
		c.Server.Stop(c)
		c.Server.Restart(c)
		c.Reconnect()
		logged(c, "finished defragmenting directory")
		after := Ask(c, "hash of the smaller file", c.Maintenance.HashKV, &pb.HashKVRequest{})
		if before.Hash != after.Hash {
			c.Errorf("hash %d became %d", before.Hash, after.Hash)
		}
		status, err := c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
		if err != nil {
			c.Fatal(err)
		}
		if status.DbSize > 8<<20 {
			c.Errorf("the file still has %d bytes", status.DbSize)
		}
		c.Server.Kill()
		c.Server.Restart(c)
		c.Reconnect()
		logged(c, "Skipping defragmentation")
		c.Everything("all there")
	}, "--bootstrap-defrag-threshold-megabytes", "4")
}

// without runs a program with at most 64 KiB of locked memory, and without the capability that lifts the limit.
func without(program string) []string {
	shell := []string{"sh", "-c", `ulimit -l 64 && exec "$@"`, "sh"}
	if os.Geteuid() == 0 {
		shell = append(shell, "setpriv", "--inh-caps=-all", "--bounding-set=-all")
	}
	return append(shell, program)
}

func TestMemoryIsLockedOrTheStartIsRefused(t *testing.T) {
	EachAlone(t, func(t *testing.T, kind Kind) string {
		run := Refused(t, kind, without, "--memory-mlock", "--listen-client-urls", "http://<client>", "--advertise-client-urls", "http://<client>",
			"--listen-peer-urls", "http://<peer>", "--initial-advertise-peer-urls", "http://<peer>", "--initial-cluster", "default=http://<peer>")
		if !strings.Contains(run.Output, "mlock error: cannot allocate memory") {
			t.Errorf("%s", run.Output)
		}
		return fmt.Sprint("exit code ", run.Code)
	})
}
