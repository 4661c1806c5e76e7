package ctl

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"etched.local/compat-tests/harness"
)

func onBoth(t *testing.T, body func(c *Case), flags ...string) {
	t.Helper()
	harness.OnBoth(t, func(c *harness.Case) { body(&Case{Case: c}) }, flags...)
}

var formats = []string{"simple", "json", "fields", "protobuf", "table"}

func seed(c *Case) {
	c.Helper()
	c.Grant(0x4d2, 600)
	for _, pair := range []string{"fig 1", "apple 2", "date 3", "apple 4", "cherry 5", "banana 6", "date 7"} {
		key, value, _ := strings.Cut(pair, " ")
		c.Put(key, value)
	}
	if _, err := c.KV.Put(c.Context(), &pb.PutRequest{Key: []byte("leased"), Value: []byte("x"), Lease: 0x4d2}); err != nil {
		c.Fatal(err)
	}
}

func TestPut(t *testing.T) {
	onBoth(t, func(c *Case) {
		c.Grant(0x4d2, 600)
		for _, format := range formats {
			c.Run("put", "a", "of "+format, "-w", format)
			c.Run("put", "a", "again", "--prev-kv", "-w", format)
			c.Run("put", "new "+format, "1", "--prev-kv", "-w", format)
		}
		c.RunWith("from stdin", "put", "b")
		c.Run("put", "b", "leased", "--lease", "4d2")
		c.Run("put", "b", "--ignore-value", "--lease", "4d2", "--prev-kv")
		c.Run("put", "b", "kept lease", "--ignore-lease")
		c.Run("get", "b", "-w", "fields")
		c.Run("put", "--", "-dash", "-value")
		c.Run("put", "empty", "")
		c.Run("put", "", "no key")
		c.Run("put", "c", "1", "--lease", "999")
		c.Run("put", "c", "1", "--lease", "nothex")
		c.Run("put", "missing", "--ignore-value")
		c.Run("put", "missing", "x", "--ignore-lease")
		c.Run("put", "b", "x", "--ignore-value")
		c.Run("put", "b", "x", "--ignore-lease", "--lease", "4d2")
		c.Run("put")
		c.Run("get", "", "--prefix")
	})
}

func TestGetWithEveryFlag(t *testing.T) {
	onBoth(t, func(c *Case) {
		seed(c)
		for _, line := range []string{
			"apple", "apple date", "missing", "a --prefix", "cherry --from-key", "a --from-key --limit 2",
			"a --from-key --limit 2 --order DESCEND", "a --from-key --order ASCEND",
			"a --from-key --sort-by CREATE", "a --from-key --sort-by KEY --order DESCEND", "a --from-key --sort-by MODIFY",
			"a --from-key --sort-by VALUE", "a --from-key --sort-by VERSION --order DESCEND", "a --from-key --sort-by MODIFY --limit 3",
			"a z --rev 4", "a z --rev 2 -w json", "a z --keys-only", "a z --count-only", "a z --count-only -w fields", "a z --print-value-only",
			"a z --consistency s", "a z --consistency l", "a z --min-create-rev 4", "a z --max-create-rev 4 --keys-only",
			"a z --min-mod-rev 5 -w json", "a z --max-mod-rev 5", "apple --hex", "a z --stream", "a z --stream -w json", "a z --stream --limit 2",
			"a z --stream --count-only", "a z --stream --keys-only", "a z --stream --rev 5",
			"a z --rev 99", "a z --sort-by NOPE", "a z --order NOPE", "a z --prefix", "a --prefix --from-key", "a --consistency x",
			"a z --count-only --keys-only", "a z --print-value-only -w json", "",
		} {
			c.Run(append([]string{"get"}, strings.Fields(line)...)...)
		}
		c.Run("get", "", "--prefix", "--keys-only")
		c.Run("get", "", "--from-key", "--limit", "3")
		for _, format := range formats {
			c.Run("get", "apple", "-w", format)
			c.Run("get", "leased", "-w", format)
			c.Run("get", "missing", "-w", format)
			c.Run("get", "a", "z", "--limit", "2", "-w", format)
			c.Run("get", "a", "z", "--keys-only", "-w", format)
		}
		c.Run("compaction", "5")
		c.Run("get", "apple", "--rev", "4")
		c.Run("get", "apple", "--rev", "5")
	})
}

func TestDel(t *testing.T) {
	onBoth(t, func(c *Case) {
		for _, format := range formats {
			seedKeys(c)
			c.Run("del", "a1", "-w", format)
			c.Run("del", "a1", "-w", format)
			c.Run("del", "a2", "--prev-kv", "-w", format)
			c.Run("del", "a", "--prefix", "--prev-kv", "-w", format)
			c.Run("del", "b1", "b3", "-w", format)
			c.Run("del", "b3", "--from-key", "-w", format)
			c.Run("get", "", "--prefix")
		}
		seedKeys(c)
		c.Run("del", "a1", "a3", "--range")
		c.Run("del", "a1", "--range")
		c.Run("del", "", "--prefix")
		c.Run("del", "")
		c.Run("del", "a", "b", "--prefix")
		c.Run("del")
	})
}

func seedKeys(c *Case) {
	c.Helper()
	for _, key := range []string{"a1", "a2", "a3", "b1", "b2", "b3", "c"} {
		c.Put(key, "of "+key)
	}
}

func TestTxnByScript(t *testing.T) {
	onBoth(t, func(c *Case) {
		c.Put("a", "1")
		c.Put("b", "2")
		c.Grant(0x4d2, 600)
		scripts := []string{
			"value(\"a\") = \"1\"\n\nput a 10\nget a\nget b\n\nput a 20\n\n",
			"value(\"a\") = \"wrong\"\n\nput a 30\n\nget a\ndel b\nput c \"three words here\"\n\n",
			"mod(\"a\") > \"0\"\nver(\"a\") = \"2\"\ncreate(\"a\") = \"3\"\n\nget --prefix a\n\n\n",
			"ver(\"a\") > \"0\"\nc(\"a\") < \"100\"\nm(\"missing\") = \"0\"\n\nput leased x --lease=4d2\nget leased\n\n\n",
			"value(\"missing\") != \"x\"\n\nput never 1\n\nget --rev=2 a\n\n",
			"\n\n\n", "\nput x 1\nput x 2\n\n\n", "\nput x 1 --lease=999\n\n\n", "\nput \"\" 1\n\n\n",
			"nonsense\n\n\n\n", "\nnonsense a\n\n\n",
		}
		for i, script := range scripts {
			for _, flags := range [][]string{{"txn"}, {"txn", "-w", "json"}, {"txn", "-w", "fields"}, {"txn", "--interactive"}} {
				if flags[len(flags)-1] == "--interactive" && i > 1 {
					continue
				}
				c.RunWith(script, flags...)
			}
		}
		c.Run("get", "", "--prefix", "-w", "json")
	})
}

// watching waits until this many watchers are registered at the server, as its metrics tell.
func watching(c *Case, n int) {
	c.Helper()
	pattern := regexp.MustCompile(`(?m)^etcd_debugging_mvcc_watcher_total (\d+)$`)
	c.Eventually(fmt.Sprintf("%d watchers", n), func() bool {
		answer, err := http.Get(c.Server.URL() + "/metrics")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		match := pattern.FindSubmatch(body)
		return err == nil && match != nil && string(match[1]) == strconv.Itoa(n)
	})
}

func TestWatch(t *testing.T) {
	for _, format := range []string{"simple", "json", "fields"} {
		t.Run(format, func(t *testing.T) {
			lines := map[string]int{"simple": 3, "json": 1, "fields": 11}[format]
			onBoth(t, func(c *Case) {
				w := c.Begin("watch", "a", "-w", format)
				watching(c, 1)
				c.Put("b", "unseen")
				c.Put("a", "1")
				w.Lines("put", lines)
				w.Interrupt()
				c.Note("the rest", plain(strings.Join(rest(w), "\n")))
			})
		})
	}
}

// rest is what an ended etcdctl printed beyond the lines waited for.
func rest(r *Running) (lines []string) {
	for line := range r.lines {
		lines = append(lines, line)
	}
	return lines
}

func TestWatchFlags(t *testing.T) {
	onBoth(t, func(c *Case) {
		seedKeys(c)
		c.Delete("a2")
		c.Put("a2", "anew")
		for line, n := range map[string]int{
			"a --prefix --rev 1": 3*3 + 3 + 3, "a2 --rev 1 --prev-kv": 3 + 5 + 3, "a1 a3 --rev 1": 3 * 4,
			"b --prefix --rev 4 --prev-kv": 9, "a --rev 9 --prefix -w json": 1, "a1 --rev 1 -w fields": 11,
		} {
			w := c.Begin(append([]string{"watch"}, strings.Fields(line)...)...)
			got := collect(w, line, n)
			w.Interrupt()
			got = append(got, rest(w)...)
			c.NoteUnder("watch "+line, plain(strings.Join(got, "\n")))
		}
		c.Must("compaction", "5")
		c.Run("watch", "a", "--rev", "2")
		c.Run("watch")
		c.Run("watch", "b", "a")
	})
}

// collect waits for n lines without recording them.
func collect(r *Running, step string, n int) (got []string) {
	r.c.Helper()
	for len(got) < n {
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.c.Fatalf("%s: ended after %q: %s", step, got, r.stderr.String())
			}
			got = append(got, line)
		case <-r.c.Context().Done():
			r.c.Fatalf("%s: only %q: %s", step, got, r.stderr.String())
		}
	}
	return got
}

func TestWatchExecRunsACommandForEachEvent(t *testing.T) {
	onBoth(t, func(c *Case) {
		w := c.Begin("watch", "a", "--prefix", "--rev", "1", "--", "sh", "-c",
			"echo $ETCD_WATCH_EVENT_TYPE of $ETCD_WATCH_KEY with $ETCD_WATCH_VALUE at $ETCD_WATCH_REVISION")
		c.Put("a1", "x")
		w.Lines("put", 4)
		c.Delete("a1")
		w.Lines("delete", 4)
		w.Interrupt()
	})
}

func TestWatchInteractively(t *testing.T) {
	onBoth(t, func(c *Case) {
		w := c.Begin("watch", "--interactive")
		w.Type("watch a")
		watching(c, 1)
		w.Type("watch b --prefix --prev-kv")
		watching(c, 2)
		c.Put("a", "1")
		w.Lines("a", 3)
		c.Put("b1", "1")
		w.Lines("b", 3)
		c.Put("b1", "2")
		w.Lines("b with the pair before", 5)
		w.Type("progress")
		w.Lines("progress", 1)
		w.Interrupt()
	})
}

func TestWatchProgressNotify(t *testing.T) {
	onBoth(t, func(c *Case) {
		w := c.Begin("watch", "a", "--progress-notify")
		w.Lines("progress", 1)
		w.Interrupt()
	}, "--watch-progress-notify-interval", "200ms")
}

func TestCompactionAndDefrag(t *testing.T) {
	onBoth(t, func(c *Case) {
		seedKeys(c)
		c.Run("compaction", "3")
		c.Run("compaction", "3")
		c.Run("compaction", "--physical", "5")
		c.Run("compaction", "99")
		c.Run("compaction", "nonsense")
		c.Run("compaction")
		c.Run("get", "a1", "--rev", "4")
		c.Run("defrag")
		c.Run("defrag", "--cluster")
		c.Run("get", "", "--prefix")
	})
}

func TestLeaseCommands(t *testing.T) {
	onBoth(t, func(c *Case) {
		id := regexp.MustCompile(`lease ([0-9a-f]+) granted`)
		var ids []string
		for range 2 {
			match := id.FindStringSubmatch(c.Must("lease", "grant", "500"))
			if match == nil {
				c.Fatal("no id")
			}
			ids = append(ids, match[1])
			number, err := strconv.ParseInt(match[1], 16, 64)
			if err != nil {
				c.Fatal(err)
			}
			c.Mask(number, fmt.Sprint("lease ", len(ids)))
		}
		first, second := ids[0], ids[1]
		c.Run("put", "b", "1", "--lease", first)
		c.Run("put", "a", "1", "--lease", second)
		for _, format := range formats[:3] {
			c.Run("lease", "timetolive", first, "-w", format)
			c.Run("lease", "timetolive", first, "--keys", "-w", format)
			c.Run("lease", "timetolive", "999", "-w", format)
			c.Run("lease", "keep-alive", "--once", first, "-w", format)
		}
		c.Run("lease", "timetolive", first, "-w", "table")
		keep := c.Begin("lease", "keep-alive", first)
		keep.Lines("kept alive", 1)
		keep.Interrupt()
		c.Run("lease", "keep-alive", "999")
		c.Run("lease", "keep-alive", "--once", "999")
		c.Run("lease", "revoke", first)
		c.Run("lease", "revoke", first)
		for _, format := range formats[:3] {
			c.Run("lease", "list", "-w", format)
		}
		c.Run("lease", "revoke", second, "-w", "json")
		c.Run("lease", "list")
		c.Run("lease", "grant", "nonsense")
		c.Run("lease", "grant", "9000000001")
		c.Run("lease", "revoke", "nothex")
		c.Run("lease", "timetolive", "nothex")
		c.Run("get", "", "--prefix")
	})
}

var sessionKey = regexp.MustCompile(`/[0-9a-f]{10,16}\b`)

func TestLockWithTwoContenders(t *testing.T) {
	onBoth(t, func(c *Case) {
		first := c.Begin("lock", "mutex")
		held := collect(first, "first holds", 1)
		c.Note("first holds", sessionKey.ReplaceAllString(held[0], "/<lease>"))
		second := c.Begin("lock", "mutex")
		waiters(c, "mutex/", 2)
		second.Quiet("the second waits")
		first.Interrupt()
		held = collect(second, "second holds", 1)
		c.Note("second holds", sessionKey.ReplaceAllString(held[0], "/<lease>"))
		waiters(c, "mutex/", 1)
		second.Interrupt()
		waiters(c, "mutex/", 0)
		out := c.Must("lock", "mutex", "--", "sh", "-c", "echo held as $ETCD_LOCK_KEY at $ETCD_LOCK_REV")
		c.Note("with a command", sessionKey.ReplaceAllString(out, "/<lease>"))
		_, _, code := c.output("", "lock", "mutex", "--", "sh", "-c", "exit 3")
		c.Note("the command's exit code", strconv.Itoa(code))
		killed := c.Begin("lock", "mutex", "--ttl", "2")
		collect(killed, "killed one holds", 1)
		_ = killed.command.Process.Kill()
		after := c.Begin("lock", "mutex")
		collect(after, "after the lease of the killed one", 1)
		after.Interrupt()
	})
}

// waiters waits until the prefix has this many keys.
func waiters(c *Case, prefix string, n int64) {
	c.Helper()
	end := []byte(prefix)
	end[len(end)-1]++
	c.Eventually(fmt.Sprintf("%d keys at %s", n, prefix), func() bool {
		answer, err := c.KV.Range(c.Context(), &pb.RangeRequest{Key: []byte(prefix), RangeEnd: end, CountOnly: true})
		return err == nil && answer.Count == n
	})
}

func TestElect(t *testing.T) {
	onBoth(t, func(c *Case) {
		show := func(step string, lines []string) {
			c.Note(step, sessionKey.ReplaceAllString(strings.Join(lines, "\n"), "/<lease>"))
		}
		first := c.Begin("elect", "post", "one")
		show("first leads", collect(first, "first", 2))
		second := c.Begin("elect", "post", "two")
		waiters(c, "post/", 2)
		second.Quiet("the second waits")
		listener := c.Begin("elect", "-l", "post")
		show("listener", collect(listener, "listener", 2))
		first.Interrupt()
		show("second leads", collect(second, "second", 2))
		show("listener hears", collect(listener, "listener again", 2))
		second.Interrupt()
		listener.Interrupt()
	})
}

func TestEndpointAndMemberCommands(t *testing.T) {
	onBoth(t, func(c *Case) {
		c.Put("a", "1")
		c.Eventually("the cluster version is known", func() bool {
			status, err := c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
			return err == nil && status.StorageVersion == "3.7.0"
		})
		for _, format := range []string{"simple", "json", "fields", "table"} {
			c.Run("endpoint", "health", "-w", format)
			c.Run("endpoint", "status", "-w", format)
			c.Run("endpoint", "hashkv", "-w", format)
			c.Run("member", "list", "-w", format)
		}
		c.Run("member", "list", "--consistency", "s")
		c.Run("endpoint", "health", "--cluster")
		c.Run("endpoint", "status", "--cluster")
		c.Run("endpoint", "hashkv", "--rev", "1")
		c.Run("endpoint", "hashkv", "--rev", "99")
		c.Run("move-leader", "b71f75320dc06a6c")
		c.Run("move-leader", "1234")
		c.Run("move-leader", "nothex")
		c.Run("move-leader")
	})
}

func TestAlarmCommands(t *testing.T) {
	onBoth(t, func(c *Case) {
		status, err := c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
		if err != nil {
			c.Fatal(err)
		}
		c.Run("alarm", "list")
		c.Run("alarm", "disarm")
		request := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: status.Header.MemberId, Alarm: pb.AlarmType_NOSPACE}
		if _, err := c.Maintenance.Alarm(c.Context(), request); err != nil {
			c.Fatal(err)
		}
		c.Run("alarm", "list")
		c.Run("alarm", "list", "-w", "json")
		c.Run("put", "a", "1")
		c.Run("endpoint", "health")
		c.Run("alarm", "disarm")
		c.Run("alarm", "list")
		c.Run("put", "a", "1")
		c.Run("endpoint", "health")
	})
}

func TestDowngradeCommands(t *testing.T) {
	onBoth(t, func(c *Case) {
		c.Eventually("a cluster version", func() bool {
			s, err := c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
			return err == nil && s.StorageVersion == "3.7.0"
		})
		c.Run("downgrade")
		c.Run("downgrade", "validate")
		c.Run("downgrade", "validate", "3.6", "more")
		c.Run("downgrade", "validate", "three")
		c.Run("downgrade", "validate", "3.5")
		for _, format := range formats {
			c.Run("downgrade", "validate", "3.6", "-w", format)
		}
		c.Run("downgrade", "cancel")
		c.Run("downgrade", "enable", "3.5")
		c.Run("downgrade", "enable", "3.6")
		c.Run("downgrade", "enable", "3.6")
		c.Eventually("the target", func() bool {
			s, err := c.Maintenance.Status(c.Context(), &pb.StatusRequest{})
			return err == nil && s.StorageVersion == "3.6.0"
		})
		for _, format := range formats[1:] {
			c.Run("endpoint", "status", "-w", format)
		}
		c.Run("downgrade", "validate", "3.6")
		c.Run("downgrade", "cancel")
	})
}

func TestMakeMirrorBetweenTwoServers(t *testing.T) {
	onBoth(t, func(c *Case) {
		target := harness.Start(c.T, c.Server.Kind)
		to := pb.NewKVClient(target.Dial(c.T))
		seedKeys(c)
		mirrored := func(ctx context.Context, want string) {
			c.Helper()
			c.Eventually("the mirror has "+want, func() bool {
				answer, err := to.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
				return err == nil && harness.Keys(answer) == want
			})
		}
		ctx := c.T.Context()
		m := c.Begin("make-mirror", "--prefix", "a", "--dest-prefix", "m/", target.Client)
		mirrored(ctx, "m/1 m/2 m/3")
		c.Put("a4", "live")
		c.Put("b4", "not mirrored")
		c.Delete("a1")
		mirrored(ctx, "m/2 m/3 m/4")
		m.Interrupt()
		all := c.Begin("make-mirror", "--max-txn-ops", "2", target.Client)
		mirrored(ctx, "a2 a3 a4 b1 b2 b3 b4 c m/2 m/3 m/4")
		c.Delete("c")
		mirrored(ctx, "a2 a3 a4 b1 b2 b3 b4 m/2 m/3 m/4")
		all.Interrupt()
		answer, err := to.Range(ctx, &pb.RangeRequest{Key: []byte("b1")})
		if err != nil || string(answer.Kvs[0].Value) != "of b1" {
			c.Errorf("%v %v", answer, err)
		}
	})
}

func TestOtherCommands(t *testing.T) {
	onBoth(t, func(c *Case) {
		c.Run("version")
		c.Run("check", "datascale", "--load", "nonsense")
		c.Run("nonsense")
		c.Run("get", "a", "--command-timeout", "1ns")
		c.Run("put", "a", strings.Repeat("v", 1000), "-w", "nonsense")
	})
}

func TestTlsWithAGeneratedCertificate(t *testing.T) {
	onBoth(t, func(c *Case) {
		unchecked := []string{"--insecure-transport=false", "--insecure-skip-tls-verify"}
		for _, args := range [][]string{{"put", "a", "1"}, {"get", "a"}, {"endpoint", "health"}, {"member", "list"}} {
			c.Run(append(unchecked, args...)...)
		}
		trusted := "--cacert=" + c.Server.DataDir + "/fixtures/client/cert.pem"
		c.Note("trusting the certificate", c.Must(trusted, "get", "a"))
		c.Run("--insecure-transport=false", "--dial-timeout=1s", "--command-timeout=1s", "get", "a")
	}, "--listen-client-urls=http://<client>,https://<client>", "--auto-tls")
}
