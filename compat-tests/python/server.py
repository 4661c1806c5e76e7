"""Starts and kills the servers that the tests run on, as compat-tests/harness does for Go."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
TARGET = os.path.join(os.path.dirname(os.path.dirname(HERE)), "target")
KINDS = ("etcd", "etched")
READY = b"ready to serve client requests"
DEADLINE_SECONDS = 20
# Below the ephemeral range, and not the ports of the Go tests.
PORTS = range(22000, 32000, 2)
START_ATTEMPTS = 3


def binary(kind):
    default = {"etcd": ("compat", "etcd", "etcd"), "etched": ("release", "etched")}[kind]
    return os.environ.get(kind.upper() + "_BIN") or os.path.join(TARGET, *default)


def eventually(what, holds, seconds=DEADLINE_SECONDS):
    """Asks until `holds()` is true; for states that no event announces. Returns its answer."""
    end = time.monotonic() + seconds
    while True:
        answer = holds()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0 and _binds(port)


def _binds(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Server:
    """One server process on free loopback ports, its data in a folder of its own.

    Flags may name its client address: `<client>`."""

    _tried = 0

    def __init__(self, kind, *flags):
        self.kind, self.flags = kind, flags
        self.folder = tempfile.mkdtemp(prefix=f"compat-{kind}-")
        self.host, self.port = "127.0.0.1", None
        self.process = None
        for left in reversed(range(START_ATTEMPTS)):
            self.port = self._pick()
            try:
                self.start()
                break
            except AssertionError as failure:
                if left == 0 or "address already in use" not in str(failure):
                    raise

    @classmethod
    def _pick(cls):
        while True:
            cls._tried += 1
            port = PORTS[(os.getpid() * 97 + cls._tried) % len(PORTS)]
            if _is_free(port) and _is_free(port + 1):
                return port

    def start(self):
        """Starts it, or starts it again on its data and port, and waits until it serves."""
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.port + 1}"
        flags = [flag.replace("<client>", f"127.0.0.1:{self.port}") for flag in self.flags]
        # setpriv lets the server die with this process; a preexec_fn would fork under gRPC's threads.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--",
             binary(self.kind), "--name", "default", "--data-dir", os.path.join(self.folder, "data"),
             "--listen-client-urls", client, "--advertise-client-urls", client,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", f"default={peer}", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        ready, lines = threading.Event(), []

        def read(pipe):
            for line in pipe:
                lines.append(line)
                if READY in line:
                    ready.set()
            ready.set()

        threading.Thread(target=read, args=(self.process.stdout,), daemon=True).start()
        served = ready.wait(DEADLINE_SECONDS) and self.process.poll() is None
        assert served, b"".join(lines[-12:]).decode(errors="replace")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
