// Command load puts a server under a load and prints, as one JSON object, what came of it.
//
//	load COMMAND -endpoint HOST:PORT [-pid SERVER] [flags]      load COMMAND -h lists the flags
//
//	put get txn compare    one key a request, closed loop or at an offered rate
//	fill                   every key once, or many in one Txn with -batch
//	page pages all stream keysonly countonly      reading many keys
//	watch resume           events
//	keepalive expire       leases
//	compact defrag churn   upkeep of the store under a load
//
// The same program drives both servers, so its own cost is the same for both; it is told beside the
// server's. Keys come from a seeded generator, values are random bytes. A command has one or more
// parts (such as before and during), each measured by itself: latencies, the server's processor time
// and memory from /proc, the program's own processor time. With an offered rate a latency counts from
// the moment the request was due, so a server that stops for a while shows it in every request that
// became due meanwhile. An answer that is wrong is an error like one that fails.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// settings are the flags, which all commands share.
type settings struct {
	endpoint, dataDir, prefix           string
	pid, clients, connections, batch    int
	total, keys, first, seed            int64
	keySize, valueSize                  int
	rate, seconds                       float64
	serializable, distinct              bool
	limit, pageEvery, watchers, streams int
	history, revision                   int64
	at                                  int
	deadline                            time.Duration
}

// report is what is printed.
type report struct {
	Command string             `json:"command"`
	Parts   []part             `json:"parts"`
	Values  map[string]float64 `json:"values,omitempty"`
	Curve   []sample           `json:"curve,omitempty"`
}

var commands = map[string]func(context.Context, *bench) error{
	"put": runPut, "get": runGet, "txn": runTxn, "compare": runCompare, "fill": runFill,
	"page": runPage, "pages": runPages, "all": runAll, "stream": runStream,
	"keysonly": runKeysOnly, "countonly": runCountOnly,
	"watch": runWatch, "resume": runResume,
	"keepalive": runKeepAlive, "expire": runExpire,
	"compact": runCompact, "defrag": runDefragment, "churn": runChurn,
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		return fmt.Errorf("want a command, one of put get txn compare fill page pages all stream keysonly " +
			"countonly watch resume keepalive expire compact defrag churn")
	}
	s, err := parse(os.Args[1], os.Args[2:])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.deadline)
	defer cancel()
	b, err := connect(s)
	if err != nil {
		return err
	}
	defer b.close()
	b.report.Command = os.Args[1]
	if err := commands[os.Args[1]](ctx, b); err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(b.report); err != nil {
		return err
	}
	for _, p := range b.report.Parts {
		if p.Errors > 0 {
			return fmt.Errorf("%s: %d of %d failed, the first: %s",
				p.Name, p.Errors, p.Operations+p.Errors, p.FirstError)
		}
	}
	return nil
}

func parse(command string, words []string) (*settings, error) {
	s := &settings{}
	f := flag.NewFlagSet(command, flag.ContinueOnError)
	f.StringVar(&s.endpoint, "endpoint", "127.0.0.1:2379", "host:port of the server")
	f.IntVar(&s.pid, "pid", 0, "the server's process, to be measured; 0 for none")
	f.StringVar(&s.dataDir, "data-dir", "", "churn: the server's folder, to be measured")
	f.IntVar(&s.clients, "clients", 100, "requests under way at a time")
	f.IntVar(&s.connections, "conns", 10, "connections that the clients share")
	f.Int64Var(&s.total, "total", 0, "requests; 0 for as many as -seconds allow")
	f.Float64Var(&s.seconds, "seconds", 5, "how long each part takes, where no total says it")
	f.Float64Var(&s.rate, "rate", 0, "offered requests a second; 0 for as many as the server answers")
	f.Int64Var(&s.keys, "keys", 100_000, "keys numbered from -first")
	f.Int64Var(&s.first, "first", 0, "number of the first key")
	f.StringVar(&s.prefix, "prefix", "key", "what the keys begin with")
	f.IntVar(&s.keySize, "key-size", 32, "bytes of a key")
	f.IntVar(&s.valueSize, "value-size", 256, "bytes of a value")
	f.Int64Var(&s.seed, "seed", 1, "of the order of the keys and of the values")
	f.IntVar(&s.batch, "batch", 1, "fill: puts in one transaction")
	f.BoolVar(&s.serializable, "serializable", false, "read what the server has, without asking for a quorum")
	f.IntVar(&s.limit, "limit", 500, "page, pages: keys of a page")
	f.IntVar(&s.pageEvery, "every", 1, "pages: read each n-th page only")
	f.Int64Var(&s.revision, "revision", 0, "pages: the revision read; 0 for the newest")
	f.IntVar(&s.watchers, "watchers", 1000, "watchers")
	f.IntVar(&s.streams, "streams", 100, "streams that the watchers share")
	f.BoolVar(&s.distinct, "distinct", false, "watch: each watcher has a key of its own")
	f.Int64Var(&s.history, "history", 100_000, "resume: revisions that the watchers are behind")
	f.IntVar(&s.at, "at", 0, "expire: seconds from now when all leases end; 0 for enough to grant them")
	f.DurationVar(&s.deadline, "deadline", 10*time.Minute, "when all of it is given up")
	if err := f.Parse(words); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag", f.Arg(0))
	}
	if s.clients < 1 || s.connections < 1 || s.keys < 1 || s.keySize < len(s.prefix)+12 || s.valueSize < 8 {
		return nil, fmt.Errorf("clients, connections and keys are at least 1, a key has room for its prefix " +
			"and number, a value for 8 bytes")
	}
	return s, nil
}
