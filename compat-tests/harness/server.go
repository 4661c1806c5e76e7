package harness

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Kind says which program a server is.
type Kind string

const (
	// Etcd is real etcd, the oracle.
	Etcd Kind = "etcd"
	// Etched is the server under test.
	Etched Kind = "etched"
)

// AdvertisedPeer is the peer URL every server here announces, whatever port it listens on: member
// and cluster ids are computed from it, so both servers must come to the same ids.
const AdvertisedPeer = "http://127.0.0.1:2380"

const (
	readyLine     = "ready to serve client requests"
	readyDeadline = 20 * time.Second
	startAttempts = 3
)

// Server is one running server process.
type Server struct {
	// Kind is the program that runs.
	Kind Kind
	// Client is host:port of its client listener.
	Client string
	// Peer is host:port of its peer listener.
	Peer string
	// DataDir outlives a Kill, for a Restart.
	DataDir string

	flags []string
	env   []string
	cmd   *exec.Cmd
	log   *lineLog
	done  chan struct{}
}

// Binary is the path of a program: ETCHED_BIN, ETCHEDUTL_BIN, ETCD_BIN, ETCDCTL_BIN or ETCDUTL_BIN from
// the environment, else where the `run` command of this folder and cargo put them.
func Binary(name string) string {
	if path := os.Getenv(strings.ToUpper(name) + "_BIN"); path != "" {
		return path
	}
	_, here, _, _ := runtime.Caller(0)
	target := filepath.Join(filepath.Dir(here), "..", "..", "target")
	if strings.HasPrefix(name, string(Etched)) {
		return filepath.Join(target, "release", name)
	}
	return filepath.Join(target, "compat", "etcd", name)
}

// Start runs a server of this kind on free loopback ports and waits until it serves. It is killed
// when the test ends. Flags may name what is chosen here: `<client>`, `<peer>` and `<data>`.
func Start(t testing.TB, kind Kind, flags ...string) *Server {
	t.Helper()
	return StartIn(t, kind, nil, flags...)
}

// StartIn does so with more in the environment, `NAME=value` each.
func StartIn(t testing.TB, kind Kind, env []string, flags ...string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "compat-"+string(kind)+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Kind: kind, DataDir: filepath.Join(dir, "data"), flags: flags, env: env}
	for attempt := 1; ; attempt++ {
		s.Client, s.Peer = freePorts(t)
		err = s.run()
		if err == nil {
			break
		}
		taken := s.log != nil && s.log.contains("address already in use")
		if !taken || attempt == startAttempts {
			t.Fatalf("%s did not start: %v\n%s", kind, err, s.Log())
		}
	}
	t.Cleanup(func() {
		if t.Failed() && !s.Alive() {
			t.Logf("%s ended by itself (%v), its last lines:\n%s", kind, s.cmd.ProcessState, s.log.tail(12))
		}
		s.Kill()
	})
	return s
}

// Restart runs the server again on its data dir and ports after Kill.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatalf("%s did not start again: %v\n%s", s.Kind, err, s.Log())
	}
}

// Kill ends the process with SIGKILL and waits for its end.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// Stop ends the process with SIGTERM and waits for its end.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(readyDeadline):
		t.Fatalf("%s does not end on SIGTERM\n%s", s.Kind, s.log.tail(12))
	}
}

// Alive is whether the process still runs.
func (s *Server) Alive() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// Real is whether the program is real etcd: always for Etcd, and for Etched when the suite runs on
// two oracles. What crashes etcd is sent to others only.
func (s *Server) Real() bool { return Binary(string(s.Kind)) == Binary(string(Etcd)) }

// Pid of the process.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Log is everything the last run wrote to its output.
func (s *Server) Log() string { return s.log.tail(1 << 20) }

// URL of the client listener.
func (s *Server) URL() string { return "http://" + s.Client }

// Dial opens a connection of its own to the server, closed when the test ends.
func (s *Server) Dial(t testing.TB, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1 << 30)),
	}, options...)
	conn, err := grpc.NewClient("passthrough:///"+s.Client, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// filled is the flags with `<client>`, `<peer>` and `<data>` replaced by what was chosen.
func (s *Server) filled() []string {
	chosen := strings.NewReplacer("<client>", s.Client, "<peer>", s.Peer, "<data>", s.DataDir)
	flags := make([]string, len(s.flags))
	for i, flag := range s.flags {
		flags[i] = chosen.Replace(flag)
	}
	return flags
}

func (s *Server) run() error {
	name := "default"
	args := append([]string{
		"--name", name,
		"--data-dir", s.DataDir,
		"--listen-client-urls", "http://" + s.Client,
		"--advertise-client-urls", "http://" + s.Client,
		"--listen-peer-urls", "http://" + s.Peer,
		"--initial-advertise-peer-urls", AdvertisedPeer,
		"--initial-cluster", name + "=" + AdvertisedPeer,
	}, s.filled()...)
	s.cmd = exec.Command(Binary(string(s.Kind)), args...)
	s.cmd.Env = append(os.Environ(), s.env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.log = &lineLog{ready: make(chan struct{})}
	reader, writer := io.Pipe()
	s.cmd.Stdout, s.cmd.Stderr = writer, writer
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return err
	}
	s.done = make(chan struct{})
	go s.log.read(reader)
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		writer.Close()
		close(done)
	}(s.cmd, s.done)
	select {
	case <-s.log.ready:
		return nil
	case <-s.done:
		return fmt.Errorf("it ended: %v", s.cmd.ProcessState)
	case <-time.After(readyDeadline):
		s.Kill()
		return fmt.Errorf("no line %q in %v", readyLine, readyDeadline)
	}
}

// lineLog keeps a process's output and says when the ready line was in it.
type lineLog struct {
	mu    sync.Mutex
	text  bytes.Buffer
	ready chan struct{}
	once  sync.Once
}

func (l *lineLog) read(from io.Reader) {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		l.mu.Lock()
		l.text.WriteString(line)
		l.mu.Unlock()
		if strings.Contains(line, readyLine) {
			l.once.Do(func() { close(l.ready) })
		}
		if err != nil {
			return
		}
	}
}

func (l *lineLog) contains(text string) bool { return strings.Contains(l.tail(1<<20), text) }

func (l *lineLog) tail(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Split(strings.TrimRight(l.text.String(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Ports below the kernel's ephemeral range, so that no outgoing connection takes one meanwhile; the
// start differs by process, so that test programs side by side do not try the same ones.
const (
	portFirst = 10000
	portPairs = 4900
)

var nextPair atomic.Uint32

func freePorts(t testing.TB) (client, peer string) {
	t.Helper()
	for range portPairs {
		pair := (uint32(os.Getpid())*97 + nextPair.Add(1)) % portPairs
		port := portFirst + 2*int(pair)
		client, peer = loopback(port), loopback(port+1)
		if isFree(client) && isFree(peer) {
			return client, peer
		}
	}
	t.Fatal("no free loopback port")
	return "", ""
}

// FreePort is a host:port on loopback that nobody listens on, for a program other than a server.
func FreePort(t testing.TB) string {
	t.Helper()
	address, _ := freePorts(t)
	return address
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func isFree(address string) bool {
	listener, err := net.Listen("tcp", address)
	if err == nil {
		listener.Close()
	}
	return err == nil
}
