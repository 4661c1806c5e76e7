package api

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	. "etched.local/compat-tests/harness"
)

// raw speaks HTTP/2 frame by frame, to say what no client library says.
type raw struct {
	t       testing.TB
	conn    net.Conn
	framer  *http2.Framer
	encoded bytes.Buffer
	hpack   *hpack.Encoder
}

func openRaw(t testing.TB, server *Server) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", server.Client)
	if err != nil {
		t.Fatal(err)
	}
	return overConn(t, conn)
}

func overConn(t testing.TB, conn net.Conn) *raw {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(Deadline))
	r := &raw{t: t, conn: conn, framer: http2.NewFramer(conn, conn)}
	r.hpack = hpack.NewEncoder(&r.encoded)
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := r.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	return r
}

type field = hpack.HeaderField

// grpcFields is what a gRPC request has; later fields of the same name replace earlier ones and an
// empty value drops the field.
func grpcFields(path string, changes ...field) []field {
	fields := []field{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":path", Value: path}, {Name: ":authority", Value: "test"},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}
next:
	for _, change := range changes {
		for i := range fields {
			if fields[i].Name == change.Name {
				fields[i].Value = change.Value
				continue next
			}
		}
		fields = append(fields, change)
	}
	kept := fields[:0]
	for _, f := range fields {
		if f.Value != "" {
			kept = append(kept, f)
		}
	}
	return kept
}

// headers sends a header block, cut into frames of 16 KiB.
func (r *raw) headers(stream uint32, end bool, fields []field) {
	r.t.Helper()
	r.encoded.Reset()
	for _, f := range fields {
		_ = r.hpack.WriteField(f)
	}
	const frame = 16 << 10
	block := r.encoded.Bytes()
	first := block[:min(frame, len(block))]
	block = block[len(first):]
	err := r.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: end, EndHeaders: len(block) == 0})
	for len(block) > 0 && err == nil {
		part := block[:min(frame, len(block))]
		block = block[len(part):]
		err = r.framer.WriteContinuation(stream, len(block) == 0, part)
	}
	// A server may close while this writes; what it said is read below.
	_ = err
}

func (r *raw) data(stream uint32, end bool, data []byte) {
	_ = r.framer.WriteData(stream, end, data)
}

// message is one gRPC message with its five-byte prefix.
func message(flag byte, payload []byte) []byte {
	framed := append([]byte{flag}, binary.BigEndian.AppendUint32(nil, uint32(len(payload)))...)
	return append(framed, payload...)
}

// outcome reads until the stream has ended and tells how.
func (r *raw) outcome(stream uint32) string {
	seen := map[string]string{}
	dataBytes := 0
	finish := func(how string) string {
		var lines []string
		for _, name := range []string{":status", "content-type", "grpc-encoding", "grpc-status", "grpc-message"} {
			if value := seen[name]; value != "" {
				lines = append(lines, name+" "+value)
			}
		}
		if dataBytes > 0 && seen["grpc-encoding"] != "" {
			lines = append(lines, "compressed data")
		} else if dataBytes > 0 {
			lines = append(lines, fmt.Sprintf("%d bytes of data", dataBytes))
		}
		return strings.Join(append(lines, how), "\n")
	}
	for {
		frame, err := r.framer.ReadFrame()
		switch {
		case errors.Is(err, io.EOF), err != nil && strings.Contains(err.Error(), "reset"):
			return finish("connection closed")
		case errors.Is(err, os.ErrDeadlineExceeded):
			return finish("no end within the deadline")
		case err != nil:
			return finish("error " + err.Error())
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if frame.StreamID != stream {
				continue
			}
			for _, f := range frame.Fields {
				value := f.Value
				if decoded, err := url.PathUnescape(value); err == nil && f.Name == "grpc-message" {
					value = decoded
				}
				seen[f.Name] = value
			}
			if frame.StreamEnded() {
				return finish("ended")
			}
		case *http2.DataFrame:
			if frame.StreamID == stream {
				dataBytes += len(frame.Data())
				if frame.StreamEnded() {
					return finish("ended")
				}
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == stream {
				return finish("reset " + frame.ErrCode.String())
			}
		case *http2.GoAwayFrame:
			return finish("goaway " + frame.ErrCode.String())
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = r.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				_ = r.framer.WritePing(true, frame.Data)
			}
		}
	}
}

// exchange sends one request on a connection of its own.
func exchange(c *Case, fields []field, body []byte) string {
	c.Helper()
	r := openRaw(c, c.Server)
	r.headers(1, body == nil, fields)
	if body != nil {
		r.data(1, true, body)
	}
	return r.outcome(1)
}

// say sends bytes on a connection of its own and reads what comes until the server closes it; the
// client's half is closed first unless the server is to close by itself.
func say(c *Case, text string, closes bool) string {
	c.Helper()
	conn, err := net.Dial("tcp", c.Server.Client)
	if err != nil {
		c.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(Deadline))
	if _, err := io.WriteString(conn, text); err != nil {
		c.Fatal(err)
	}
	if !closes {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	answer, _ := io.ReadAll(conn)
	return string(answer)
}
