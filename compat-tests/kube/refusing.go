package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// rangeStream is the call that a store older than etcd 3.7 does not have.
const rangeStream = "/etcdserverpb.KV/RangeStream"

// refusing stands between an apiserver and a store and refuses RangeStream as an older store would;
// all else goes through as it is.
type refusing struct {
	address string
	refused atomic.Int64
	store   *grpc.ClientConn
}

func startRefusing(t testing.TB, store string) *refusing {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+store, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(untouched{}), grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	r := &refusing{address: listener.Addr().String(), store: conn}
	server := grpc.NewServer(grpc.ForceServerCodec(untouched{}), grpc.UnknownServiceHandler(r.pass))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); conn.Close() })
	return r
}

// untouched is a codec that leaves messages as the bytes they are. It has the name of the usual one, which
// goes over the wire.
type untouched struct{}

func (untouched) Name() string { return "proto" }

func (untouched) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }

func (untouched) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = append([]byte(nil), data...)
	return nil
}

// pass hands one call on, messages of both directions as they come.
func (r *refusing) pass(_ any, from grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(from)
	if method == rangeStream {
		r.refused.Add(1)
		return status.Error(codes.Unimplemented, fmt.Sprintf("unknown method %s", method))
	}
	sent, _ := metadata.FromIncomingContext(from.Context())
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(from.Context(), sent))
	defer cancel()
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	to, err := r.store.NewStream(ctx, both, method)
	if err != nil {
		return err
	}
	go func() {
		for {
			var message []byte
			if err := from.RecvMsg(&message); err != nil {
				if errors.Is(err, io.EOF) {
					_ = to.CloseSend()
				}
				return
			}
			if to.SendMsg(&message) != nil {
				return
			}
		}
	}()
	for {
		var message []byte
		if err := to.RecvMsg(&message); err != nil {
			from.SetTrailer(to.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := from.SendMsg(&message); err != nil {
			return err
		}
	}
}
