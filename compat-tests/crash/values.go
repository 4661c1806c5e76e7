package main

import (
	"fmt"
	"strconv"
	"strings"
)

// A write names itself: its value says which writer sent it, as its how-manieth write, and how long
// it is. So a value that was never sent, was cut, or stands under another key shows by itself, and
// the history keeps one number for a write instead of its bytes.

// writeID is one value ever sent: unique in a run.
type writeID struct {
	writer int
	number int
}

// valueOf gives the bytes of a write: a head that names it, then a filler that follows from the head.
func valueOf(id writeID, size int) string {
	head := fmt.Sprintf("%d.%d.%d|", id.writer, id.number, size)
	if size <= len(head) {
		return head
	}
	var value strings.Builder
	value.Grow(size)
	value.WriteString(head)
	state := uint64(id.writer)<<32 ^ uint64(id.number) ^ 0x9e3779b97f4a7c15
	for value.Len() < size {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		value.WriteByte('a' + byte(state%26))
	}
	return value.String()
}

// parseValue reads a value back and refuses one that valueOf never made.
func parseValue(value string) (writeID, error) {
	head, _, found := strings.Cut(value, "|")
	fields := strings.Split(head, ".")
	if !found || len(fields) != 3 {
		return writeID{}, fmt.Errorf("value %.40q was never sent", value)
	}
	numbers := make([]int, len(fields))
	for i, field := range fields {
		number, err := strconv.Atoi(field)
		if err != nil {
			return writeID{}, fmt.Errorf("value %.40q was never sent: %w", value, err)
		}
		numbers[i] = number
	}
	id := writeID{writer: numbers[0], number: numbers[1]}
	if valueOf(id, numbers[2]) != value {
		return writeID{}, fmt.Errorf("value %.40q is damaged", value)
	}
	return id, nil
}
