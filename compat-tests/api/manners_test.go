package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	. "etched.local/compat-tests/harness"
)

func TestAConnectionHasAsManyStreamsAsTheFlagSays(t *testing.T) {
	OnBoth(t, func(c *Case) {
		raw := openRaw(c, c.Server)
		watch, err := proto.Marshal(CreateRequest(watchKey("a")))
		if err != nil {
			c.Fatal(err)
		}
		for stream := uint32(1); stream <= 7; stream += 2 {
			raw.headers(stream, false, grpcFields("/etcdserverpb.Watch/Watch"))
			raw.data(stream, false, message(0, watch))
		}
		opened, announced := map[uint32]bool{}, false
		for ended := false; !ended || len(opened) < 3 || !announced; {
			frame, err := raw.framer.ReadFrame()
			if err != nil {
				c.Fatalf("%v after streams %v", err, opened)
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if streams, there := frame.Value(http2.SettingMaxConcurrentStreams); there {
					c.Notef("announced", "%d", streams)
					announced = true
				}
			case *http2.MetaHeadersFrame:
				opened[frame.StreamID] = true
			case *http2.RSTStreamFrame:
				if ended {
					continue // what the client had sent on it already may be refused once more
				}
				c.Notef("one more", "stream %d: %v", frame.StreamID, frame.ErrCode)
				ended = true
			}
		}
		c.Notef("opened", "%v", opened)
		stillServes(c)
	}, "--max-concurrent-streams", "3")
}

func TestAClientThatDoesNotAnswerPingsIsDisconnected(t *testing.T) {
	OnBoth(t, func(c *Case) {
		raw := openRaw(c, c.Server)
		pinged, ended := false, false
		for !ended {
			frame, err := raw.framer.ReadFrame()
			switch {
			case err == nil:
				if ping, is := frame.(*http2.PingFrame); is && !ping.IsAck() {
					pinged = true
				}
			case errors.Is(err, os.ErrDeadlineExceeded):
				c.Fatal("the connection is still there")
			default:
				ended = true
			}
		}
		c.Notef("pinged", "%v", pinged)
		// One that answers, as every library does, stays.
		stillServes(c)
	}, "--grpc-keepalive-interval", "1s", "--grpc-keepalive-timeout", "1s")
}

// How calls end that are open when the server is told to stop.
func TestAStopEndsWhatIsOpenAndLosesNothing(t *testing.T) {
	OnBoth(t, func(c *Case) {
		lease := c.Grant(7, 600)
		s := c.OpenWatch()
		s.Create("watch", watchAll())
		keepAlive, err := c.Lease.LeaseKeepAlive(c.T.Context())
		if err != nil {
			c.Fatal(err)
		}
		if err := keepAlive.Send(&pb.LeaseKeepAliveRequest{ID: lease}); err != nil {
			c.Fatal(err)
		}
		if _, err := keepAlive.Recv(); err != nil {
			c.Fatal(err)
		}
		acknowledged := 0
		writing := make(chan struct{})
		go func() {
			defer close(writing)
			for {
				if _, err := c.KV.Put(c.T.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte(fmt.Sprint(acknowledged + 1))}); err != nil {
					return
				}
				acknowledged++
			}
		}()
		c.Eventually("writes", func() bool { return s.Take("event").Events != nil })
		c.Server.Stop(c)
		for {
			if _, err = keepAlive.Recv(); err != nil {
				break
			}
		}
		c.Notef("keep-alive", "ended by the server: %v", status.Code(err) == codes.Unavailable || errors.Is(err, io.EOF))
		<-writing
		c.Server.Restart(c)
		c.Reconnect()
		answer, err := c.KV.Range(c.Context(), &pb.RangeRequest{Key: []byte("k")})
		if err != nil {
			c.Fatal(err)
		}
		// One more may have been written whose answer did not come.
		if version := answer.Kvs[0].Version; version < int64(acknowledged) || version > int64(acknowledged)+1 {
			c.Errorf("%d writes were acknowledged, %d are there", acknowledged, version)
		}
	})
}

// secrets are what no log may hold.
var secrets = []string{"pw-of-alice-1", "pw-of-alice-2", "pw-of-root", "wrong-guess", "hidden-hash"}

func TestTheLogHoldsNoSecretsAtAnyLevel(t *testing.T) {
	folder := t.TempDir()
	secret := filepath.Join(folder, "secret")
	const keyMaterial = "key-material-of-tokens-0123456789abcdef"
	if err := os.WriteFile(secret, []byte(keyMaterial), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"simple": "simple", "signed": "jwt,sign-method=HS256,priv-key=" + secret,
	} {
		t.Run(name, func(t *testing.T) {
			OnBoth(t, func(c *Case) {
				said := append([]string{keyMaterial}, secrets...)
				said = append(said, spendSecrets(c)...)
				log := c.Server.Log()
				if !strings.Contains(log, `"level":"debug"`) {
					c.Error("the log is not at level debug")
				}
				for _, text := range said {
					if !c.Server.Real() && strings.Contains(log, text) {
						c.Errorf("the log holds %q", text)
					}
				}
			}, "--log-level", "debug", "--bcrypt-cost", "4", "--auth-token", token, "--warning-unary-request-duration", "1ns",
				"--warning-apply-duration", "1ns")
		})
	}
}

// spendSecrets makes every call that carries one, and gives the tokens that came of it.
func spendSecrets(c *Case) (tokens []string) {
	c.Helper()
	a := nobody(c)
	try(a, "root", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: "root", Password: "pw-of-root"})
	try(a, "alice", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: "alice", Password: "pw-of-alice-1"})
	try(a, "alice again", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: "alice", Password: "pw-of-alice-1"})
	try(a, "hash", a.auth.UserAdd, &pb.AuthUserAddRequest{Name: "hashed", HashedPassword: "hidden-hash", Options: &authpb.UserAddOptions{}})
	try(a, "role", a.auth.UserGrantRole, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	try(a, "changed", a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: "alice", Password: "pw-of-alice-2"})
	try(a, "of nobody", a.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: "nobody", Password: "pw-of-alice-2"})
	try(a, "enable", a.auth.AuthEnable, &pb.AuthEnableRequest{})
	try(a, "wrong", a.auth.Authenticate, &pb.AuthenticateRequest{Name: "alice", Password: "wrong-guess"})
	root, alice := a.logIn("root", "pw-of-root"), a.logIn("alice", "pw-of-alice-2")
	tokens = append(tokens, root.token, alice.token, tokenOf(c, "alice", "pw-of-alice-2"))
	post(c, "/v3/auth/authenticate", `{"name":"alice","password":"wrong-guess"}`)
	post(c, "/v3/auth/user/add", `{"name":"eve","password":"pw-of-alice-1"`)
	try(root, "allowed", c.KV.Put, &pb.PutRequest{Key: []byte("a")})
	try(alice, "denied", c.KV.Put, &pb.PutRequest{Key: []byte("a")})
	for _, name := range []string{"token", "authorization"} {
		bad := metadata.AppendToOutgoingContext(context.Background(), name, alice.token+"pw-of-alice-1")
		_, err := c.KV.Put(bad, &pb.PutRequest{Key: []byte("a")})
		c.Notef("a token that is none, as "+name, "%v", status.Code(err))
	}
	try(root, "disable", a.auth.AuthDisable, &pb.AuthDisableRequest{})
	return tokens
}
