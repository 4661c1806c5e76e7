package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// contents is what a store must hold: every acknowledged write, one per key.
type contents map[string]writeID

const smallValue = 300

// fill puts `count` keys one after the other.
func fill(client *clientv3.Client, into contents, count, size int) error {
	for range count {
		id := writeID{writer: 1, number: len(into) + 1}
		if err := putOne(client, into, id, size); err != nil {
			return err
		}
	}
	return nil
}

func putOne(client *clientv3.Client, into contents, id writeID, size int) error {
	ctx, cancel := limited()
	defer cancel()
	key := fmt.Sprintf("key-%06d", id.number)
	if _, err := client.Put(ctx, key, valueOf(id, size)); err != nil {
		return err
	}
	into[key] = id
	return nil
}

// holds checks that a store has exactly these contents; `maybe` names one key that may be there too.
// A server that ends meanwhile ends the reading.
func holds(s *server, client *clientv3.Client, want contents, maybe string) error {
	ctx, cancel := limited()
	defer cancel()
	go func() {
		select {
		case <-s.exited:
			cancel() // the client would go on trying to connect
		case <-ctx.Done():
		}
	}()
	got := contents{}
	for from := "\x00"; from != ""; {
		page, err := client.Get(ctx, from, clientv3.WithFromKey(), clientv3.WithLimit(500))
		if err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		for _, kv := range page.Kvs {
			id, err := parseValue(string(kv.Value))
			if err != nil {
				return fmt.Errorf("key %q: %w", kv.Key, err)
			}
			got[string(kv.Key)] = id
		}
		from = ""
		if page.More {
			from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		}
	}
	for key, id := range want {
		if got[key] != id && key != maybe {
			return fmt.Errorf("acknowledged write %v of %q is lost (found %v)", id, key, got[key])
		}
	}
	for key, id := range got {
		if key != maybe && want[key] != id {
			return fmt.Errorf("key %q holds %v, which was never acknowledged", key, id)
		}
	}
	return nil
}

// diskCase is one scenario's surroundings.
type diskCase struct {
	binary, dir string
	random      *rand.Rand
	// strict asks for what etched promises beyond etcd: one clear line, and no undetected damage.
	strict bool
}

func (c *diskCase) dataDir() string { return filepath.Join(c.dir, "disk.etcd") }

// store is the file that holds the flushed records: the largest one where etcd has its own.
func (c *diskCase) store() (string, error) {
	names, err := filepath.Glob(filepath.Join(c.dataDir(), "member", "snap", "*"))
	if err != nil || len(names) == 0 {
		return "", errors.Join(fmt.Errorf("no store in %s", c.dataDir()), err)
	}
	largest, most := "", int64(-1)
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return "", err
		}
		if info.Size() > most {
			largest, most = name, info.Size()
		}
	}
	return largest, nil
}

// prepared starts a server on an empty data dir and fills it.
func (c *diskCase) prepared(count int) (*server, *clientv3.Client, contents, error) {
	s, client, err := startReady(c.binary, c.dataDir(), usual)
	if err != nil {
		return nil, nil, nil, err
	}
	want := contents{}
	if err := fill(client, want, count, smallValue); err != nil {
		s.kill()
		return nil, nil, nil, err
	}
	return s, client, want, nil
}

// refused starts a server that must not come up, and checks how it says so.
func (c *diskCase) refused(words ...string) (string, error) {
	s, err := start(c.binary, c.dataDir(), usual)
	if err != nil {
		return "", err
	}
	select {
	case <-s.ready:
		s.kill()
		return "", fmt.Errorf("the server came up")
	case <-s.exited:
	case <-time.After(startLimit):
		s.kill()
		return "", fmt.Errorf("the server neither came up nor ended:\n%s", s.tail())
	}
	return c.saidWhy(s, words...)
}

// saidWhy checks a process that ended by itself: a status other than 0 and one line that tells why.
func (c *diskCase) saidWhy(s *server, words ...string) (string, error) {
	if code := s.command.ProcessState.ExitCode(); code == 0 {
		return "", fmt.Errorf("the server ended with status 0:\n%s", s.tail())
	}
	if !c.strict {
		return fmt.Sprint(s.command.ProcessState), nil
	}
	if status := s.command.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return "", fmt.Errorf("the server died by %v:\n%s", status.Signal(), s.tail())
	}
	complaints := complaints(s.log())
	if len(complaints) != 1 {
		return "", fmt.Errorf("%d lines tell why the server ended, want one:\n%s", len(complaints), s.tail())
	}
	for _, word := range words {
		if !strings.Contains(strings.ToLower(complaints[0]), strings.ToLower(word)) {
			return "", fmt.Errorf("%q does not say %q", complaints[0], word)
		}
	}
	return complaints[0], nil
}

// complaints are the lines of a server's output that are no ordinary log lines.
func complaints(lines []string) []string {
	var found []string
	for _, line := range lines {
		var entry struct{ Level string }
		if json.Unmarshal([]byte(line), &entry) == nil {
			switch entry.Level {
			case "debug", "info", "warn":
				continue
			}
		}
		found = append(found, line)
	}
	return found
}

// comesUp starts the server, checks the contents, and that it takes writes.
func (c *diskCase) comesUp(want contents, maybe string) error {
	s, client, err := startReady(c.binary, c.dataDir(), usual)
	if err != nil {
		return err
	}
	defer s.kill()
	defer client.Close()
	if err := holds(s, client, want, maybe); err != nil {
		return fmt.Errorf("%w\n%s", err, s.tail())
	}
	delete(want, maybe)
	return putOne(client, want, writeID{writer: 9, number: 999_999}, smallValue)
}

// readOnlyDir: a data dir on a file system that is mounted read-only, with data in it and without.
func (c *diskCase) readOnlyDir() (string, error) {
	s, client, want, err := c.prepared(100)
	if err != nil {
		return "", err
	}
	client.Close()
	s.kill()
	if err := syscall.Mount(c.dir, c.dir, "", syscall.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("bind mount: %w", err)
	}
	if err := syscall.Mount("", c.dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return "", fmt.Errorf("read-only mount: %w", err)
	}
	line, refusal := c.refused("read-only")
	if err := syscall.Unmount(c.dir, 0); err != nil {
		return "", err
	}
	if refusal != nil {
		return "", refusal
	}
	return line, c.comesUp(want, "")
}

// withTmpfs runs a step on a small file system of its own.
func (c *diskCase) withTmpfs(size string, step func() (string, error)) (string, error) {
	if err := syscall.Mount("tmpfs", c.dir, "tmpfs", 0, "size="+size); err != nil {
		return "", fmt.Errorf("tmpfs: %w", err)
	}
	line, err := step()
	return line, errors.Join(err, syscall.Unmount(c.dir, syscall.MNT_DETACH))
}

// enlarge gives the small file system more space.
func (c *diskCase) enlarge(size string) error {
	return syscall.Mount("tmpfs", c.dir, "tmpfs", syscall.MS_REMOUNT, "size="+size)
}

// noRoomToStart: a disk too small for a first start; with space the same folder works.
func (c *diskCase) noRoomToStart() (string, error) {
	return c.withTmpfs("256k", func() (string, error) {
		line, err := c.refused("no space")
		if err != nil {
			return "", err
		}
		if err := c.enlarge("300m"); err != nil {
			return "", err
		}
		return line, c.comesUp(contents{}, "")
	})
}

// fullDisk: puts until the disk is full; after a restart with space every acknowledged one is there.
func (c *diskCase) fullDisk() (string, error) {
	return c.withTmpfs("160m", func() (string, error) {
		s, client, want, err := c.prepared(10)
		if err != nil {
			return "", err
		}
		defer client.Close()
		var refusal error
		for refusal == nil && len(want) < 20_000 {
			refusal = fill(client, want, 1, 64<<10)
		}
		last := fmt.Sprintf("key-%06d", len(want)+1) // sent, but not acknowledged
		line, err := c.afterFull(s, client, refusal)
		if err != nil {
			return "", fmt.Errorf("after %d puts: %w", len(want), err)
		}
		if err := c.enlarge("600m"); err != nil {
			return "", err
		}
		return fmt.Sprintf("%d puts, then: %s", len(want), line), c.comesUpDisarmed(want, last)
	})
}

// afterFull checks how a server told that its disk is full: it ended with a clear line, or it says
// NOSPACE and goes on answering reads.
func (c *diskCase) afterFull(s *server, client *clientv3.Client, refusal error) (string, error) {
	if refusal == nil {
		s.kill()
		return "", fmt.Errorf("the disk never became full")
	}
	if strings.Contains(refusal.Error(), "space exceeded") {
		ctx, cancel := limited()
		defer cancel()
		_, err := client.Get(ctx, "key-000001")
		return "answered " + refusal.Error(), errors.Join(err, s.stop())
	}
	if errors.Is(refusal, context.DeadlineExceeded) {
		s.kill()
		return "", fmt.Errorf("a put hung:\n%s", s.tail())
	}
	if err := s.awaitExit(stopLimit); err != nil {
		return "", fmt.Errorf("put answered %w and then %w", refusal, err)
	}
	return c.saidWhy(s, "no space")
}

// comesUpDisarmed is comesUp for a store whose alarm may still stand.
func (c *diskCase) comesUpDisarmed(want contents, maybe string) error {
	s, client, err := startReady(c.binary, c.dataDir(), usual)
	if err != nil {
		return err
	}
	defer s.kill()
	defer client.Close()
	if err := holds(s, client, want, maybe); err != nil {
		return err
	}
	ctx, cancel := limited()
	defer cancel()
	if _, err := client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		return err
	}
	return putOne(client, want, writeID{writer: 9, number: 999_999}, smallValue)
}

// heldDir: a second server on the same data dir waits, says so, and takes over when the first ends.
func (c *diskCase) heldDir() (string, error) {
	first, client, want, err := c.prepared(50)
	if err != nil {
		return "", err
	}
	defer first.kill()
	defer client.Close()
	waiting, err := start(c.binary, c.dataDir(), second)
	if err != nil {
		return "", err
	}
	defer waiting.kill()
	soon := 2 * time.Second
	if !c.strict {
		soon = 15 * time.Second // etcd says it after ten
	}
	line, said := waiting.awaitLine(soon, "another process")
	if !said {
		return "", fmt.Errorf("the second server does not say that it waits:\n%s", waiting.tail())
	}
	if err := fill(client, want, 50, smallValue); err != nil {
		return "", fmt.Errorf("put at the first server: %w", err)
	}
	select {
	case <-waiting.ready:
		return "", fmt.Errorf("both servers serve one data dir")
	case <-waiting.exited:
		return "", fmt.Errorf("the second server ended:\n%s", waiting.tail())
	default:
	}
	if err := first.stop(); err != nil {
		return "", err
	}
	if err := waiting.awaitReady(); err != nil {
		return "", err
	}
	next, err := dial(second)
	if err != nil {
		return "", err
	}
	defer next.Close()
	return line, holds(waiting, next, want, "")
}
