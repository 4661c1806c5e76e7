package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// crashLoop is the state of one run: a data dir, the writers, and what they may expect.
type crashLoop struct {
	binary, dataDir string
	random          *rand.Rand
	writers         []*writer
	history         *history
	asked           map[int64]bool // compactions sent
	startup         time.Duration  // how long the last start took
	server          *server
	clients         []*clientv3.Client

	kills, startupKills, compactions, restarts, acknowledged, unknown, readBack int
}

// runCrashLoop kills the server `kills` times and checks all it holds after each start.
func runCrashLoop(binary, dir string, seed int64, kills int, limit time.Duration) (string, error) {
	loop := &crashLoop{
		binary: binary, dataDir: filepath.Join(dir, "crash.etcd"),
		random: rand.New(rand.NewSource(seed)), writers: newWriters(seed), history: newHistory(),
		asked: map[int64]bool{0: true}, startup: time.Second,
	}
	defer loop.close()
	began := time.Now()
	for loop.kills < kills {
		if time.Since(began) > limit {
			return "", fmt.Errorf("only %d of %d kills within %v", loop.kills, kills, limit)
		}
		if err := loop.round(); err != nil {
			return "", fmt.Errorf("after kill %d: %w", loop.kills, err)
		}
		if progress := os.Getenv("CRASH_PROGRESS"); progress != "" {
			fmt.Printf("      kill %d, revision %d, %v\n", loop.kills, loop.history.verified, time.Since(began))
		}
	}
	if err := loop.cleanRestart(); err != nil {
		return "", fmt.Errorf("last restart: %w", err)
	}
	return fmt.Sprintf("%d kills (%d while starting, %d during a compaction), %d clean restarts with equal HashKV; "+
		"%d requests acknowledged and read back, %d unanswered, %d reads of old revisions; revision %d without a gap",
		loop.kills, loop.startupKills, loop.compactions, loop.restarts,
		loop.acknowledged, loop.unknown, loop.readBack, loop.history.verified), nil
}

// round starts the server (sometimes killing it on the way), checks what it holds, loads it and kills it.
func (l *crashLoop) round() error {
	for l.random.Intn(3) == 0 {
		if err := l.killWhileStarting(); err != nil {
			return err
		}
	}
	if err := l.open(); err != nil {
		return err
	}
	if err := l.check(); err != nil {
		return fmt.Errorf("%w\n%s", err, l.server.tail())
	}
	if l.restarts < l.kills/10 {
		if err := l.cleanRestart(); err != nil {
			return err
		}
	}
	target := int64(1) << l.random.Intn(13)
	target += l.random.Int63n(target)
	compaction := l.history.verified > 100 && l.random.Intn(3) == 0
	err := load(l.writers, l.clients, target, func() {
		if compaction {
			l.compactAndKill()
		} else {
			l.server.kill()
		}
	})
	l.kills++
	l.closeClients()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, l.server.tail())
	}
	return nil
}

// killWhileStarting lets a start run for a random part of its usual time.
func (l *crashLoop) killWhileStarting() error {
	s, err := start(l.binary, l.dataDir, usual)
	if err != nil {
		return err
	}
	moment := time.Duration(l.random.Int63n(int64(l.startup) * 6 / 5))
	select {
	case <-time.After(moment):
	case <-s.exited:
		return fmt.Errorf("the server ended while starting (%v):\n%s", s.command.ProcessState, s.tail())
	}
	s.kill()
	l.kills++
	l.startupKills++
	return nil
}

// compactAndKill kills the server a random moment after it was asked to compact.
func (l *crashLoop) compactAndKill() {
	floor := l.history.floor + 1 + l.random.Int63n(l.history.verified-l.history.floor)
	if floor > l.history.verified {
		floor = l.history.verified
	}
	l.asked[floor] = true
	moment := time.Duration(l.random.Int63n(int64(20 * time.Millisecond)))
	ctx, cancel := limited()
	defer cancel()
	var group sync.WaitGroup
	group.Add(1)
	go func() {
		defer group.Done()
		_, _ = l.clients[0].Compact(ctx, floor, clientv3.WithCompactPhysical())
	}()
	<-time.After(moment)
	l.server.kill()
	cancel()
	group.Wait()
	l.compactions++
}

// open starts the server and the eight connections.
func (l *crashLoop) open() error {
	began := time.Now()
	s, client, err := startReady(l.binary, l.dataDir, usual)
	if err != nil {
		return err
	}
	l.startup = time.Since(began)
	l.server, l.clients = s, []*clientv3.Client{client}
	for len(l.clients) < connections {
		client, err := dial(usual)
		if err != nil {
			return err
		}
		l.clients = append(l.clients, client)
	}
	return nil
}

func (l *crashLoop) closeClients() {
	for _, client := range l.clients {
		_ = client.Close()
	}
	l.clients = nil
}

func (l *crashLoop) close() {
	l.closeClients()
	if l.server != nil {
		l.server.kill()
	}
}

// check reads back all that happened since the last check and compares the whole store with the history.
func (l *crashLoop) check() error {
	var intents []intent
	deletes := map[string]int64{}
	for _, w := range l.writers {
		intents = append(intents, w.intents...)
		w.intents = nil
	}
	for _, each := range intents {
		if each.acknowledged == 0 {
			l.unknown++
			continue
		}
		l.acknowledged++
		for _, change := range each.changes {
			if change.deleted {
				deletes[deleteID(change.key, each.acknowledged)] = each.acknowledged
			}
		}
	}
	l.history.learn(intents)
	if err := l.replay(deletes); err != nil {
		return err
	}
	if err := l.history.settle(intents); err != nil {
		return err
	}
	if err := l.checkState(intents); err != nil {
		return err
	}
	for _, w := range l.writers {
		for i := range keysPerWriter {
			key := fmt.Sprintf("w%02d/k%02d", w.id, i)
			current, _ := l.history.at(key, l.history.verified)
			w.current[key] = current.revision
		}
	}
	return nil
}

// replay watches from the last checked revision to the present one, and reads the compaction floor.
func (l *crashLoop) replay(deletes map[string]int64) error {
	ctx, cancel := limited()
	defer cancel()
	hash, err := l.clients[0].HashKV(ctx, usual.client, 0)
	if err != nil {
		return fmt.Errorf("HashKV: %w", err)
	}
	if floor := max(hash.CompactRevision, 0); floor < l.history.floor || !l.asked[floor] {
		return fmt.Errorf("compacted to %d, was %d, and nobody asked for it", floor, l.history.floor)
	} else {
		l.history.floor = floor
	}
	present := hash.Header.Revision
	if present < l.history.verified {
		return fmt.Errorf("revision %d after a restart, was %d", present, l.history.verified)
	}
	if present == l.history.verified {
		return nil
	}
	events := l.clients[0].Watch(clientv3.WithRequireLeader(ctx), "", clientv3.WithPrefix(),
		clientv3.WithRev(l.history.verified+1), clientv3.WithFragment())
	for l.history.verified < present {
		response, open := <-events
		if !open || response.Err() != nil {
			return fmt.Errorf("watch from %d ended at %d of %d: %w",
				l.history.verified+1, l.history.verified, present, errors.Join(response.Err(), ctx.Err()))
		}
		for _, event := range response.Events {
			if err := l.history.absorb(event, deletes); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkState compares the store as it stands, every acknowledged change at its own revision, and a
// sample of older revisions, with the history.
func (l *crashLoop) checkState(intents []intent) error {
	ctx, cancel := limited()
	defer cancel()
	all, err := l.clients[0].Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	if all.Header.Revision != l.history.verified {
		return fmt.Errorf("revision %d, want %d", all.Header.Revision, l.history.verified)
	}
	if err := l.history.sameState(all.Kvs); err != nil {
		return err
	}
	var reads []version
	var keys []string
	for _, each := range intents {
		for _, change := range each.changes {
			if each.acknowledged > l.history.floor {
				reads, keys = append(reads, version{revision: each.acknowledged}), append(keys, change.key)
			}
		}
	}
	for range 50 {
		w := l.writers[l.random.Intn(len(l.writers))]
		span := l.history.verified - max(l.history.floor, 1)
		reads = append(reads, version{revision: max(l.history.floor, 1) + l.random.Int63n(span+1)})
		keys = append(keys, fmt.Sprintf("w%02d/k%02d", w.id, l.random.Intn(keysPerWriter)))
	}
	l.readBack += len(reads)
	return errors.Join(l.readMany(ctx, keys, reads), l.belowFloor(ctx))
}

// readMany reads keys at revisions over all connections.
func (l *crashLoop) readMany(ctx context.Context, keys []string, at []version) error {
	failures := make([]error, len(l.clients))
	var group sync.WaitGroup
	for c, client := range l.clients {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := c; i < len(keys) && failures[c] == nil; i += len(l.clients) {
				got, err := client.Get(ctx, keys[i], clientv3.WithRev(at[i].revision))
				if err == nil {
					err = l.history.same(keys[i], at[i].revision, got.Kvs)
				}
				failures[c] = err
			}
		}()
	}
	group.Wait()
	return errors.Join(failures...)
}

// belowFloor checks that a compacted revision is refused.
func (l *crashLoop) belowFloor(ctx context.Context) error {
	if l.history.floor < 2 {
		return nil
	}
	_, err := l.clients[0].Get(ctx, "w01/k00", clientv3.WithRev(l.history.floor-1))
	if !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("read at %d below the floor %d: %v", l.history.floor-1, l.history.floor, err)
	}
	return nil
}

// cleanRestart ends the server with SIGTERM and finds the same store after the start.
func (l *crashLoop) cleanRestart() error {
	if l.clients == nil {
		if err := l.open(); err != nil {
			return err
		}
		if err := l.check(); err != nil {
			return err
		}
	}
	ctx, cancel := limited()
	defer cancel()
	before, err := l.clients[0].HashKV(ctx, usual.client, 0)
	if err != nil {
		return err
	}
	l.closeClients()
	if err := l.server.stop(); err != nil {
		return err
	}
	if err := l.open(); err != nil {
		return err
	}
	after, err := l.clients[0].HashKV(ctx, usual.client, 0)
	if err != nil {
		return err
	}
	if before.Hash != after.Hash || before.CompactRevision != after.CompactRevision ||
		before.HashRevision != after.HashRevision || before.Header.Revision != after.Header.Revision {
		return fmt.Errorf("HashKV before a clean restart %v, after it %v", before, after)
	}
	l.restarts++
	return l.check()
}
