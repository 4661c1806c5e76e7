package harness

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// BytesCodec passes messages through as they are.
type BytesCodec struct{}

func (BytesCodec) Name() string                       { return "proto" }
func (BytesCodec) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (BytesCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }

// NestedTxn encodes transactions within transactions around an operation, built from the inside out and backwards: a request
// op is tag 2 of a txn, a nested txn is tag 4 of an op.
func NestedTxn(depth int, operation []byte) []byte {
	reversed := slices.Clone(operation)
	slices.Reverse(reversed)
	wrap := func(tag byte) {
		length := binary.AppendUvarint(nil, uint64(len(reversed)))
		slices.Reverse(length)
		reversed = append(append(reversed, length...), tag)
	}
	if operation != nil {
		wrap(0x12)
	}
	for range depth {
		wrap(0x22)
		wrap(0x12)
	}
	slices.Reverse(reversed)
	return reversed
}

// PutOp is a request op that puts a key.
func PutOp(key string) []byte {
	put := append([]byte{0x0a, byte(len(key))}, key...)
	return append([]byte{0x12, byte(len(put))}, put...)
}

// OddWrite is a request in a form that no client library writes.
type OddWrite struct {
	Name, Path string
	Body       []byte
}

// OddWrites are requests that Go's decoder takes: fields of another wire type than their own, which it passes over, messages
// that come twice, which it merges, and operations in the place of others.
func OddWrites() []OddWrite {
	const kv = "/etcdserverpb.KV/"
	var (
		// Key as a number, value as a group with anything in it, lease as text.
		foreign = []byte{0x08, 0x05, 0x13, 0x0a, 0x01, 'x', 0x14, 0x1a, 0x01, '7'}
		put     = func(key string) []byte { return PutOp(key)[2:] }
		field   = func(tag byte, body ...[]byte) []byte {
			whole := slices.Concat(body...)
			return slices.Concat([]byte{tag}, binary.AppendUvarint(nil, uint64(len(whole))), whole)
		}
		success = func(op ...[]byte) []byte { return field(0x12, op...) }
	)
	return []OddWrite{
		{"put, foreign fields first", kv + "Put", slices.Concat(foreign, put("odd1"))},
		{"put, foreign fields last", kv + "Put", slices.Concat(put("odd2"), foreign)},
		{"put, value twice", kv + "Put", slices.Concat(put("odd3"), []byte{0x12, 0x01, 'a', 0x12, 0x01, 'b'})},
		{"put, unknown groups 300 deep", kv + "Put", slices.Concat(put("odd4"), bytes.Repeat([]byte{0xfb, 0x01}, 300), bytes.Repeat([]byte{0xfc, 0x01}, 300))},
		{"txn, compare as a number", kv + "Txn", slices.Concat([]byte{0x08, 0x01}, success(PutOp("odd5")))},
		{"txn, an operation as a number beside one", kv + "Txn", success([]byte{0x10, 0x01}, PutOp("odd6"), []byte{0x18, 0x01})},
		{"txn, foreign fields in a nested put", kv + "Txn", success(field(0x22, success(field(0x12, put("odd7"), foreign))))},
		{"txn, a put in two parts", kv + "Txn", success(PutOp("odd8"), field(0x12, []byte{0x12, 0x01, 'v'}))},
		{"txn, a put in the place of another operation", kv + "Txn", success(field(0x1a, put("odd1")), PutOp("odd9"))},
		{"txn, a put in the place of transactions 100 deep", kv + "Txn", success(field(0x22, NestedTxn(100, PutOp("none"))), PutOp("odda"))},
		{"txn, a nested one in two parts", kv + "Txn", success(field(0x22, success(PutOp("oddb"))), field(0x22, success(PutOp("oddc"))))},
		{"delete, end of the range as a number", kv + "DeleteRange", slices.Concat(put("odd2"), []byte{0x10, 0x01})},
		{"lease, its time as text", "/etcdserverpb.Lease/LeaseGrant", []byte{0x0a, 0x01, '9', 0x08, 0x3c, 0x10, 0x07}},
	}
}
