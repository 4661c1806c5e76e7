package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	// readyLine is what etcd logs once clients are served; nothing else says so.
	readyLine = "ready to serve client requests"
	// startLimit bounds a start; real etcd waits out an election timeout of one second in it.
	startLimit = 30 * time.Second
	stopLimit  = 15 * time.Second
)

// address is where one server listens. The network namespace is the run's own, so ports are fixed.
type address struct{ client, peer string }

var (
	usual  = address{client: "http://127.0.0.1:2379", peer: "http://127.0.0.1:2380"}
	second = address{client: "http://127.0.0.1:3379", peer: "http://127.0.0.1:3380"}
)

// server is one run of the binary under test on a data dir.
type server struct {
	command *exec.Cmd
	ready   chan struct{} // closed at readyLine
	exited  chan struct{} // closed when the process is gone and its output read to the end

	mutex  sync.Mutex
	output []string
	shown  chan struct{} // replaced at each line: for those who wait for one
}

// start runs the binary; it does not wait for it to be ready.
func start(binary, dataDir string, at address) (*server, error) {
	arguments := []string{
		"--name=crash", "--data-dir=" + dataDir,
		"--listen-client-urls=" + at.client, "--advertise-client-urls=" + at.client,
		"--listen-peer-urls=" + at.peer, "--initial-advertise-peer-urls=" + at.peer,
		"--initial-cluster=crash=" + at.peer, "--snapshot-count=2000",
	}
	s := &server{
		command: exec.Command(binary, arguments...),
		ready:   make(chan struct{}), exited: make(chan struct{}), shown: make(chan struct{}),
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.command.Stdout, s.command.Stderr = writer, writer
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	writer.Close()
	go s.follow(reader)
	return s, nil
}

// follow keeps every line and closes the channels as their moment comes.
func (s *server) follow(reader *os.File) {
	defer reader.Close()
	lines := bufio.NewReader(reader)
	for isReady := false; ; {
		line, err := lines.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			s.mutex.Lock()
			s.output = append(s.output, line)
			close(s.shown)
			s.shown = make(chan struct{})
			s.mutex.Unlock()
			if !isReady && strings.Contains(line, readyLine) {
				isReady = true
				close(s.ready)
			}
		}
		if err != nil {
			_ = s.command.Wait()
			close(s.exited)
			return
		}
	}
}

// log gives what the process has printed so far.
func (s *server) log() []string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return append([]string(nil), s.output...)
}

// awaitReady waits for readyLine.
func (s *server) awaitReady() error {
	select {
	case <-s.ready:
		return nil
	case <-s.exited:
		return fmt.Errorf("the server ended while starting (%v):\n%s", s.command.ProcessState, s.tail())
	case <-time.After(startLimit):
		return fmt.Errorf("the server is not ready after %v:\n%s", startLimit, s.tail())
	}
}

// awaitLine waits until some line has one of the words, and reports whether one came in time.
func (s *server) awaitLine(limit time.Duration, words ...string) (string, bool) {
	deadline := time.After(limit)
	for {
		s.mutex.Lock()
		shown, lines := s.shown, s.output
		s.mutex.Unlock()
		for _, line := range lines {
			for _, word := range words {
				if strings.Contains(line, word) {
					return line, true
				}
			}
		}
		select {
		case <-shown:
		case <-s.exited:
			return "", false
		case <-deadline:
			return "", false
		}
	}
}

// kill ends the process at once, as a power cut does to a program.
func (s *server) kill() {
	_ = s.command.Process.Signal(syscall.SIGKILL)
	<-s.exited
}

// stop asks the process to end and waits for it.
func (s *server) stop() error {
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.awaitExit(stopLimit)
}

func (s *server) awaitExit(limit time.Duration) error {
	select {
	case <-s.exited:
		return nil
	case <-time.After(limit):
		s.kill()
		return fmt.Errorf("the server did not end within %v:\n%s", limit, s.tail())
	}
}

func (s *server) tail() string {
	lines := s.log()
	if len(lines) > 15 {
		lines = lines[len(lines)-15:]
	}
	var text bytes.Buffer
	for _, line := range lines {
		fmt.Fprintf(&text, "      | %.400s\n", line)
	}
	return text.String()
}

// dial opens one connection of its own.
func dial(at address) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:   []string{at.client},
		DialTimeout: 5 * time.Second,
		Logger:      zap.NewNop(),
	})
}

// startReady starts the binary, waits until it serves, and opens a connection.
func startReady(binary, dataDir string, at address) (*server, *clientv3.Client, error) {
	s, err := start(binary, dataDir, at)
	if err != nil {
		return nil, nil, err
	}
	if err := s.awaitReady(); err != nil {
		s.kill()
		return nil, nil, err
	}
	client, err := dial(at)
	if err != nil {
		s.kill()
		return nil, nil, err
	}
	return s, client, nil
}

// limited is a request's context: no read of a test waits longer.
func limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 20*time.Second)
}
