package main

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Fields of WatchResponse, Event and KeyValue that are looked at.
const (
	responseCreated  = 3
	responseCanceled = 4
	responseReason   = 6
	responseEvents   = 11
	eventKV          = 2
	kvModRevision    = 3
	kvValue          = 5
)

// Fields of RangeResponse and RangeStreamResponse that are.
const (
	rangeKVs    = 2
	streamRange = 1
)

// event is what is looked at of an event; value is only good until the next message.
type event struct {
	revision int64
	value    []byte
}

// raw is a message as it came. Decoding all of a large one would take this program several times what
// sending it takes the server, on the cores that they share, and memory by the gigabyte.
type raw struct{ bytes []byte }

// message is a WatchResponse, of which only a little of each event is read.
type message struct {
	raw
	created, canceled bool
	reason            string
}

// rawCodec leaves messages as they come. It goes by the name of the usual one, so the server sees no
// difference.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message", v)
	}
	bytes, err := proto.Marshal(message)
	return mem.BufferSlice{mem.SliceBuffer(bytes)}, err
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*raw)
	if !ok {
		return fmt.Errorf("%T cannot be left as it came", v)
	}
	if size := data.Len(); cap(m.bytes) < size {
		m.bytes = make([]byte, size)
	} else {
		m.bytes = m.bytes[:size]
	}
	data.CopyTo(m.bytes)
	return nil
}

// keysOfRange counts the keys of a RangeResponse.
func keysOfRange(bytes []byte) (int64, error) {
	var keys int64
	err := fields(bytes, func(number protowire.Number, _ uint64, _ []byte) error {
		if number == rangeKVs {
			keys++
		}
		return nil
	})
	return keys, err
}

// keysOfStream counts those of a RangeStreamResponse.
func keysOfStream(bytes []byte) (int64, error) {
	var keys int64
	err := fields(bytes, func(number protowire.Number, _ uint64, inner []byte) error {
		if number != streamRange {
			return nil
		}
		some, err := keysOfRange(inner)
		keys += some
		return err
	})
	return keys, err
}

// read goes through the message and hands each of its events over.
func (m *message) read(each func(event) error) error {
	m.created, m.canceled, m.reason = false, false, ""
	return fields(m.bytes, func(number protowire.Number, scalar uint64, bytes []byte) error {
		switch number {
		case responseCreated:
			m.created = scalar != 0
		case responseCanceled:
			m.canceled = scalar != 0
		case responseReason:
			m.reason = string(bytes)
		case responseEvents:
			read, err := readEvent(bytes)
			if err != nil {
				return err
			}
			return each(read)
		}
		return nil
	})
}

func readEvent(bytes []byte) (event, error) {
	var read event
	err := fields(bytes, func(number protowire.Number, _ uint64, kv []byte) error {
		if number != eventKV {
			return nil
		}
		return fields(kv, func(number protowire.Number, scalar uint64, bytes []byte) error {
			switch number {
			case kvModRevision:
				read.revision = int64(scalar)
			case kvValue:
				read.value = bytes
			}
			return nil
		})
	})
	return read, err
}

// fields goes through the fields of a message, which are numbers or bytes in all that is read here.
func fields(bytes []byte, each func(number protowire.Number, scalar uint64, bytes []byte) error) error {
	for len(bytes) > 0 {
		number, kind, size := protowire.ConsumeTag(bytes)
		if size < 0 {
			return protowire.ParseError(size)
		}
		bytes = bytes[size:]
		var scalar uint64
		var inner []byte
		switch kind {
		case protowire.VarintType:
			scalar, size = protowire.ConsumeVarint(bytes)
		case protowire.BytesType:
			inner, size = protowire.ConsumeBytes(bytes)
		default:
			return fmt.Errorf("a field of kind %d", kind)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		bytes = bytes[size:]
		if err := each(number, scalar, inner); err != nil {
			return err
		}
	}
	return nil
}
