package api

import (
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	. "etched.local/compat-tests/harness"
)

// logged waits until the server's log has a line with this text.
func logged(c *Case, text string) {
	c.Helper()
	c.Eventually("a log line with "+text, func() bool { return strings.Contains(c.Server.Log(), text) })
}

func TestALoneMembersCorruptionChecksPass(t *testing.T) {
	OnBoth(t, func(c *Case) {
		for i := range 50 {
			c.Put("k", strings.Repeat("v", i))
		}
		for _, revision := range []int64{10, 20, 30} {
			if _, err := c.KV.Compact(c.Context(), &pb.CompactionRequest{Revision: revision, Physical: true}); err != nil {
				c.Fatal(err)
			}
		}
		logged(c, "enabled corruption checking")
		logged(c, "finished peer corruption check")
		logged(c, "starting compact hash check")
		logged(c, `"number-of-hashes-checked":3`)
		if strings.Contains(c.Server.Log(), "initial corruption check") {
			c.Error("a first start has nothing to be checked")
		}
		Ask(c, "hash kept of a compaction", c.Maintenance.HashKV, &pb.HashKVRequest{Revision: 20})
		c.Server.Kill()
		c.Server.Restart(c)
		c.Reconnect()
		logged(c, "starting initial corruption check")
		logged(c, "initial corruption checking passed; no corruption")
		logged(c, "finished peer corruption check")
		Ask(c, "no alarm", c.Maintenance.Alarm, &pb.AlarmRequest{})
		c.Put("k", "still writable")
		c.Everything("all there")
	}, "--corrupt-check-time", "50ms", "--compact-hash-check-time", "100ms",
		"--feature-gates", "CompactHashCheck=true,InitialCorruptCheck=true")
}
