"""What runs in processes of its own: gRPC survives a spawned process, not a forked one."""

import os
import sys
import time

import etcd3


def contend(port, rounds, guard):
    """Takes the lock `rounds` times and counts up without any other protection meanwhile.

    `guard` is a file that only one holder at a time may create: a second one ends with an error.
    """
    client = etcd3.client(host="127.0.0.1", port=port)
    for _ in range(rounds):
        lock = client.lock("contended", ttl=30)
        # A released lock may be missed by this client's watch: so short attempts, many of them.
        while not lock.acquire(timeout=0.5):
            pass
        os.close(os.open(guard, os.O_CREAT | os.O_EXCL))
        value, _ = client.get("/count")
        client.put("/count", str(int(value or 0) + 1))
        os.unlink(guard)
        assert lock.release()


def serve(port, name):
    """An instance of a service: registers itself and keeps its lease alive until it is killed."""
    client = etcd3.client(host="127.0.0.1", port=port)
    lease = client.lease(2)
    client.put(f"/services/{name}", f"pid {os.getpid()}", lease=lease)
    while True:
        lease.refresh()
        time.sleep(0.4)


if __name__ == "__main__":
    {"contend": lambda port, rounds, guard: contend(int(port), int(rounds), guard),
     "serve": lambda port, name: serve(int(port), name)}[sys.argv[1]](*sys.argv[2:])
