// Command crash breaks a server in every way a machine can, and checks that no acknowledged write is
// lost and none is invented.
//
//	crash [-server PATH] [-kills N] [-seed N] [-only REGEX] [-oracle]
//
// It runs in network, pid and mount namespaces of its own: fixed ports on a loopback device that is
// not the machine's, small file systems that nobody else sees, and nothing left running afterwards.
// The same scenarios run on real etcd with -oracle; what etched promises beyond it (one clear line,
// damage never undetected) is then not asked for.
package main

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

type settings struct {
	server, only string
	kills        int
	seed         int64
	limit        time.Duration
	oracle       bool
}

// scenario is one thing that can go wrong; beyond marks those that only etched promises to see.
type scenario struct {
	name   string
	beyond bool
	run    func(*settings, *diskCase) (string, error)
}

func scenarios() []scenario {
	disk := func(run func(*diskCase) (string, error)) func(*settings, *diskCase) (string, error) {
		return func(_ *settings, c *diskCase) (string, error) { return run(c) }
	}
	wal := func(where func(frame) (int64, byte)) func(*settings, *diskCase) (string, error) {
		return disk(func(c *diskCase) (string, error) { return c.damagedWAL(where) })
	}
	torn := func(tear func(string, frame) error) func(*settings, *diskCase) (string, error) {
		return disk(func(c *diskCase) (string, error) { return c.tornWAL(tear) })
	}
	lost := func(large int, lose func(string, string) error) func(*settings, *diskCase) (string, error) {
		return disk(func(c *diskCase) (string, error) { return c.lostFile(large, lose) })
	}
	return []scenario{
		{"writers on 8 connections and kill -9 at random moments", false, func(s *settings, c *diskCase) (string, error) {
			return runCrashLoop(c.binary, c.dir, s.seed, s.kills, s.limit)
		}},
		{"a read-only data dir is refused", false, disk((*diskCase).readOnlyDir)},
		{"a disk without room for the first start is refused", false, disk((*diskCase).noRoomToStart)},
		{"a disk that becomes full loses no acknowledged write", false, disk((*diskCase).fullDisk)},
		{"a flipped byte in an entry of the WAL is refused", false,
			wal(func(f frame) (int64, byte) { return f.offset + 8 + f.length/2, 0x10 })},
		{"a flipped byte in the checksum of a WAL record is refused", false,
			wal(func(f frame) (int64, byte) { return f.offset + 8 + 3, 0x04 })},
		{"a flipped byte in the length of a WAL record is refused", false,
			wal(func(f frame) (int64, byte) { return f.offset, 0x20 })},
		{"a WAL record whose length points past the end of the file is refused", true,
			wal(func(f frame) (int64, byte) { return f.offset + 5, 0x01 })},
		{"a last WAL record cut off in its middle is dropped", false,
			torn(func(name string, f frame) error { return os.Truncate(name, f.offset+8+f.length/2) })},
		{"a last WAL record cut off in its length is dropped", false,
			torn(func(name string, f frame) error { return os.Truncate(name, f.offset+4) })},
		{"a last WAL record whose end reads as zeros is dropped", false,
			torn(func(name string, f frame) error { return zeroFrom(name, f.offset+8+f.length/2) })},
		{"a flipped byte in the store is never served", true, disk((*diskCase).damagedStore)},
		{"a store that is gone loses nothing in silence", true,
			lost(0, func(_, store string) error { return os.Remove(store) })},
		{"a store that is gone after its log was shortened loses nothing in silence", true,
			lost(2500, func(_, store string) error { return os.Remove(store) })},
		{"a store that was cut in half loses nothing in silence", true, lost(0, halve)},
		{"a WAL that is gone loses nothing in silence", true,
			lost(0, func(dataDir, _ string) error { return os.RemoveAll(filepath.Join(dataDir, "member", "wal")) })},
		{"a data dir that a live server holds is waited for", false, disk((*diskCase).heldDir)},
	}
}

func main() {
	var s settings
	flag.StringVar(&s.server, "server", os.Getenv("ETCHED_BIN"), "the binary to break")
	flag.StringVar(&s.only, "only", ".", "regular expression over the scenarios' names")
	flag.IntVar(&s.kills, "kills", 60, "how often kill -9 strikes")
	flag.Int64Var(&s.seed, "seed", time.Now().UnixNano()%1_000_000, "what the random choices follow from")
	flag.DurationVar(&s.limit, "limit", 4*time.Minute, "the most time the kills may take")
	flag.BoolVar(&s.oracle, "oracle", false, "the server is real etcd: ask for no more than it promises")
	inside := flag.Bool("inside", false, "set by the command itself, once it is in its namespaces")
	flag.Parse()
	if s.server == "" {
		fmt.Fprintln(os.Stderr, "crash: which server? give -server PATH or ETCHED_BIN")
		os.Exit(2)
	}
	if !*inside {
		os.Exit(isolate(append(os.Args[1:], "-inside", fmt.Sprintf("-seed=%d", s.seed))))
	}
	if err := settleIn(); err != nil {
		fmt.Fprintln(os.Stderr, "crash: namespaces:", err)
		os.Exit(1)
	}
	if !runAll(&s) {
		os.Exit(1)
	}
}

// runAll runs the scenarios one after the other, each in a folder of its own, and prints the totals.
func runAll(s *settings) bool {
	fmt.Printf("seed %d (the same choices again: -seed %d)\n", s.seed, s.seed)
	only := regexp.MustCompile(s.only)
	passed, failed, skipped := 0, 0, 0
	for _, each := range scenarios() {
		if !only.MatchString(each.name) {
			continue
		}
		if each.beyond && s.oracle {
			skipped++
			fmt.Printf("skip  %s: etcd does not promise it\n", each.name)
			continue
		}
		began := time.Now()
		detail, err := runOne(s, each)
		spent := time.Since(began).Round(10 * time.Millisecond)
		if err != nil {
			failed++
			fmt.Printf("FAIL  %s (%v)\n      %v\n", each.name, spent, err)
			continue
		}
		passed++
		fmt.Printf("pass  %s (%v)\n      %.400s\n", each.name, spent, detail)
	}
	fmt.Printf("crash: %d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return failed == 0
}

func runOne(s *settings, each scenario) (string, error) {
	dir, err := os.MkdirTemp("", "etched-crash-")
	if err != nil {
		return "", err
	}
	binary, err := filepath.Abs(s.server)
	if err != nil {
		return "", err
	}
	detail, err := each.run(s, &diskCase{
		binary: binary, dir: dir, random: rand.New(rand.NewSource(s.seed)), strict: !s.oracle,
	})
	if err != nil {
		return "", fmt.Errorf("%w\n      data dir kept in %s", err, dir)
	}
	return detail, os.RemoveAll(dir)
}
