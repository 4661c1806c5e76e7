package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
)

// frame is where one record lies in a WAL segment (etcd's format: eight bytes of length and padding,
// then the record's protobuf, then zeros up to a multiple of eight).
type frame struct {
	offset, length int64 // of the record behind the eight bytes
	kind           byte  // 2 is an entry
}

func (f frame) end() int64 { return f.offset + 8 + f.length }

const entryRecord = 2

// lastSegment finds the WAL file that was written last and its records.
func lastSegment(dataDir string) (string, []frame, error) {
	names, err := filepath.Glob(filepath.Join(dataDir, "member", "wal", "*.wal"))
	if err != nil || len(names) == 0 {
		return "", nil, errors.Join(fmt.Errorf("no WAL in %s", dataDir), err)
	}
	sort.Strings(names)
	name := names[len(names)-1]
	content, err := os.ReadFile(name)
	if err != nil {
		return "", nil, err
	}
	var frames []frame
	for offset := int64(0); offset+8 <= int64(len(content)); {
		head := binary.LittleEndian.Uint64(content[offset:])
		length := int64(head & (1<<56 - 1))
		if length == 0 {
			break
		}
		padding := int64(0)
		if head>>63 != 0 {
			padding = int64(head >> 56 & 7)
		}
		// the first field of a record is its type: tag 0x08, then the number
		frames = append(frames, frame{offset, length, content[offset+9]})
		offset += 8 + length + padding
	}
	return name, frames, nil
}

// entries keeps the records that hold raft entries.
func entries(frames []frame) []frame {
	var kept []frame
	for _, each := range frames {
		if each.kind == entryRecord {
			kept = append(kept, each)
		}
	}
	return kept
}

// flip turns some bits of one byte of a file.
func flip(name string, offset int64, bits byte) error {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	one := make([]byte, 1)
	if _, err := file.ReadAt(one, offset); err != nil {
		return err
	}
	one[0] ^= bits
	_, err = file.WriteAt(one, offset)
	return err
}

// zeroFrom clears a file from an offset to its end, as blocks that never reached the disk read.
func zeroFrom(name string, offset int64) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if err := os.Truncate(name, offset); err != nil {
		return err
	}
	return os.Truncate(name, info.Size())
}

// halve cuts the second half of the store's file off.
func halve(_, store string) error {
	info, err := os.Stat(store)
	if err != nil {
		return err
	}
	return os.Truncate(store, info.Size()/2)
}
