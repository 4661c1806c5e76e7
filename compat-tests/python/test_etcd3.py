"""Scripts as people write them with python etcd3, on both servers."""

import os
import queue
import subprocess
import sys
import threading

import etcd3
import grpc
import pytest
from etcd3 import exceptions
from server import eventually

HERE = os.path.dirname(os.path.realpath(__file__))


@pytest.fixture
def client(server):
    with etcd3.client(host=server.host, port=server.port, timeout=10) as connected:
        yield connected


def worker(*arguments):
    command = [sys.executable, os.path.join(HERE, "workers.py"), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def pairs(found):
    return [(meta.key, value) for value, meta in found]


def test_put_get_and_delete(client):
    assert client.get("/a") == (None, None)
    client.put("/a", "first")
    assert client.put("/a", "second", prev_kv=True).prev_kv.value == b"first"
    value, meta = client.get("/a")
    assert value == b"second"
    assert (meta.create_revision, meta.mod_revision, meta.version) == (2, 3, 2)
    assert client.delete("/a") is True
    assert client.delete("/a") is False
    assert client.get("/a") == (None, None)
    client.put("/a", b"\x00\xff binary")
    value, meta = client.get("/a", serializable=True)
    assert (value, meta.version, meta.create_revision) == (b"\x00\xff binary", 1, 5)


def test_prefixes_and_ranges_in_every_order(client):
    for name in ("b", "a", "c"):
        client.put(f"/p/{name}", name)
    client.put("/q", "not of it")
    assert pairs(client.get_prefix("/p/")) == [(b"/p/a", b"a"), (b"/p/b", b"b"), (b"/p/c", b"c")]
    down = client.get_prefix("/p/", sort_order="descend", sort_target="mod")
    assert [value for value, _ in down] == [b"c", b"a", b"b"]
    assert [value for value, _ in client.get_range("/p/a", "/p/c")] == [b"a", b"b"]
    assert len(list(client.get_all())) == 4
    assert [value for value, _ in client.get_prefix("/p/", keys_only=True)] == [b""] * 3
    assert client.delete_prefix("/p/").deleted == 3
    assert pairs(client.get_all()) == [(b"/q", b"not of it")]


def test_replace_and_put_if_absent(client):
    assert client.put_if_not_exists("/once", "1") is True
    assert client.put_if_not_exists("/once", "2") is False
    assert client.replace("/once", "1", "3") is True
    assert client.replace("/once", "1", "4") is False
    assert client.get("/once")[0] == b"3"


def test_transactions_take_one_branch(client):
    client.put("/t", "x")
    t = client.transactions
    compare = [t.value("/t") == "x", t.version("/t") > 0, t.create("/new") == 0, t.mod("/t") < 100]
    done, answers = client.transaction(
        compare=compare, success=[t.put("/t", "y"), t.get("/t"), t.delete("/gone")], failure=[t.get("/t")])
    assert done is True
    assert answers[1][0][0] == b"y"
    done, answers = client.transaction(compare=compare, success=[t.put("/t", "z")], failure=[t.get("/t")])
    assert done is False
    assert answers[0][0][0] == b"y"
    nested = t.txn(compare=[], success=[t.put("/n", "1")], failure=[])
    done, _ = client.transaction(compare=[], success=[nested], failure=[])
    assert done is True
    assert client.get("/n")[0] == b"1"


def test_watch_callback_hears_puts_and_deletes(client):
    heard = queue.Queue()
    watch = client.add_watch_callback("/w", heard.put)
    client.put("/w", "1")
    client.put("/other", "unheard")
    client.delete("/w")
    first, second = (heard.get(timeout=10).events[0] for _ in range(2))
    assert isinstance(first, etcd3.events.PutEvent)
    assert (first.key, first.value) == (b"/w", b"1")
    assert isinstance(second, etcd3.events.DeleteEvent)
    client.cancel_watch(watch)
    last = client.add_watch_callback("/w", heard.put, start_revision=2, prev_kv=True)
    events = []
    while len(events) < 2:  # history comes in one response or in several
        events += heard.get(timeout=10).events
    assert [type(event).__name__ for event in events] == ["PutEvent", "DeleteEvent"]
    assert events[1].prev_value == b"1"
    client.cancel_watch(last)


def test_watch_prefix_iterates_over_events(client):
    events, cancel = client.watch_prefix("/jobs/")
    writer = threading.Thread(target=lambda: [client.put(f"/jobs/{i}", str(i)) for i in range(50)])
    writer.start()
    seen = [next(events).value for _ in range(50)]
    writer.join()
    assert seen == [str(i).encode() for i in range(50)]
    cancel()
    client.put("/jobs/after", "1")
    assert client.get("/jobs/after")[0] == b"1"


def test_a_lease_lives_while_it_is_refreshed(client):
    kept, dropped = client.lease(2), client.lease(2)
    client.put("/kept", "1", lease=kept)
    client.put("/dropped", "1", lease=dropped)
    assert kept.granted_ttl == 2
    assert kept.keys == [b"/kept"]

    def gone(key):
        assert kept.refresh()[0].TTL == 2
        return client.get(key)[0] is None

    eventually("the lease that nobody refreshes expires", lambda: gone("/dropped"))
    assert client.get("/kept")[0] == b"1"
    kept.revoke()
    assert client.get("/kept")[0] is None
    assert dropped.remaining_ttl == -1


def test_lock_excludes_other_processes(server, client, tmp_path):
    count, rounds = 4, 5
    contenders = [worker("contend", server.port, rounds, tmp_path / "guard") for _ in range(count)]
    for contender in contenders:
        _, errors = contender.communicate(timeout=60)
        assert contender.returncode == 0, errors.decode()
    assert client.get("/count")[0] == str(count * rounds).encode()


def test_lock_is_given_up_on_time_and_freed_by_its_lease(client):
    held, wanted = client.lock("freed", ttl=2), client.lock("freed", ttl=10)
    assert held.acquire(timeout=1) is True
    assert held.is_acquired() is True
    assert wanted.acquire(timeout=0.3) is False
    eventually("the lease of the holder expires", lambda: wanted.acquire(timeout=1))
    assert held.is_acquired() is False
    assert wanted.release() is True


def test_services_vanish_when_their_process_is_killed(server, client):
    names = ["one", "two", "three"]
    events, cancel = client.watch_prefix("/services/")
    instances = {name: worker("serve", server.port, name) for name in names}
    try:
        arrived = {next(events).key.decode().rsplit("/", 1)[1] for _ in names}
        assert arrived == set(names)
        instances["two"].kill()
        event = next(events)
        assert isinstance(event, etcd3.events.DeleteEvent)
        assert event.key == b"/services/two"
        left = sorted(meta.key for _, meta in client.get_prefix("/services/"))
        assert left == [b"/services/one", b"/services/three"]
        cancel()
    finally:
        for instance in instances.values():
            instance.kill()
            instance.communicate()


def test_no_update_of_sixteen_counting_threads_is_lost(server, client):
    threads, rounds = 16, 10
    client.put("/counter", "0")
    failures = []

    def count_up():
        try:
            with etcd3.client(host=server.host, port=server.port, timeout=10) as own:
                for _ in range(rounds):
                    while True:
                        value, _ = own.get("/counter")
                        if own.replace("/counter", value, str(int(value) + 1)):
                            break
        except Exception as failure:
            failures.append(failure)

    running = [threading.Thread(target=count_up) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert failures == []
    value, meta = client.get("/counter")
    assert int(value) == threads * rounds
    assert meta.version == threads * rounds + 1


def test_clients_go_on_after_the_server_was_killed_and_restarted(server, client):
    for i in range(20):
        client.put(f"/before/{i}", str(i))
    lease = client.lease(60)
    client.put("/leased", "1", lease=lease)
    heard = queue.Queue()
    client.add_watch_callback("/w", heard.put)
    server.kill()
    assert isinstance(heard.get(timeout=10), (grpc.RpcError, exceptions.Etcd3Exception))
    with pytest.raises(exceptions.Etcd3Exception):
        client.put("/meanwhile", "1")
    server.start()

    def answers():
        try:
            return client.put("/after", "1")
        except exceptions.ConnectionFailedError:
            return None

    revision = eventually("the client reaches the server again", answers).header.revision
    assert revision == 23  # one for each write that was acknowledged
    assert len(list(client.get_prefix("/before/"))) == 20
    assert lease.refresh()[0].TTL == 60
    events, cancel = client.watch("/after", start_revision=2)
    assert next(events).value == b"1"
    cancel()


def test_maintenance_calls(client):
    status = client.status()
    assert status.version == "3.7.1"
    assert status.leader.name == "default"
    assert [member.name for member in client.members] == ["default"]
    for i in range(5):
        client.put("/c", str(i))
    client.compact(4)
    with pytest.raises(grpc.RpcError) as refused:
        client.compact(3)
    assert refused.value.details() == "etcdserver: mvcc: required revision has been compacted"
    with pytest.raises(exceptions.RevisionCompactedError):
        events, _ = client.watch("/c", start_revision=2)
        next(events)
    client.defragment()
    assert isinstance(client.hash(), int)
    assert list(client.list_alarms()) == []
