"""First process of the namespaces that one test of etcd's suite runs in; see run.py.

It brings the loopback device up, makes name look-ups fail at once, runs the command given to it
and ends with that command's status. As it is process 1 here, the kernel ends every process the
test left behind when it returns.
"""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


def loopback_up():
    """What `ip link set lo up` does; iproute2 need not be installed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def closed_resolver(scratch):
    """grpc-go asks for TXT records of `localhost`; with a nameserver that is a closed port of the
    loopback device it is refused at once, with an unreachable one the first request waits 10 s."""
    target = os.path.realpath("/etc/resolv.conf")
    if not os.path.exists(target):
        return  # a resolver without the file asks 127.0.0.1, which is the same
    ours = os.path.join(scratch, "resolv.conf")
    with open(ours, "w", encoding="ascii") as conf:
        conf.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", ours, target], check=True)


def main():
    scratch, command = sys.argv[1], sys.argv[2:]
    loopback_up()
    closed_resolver(scratch)
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:  # process 1 reaps what its descendants orphan
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    code = main()
    sys.exit(code if code >= 0 else 128 - code)
