package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Files that are not as they were written. A server may refuse them or serve exactly what was
// acknowledged; it must never come up with anything else.

// damagedWAL: one byte in the middle of the log is not what was written.
func (c *diskCase) damagedWAL(where func(frame) (offset int64, bits byte)) (string, error) {
	s, client, _, err := c.prepared(400)
	if err != nil {
		return "", err
	}
	client.Close()
	s.kill()
	name, frames, err := lastSegment(c.dataDir())
	if err != nil {
		return "", err
	}
	kept := entries(frames)
	offset, bits := where(kept[len(kept)/2])
	if err := flip(name, offset, bits); err != nil {
		return "", err
	}
	return c.refused(".wal")
}

// tornWAL: the last record reached the disk in part; all complete records count.
func (c *diskCase) tornWAL(tear func(name string, last frame) error) (string, error) {
	s, client, want, err := c.prepared(200)
	if err != nil {
		return "", err
	}
	err = fill(client, want, 1, 8<<10)
	s.kill()
	client.Close()
	if err != nil {
		return "", err
	}
	name, frames, err := lastSegment(c.dataDir())
	if err != nil {
		return "", err
	}
	kept := entries(frames)
	if err := tear(name, kept[len(kept)-1]); err != nil {
		return "", err
	}
	last := fmt.Sprintf("key-%06d", len(want))
	if err := c.comesUp(want, last); err != nil {
		return "", err
	}
	return "200 of 200 complete records", c.comesUp(want, "")
}

// damagedStore: bytes of flushed records, and of pages at random, are not what was written. Each
// time the server refuses, or it serves exactly what was written; it never serves anything else.
func (c *diskCase) damagedStore() (string, error) {
	s, client, want, err := c.prepared(2000)
	if err != nil {
		return "", err
	}
	client.Close()
	if err := s.stop(); err != nil {
		return "", err
	}
	store, err := c.store()
	if err != nil {
		return "", err
	}
	whole, err := os.ReadFile(store)
	if err != nil {
		return "", err
	}
	keep := filepath.Join(c.dir, "whole.etcd")
	if err := os.CopyFS(keep, os.DirFS(c.dataDir())); err != nil {
		return "", err
	}
	refused, unharmed := 0, 0
	for trial := range 16 {
		if err := errors.Join(os.RemoveAll(c.dataDir()), os.CopyFS(c.dataDir(), os.DirFS(keep))); err != nil {
			return "", err
		}
		offset := c.target(whole, trial)
		if err := flip(store, offset, 1<<c.random.Intn(8)); err != nil {
			return "", err
		}
		harmed, err := c.damageShows(want)
		if err != nil {
			return "", fmt.Errorf("byte %d of %s flipped: %w", offset, filepath.Base(store), err)
		}
		if harmed {
			refused++
		} else {
			unharmed++
		}
	}
	return fmt.Sprintf("%d flipped bytes: %d refused with a clear line, %d without harm", refused+unharmed, refused, unharmed), nil
}

// target picks a byte: inside a record's value in every other trial, else anywhere in the used part.
func (c *diskCase) target(whole []byte, trial int) int64 {
	if trial%2 == 0 {
		id := writeID{writer: 1, number: 1 + c.random.Intn(2000)}
		if at := bytes.Index(whole, []byte(valueOf(id, smallValue))); at >= 0 {
			return int64(at + c.random.Intn(smallValue))
		}
	}
	used := len(bytes.TrimRight(whole, "\x00"))
	return int64(c.random.Intn(used))
}

// damageShows starts the server on a damaged store: true when it refused or stopped with a clear
// line, false when all is as it was written.
func (c *diskCase) damageShows(want contents) (bool, error) {
	s, err := start(c.binary, c.dataDir(), usual)
	if err != nil {
		return false, err
	}
	select {
	case <-s.ready:
	case <-s.exited:
		_, err := c.saidWhy(s)
		return true, err
	case <-time.After(startLimit):
		s.kill()
		return false, fmt.Errorf("the server neither came up nor ended:\n%s", s.tail())
	}
	client, err := dial(usual)
	if err != nil {
		return false, err
	}
	defer client.Close()
	readable := holds(s, client, want, "")
	if readable == nil {
		s.kill()
		return false, nil
	}
	if strings.Contains(readable.Error(), "read back") { // an error answer: the damage was seen
		if err := s.awaitExit(stopLimit); err != nil {
			return false, err
		}
		_, err := c.saidWhy(s)
		return true, err
	}
	s.kill()
	return false, readable
}

// lostFile: something of a store that a killed server left, ahead of its last checkpoint, is gone.
// `large` writes come first; enough of them, and the log no longer begins at its beginning.
func (c *diskCase) lostFile(large int, lose func(dataDir, store string) error) (string, error) {
	s, client, want, err := c.prepared(300)
	if err != nil {
		return "", err
	}
	err = fill(client, want, large, 64<<10)
	client.Close()
	if err != nil {
		s.kill()
		return "", err
	}
	if err := s.stop(); err != nil {
		return "", err
	}
	if s, client, err = startReady(c.binary, c.dataDir(), usual); err != nil {
		return "", err
	}
	err = fill(client, want, 300, smallValue)
	s.kill()
	client.Close()
	if err != nil {
		return "", err
	}
	store, err := c.store()
	if err != nil {
		return "", err
	}
	if err := lose(c.dataDir(), store); err != nil {
		return "", err
	}
	seen, err := c.damageShows(want)
	if seen {
		return "refused", err
	}
	return fmt.Sprintf("%[1]d of %[1]d keys", len(want)), err
}
