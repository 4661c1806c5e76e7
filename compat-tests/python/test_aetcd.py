"""Scripts as people write them with aetcd, the client for asyncio, on both servers."""

import asyncio
import functools
import inspect

import aetcd
from server import DEADLINE_SECONDS


def connected(body):
    """Runs an async test with a client of the server it is given."""

    @functools.wraps(body)
    def run(server):
        async def main():
            async with aetcd.Client(host=server.host, port=server.port, timeout=10) as client:
                await asyncio.wait_for(body(server, client), 2 * DEADLINE_SECONDS)

        asyncio.run(main())

    # pytest fills in what the signature names: the server only, not the client
    run.__signature__ = inspect.Signature(
        [inspect.Parameter("server", inspect.Parameter.POSITIONAL_OR_KEYWORD)])
    return run


@connected
async def test_put_get_and_delete(server, client):
    assert await client.get(b"a") is None
    await client.put(b"a", b"1")
    assert (await client.put(b"a", b"2", prev_kv=True)).prev_kv.value == b"1"
    found = await client.get(b"a")
    assert (found.value, found.create_revision, found.mod_revision, found.version) == (b"2", 2, 3, 2)
    assert (await client.delete(b"a")) is not None
    assert await client.get(b"a") is None


@connected
async def test_prefixes(server, client):
    for name in (b"p/b", b"p/a", b"p/c", b"q"):
        await client.put(name, b"of " + name)
    assert [kv.key for kv in await client.get_prefix(b"p/")] == [b"p/a", b"p/b", b"p/c"]
    assert [kv.key for kv in await client.get_range(b"p/b", b"q")] == [b"p/b", b"p/c"]
    assert (await client.delete_prefix(b"p/")).deleted == 3
    assert [kv.key for kv in await client.get_all()] == [b"q"]


@connected
async def test_transactions(server, client):
    t = client.transactions
    await client.put(b"t", b"x")
    compare = [t.value(b"t") == b"x", t.version(b"t") > 0]
    done, _ = await client.transaction(compare=compare, success=[t.put(b"t", b"y")], failure=[])
    assert done is True
    done, answers = await client.transaction(compare=compare, success=[], failure=[t.get(b"t")])
    assert done is False
    assert (await client.get(b"t")).value == b"y"
    assert await client.replace(b"t", b"y", b"z") is True
    assert await client.replace(b"t", b"y", b"z") is False


@connected
async def test_watch_prefix_hears_everything_in_order(server, client):
    watch = await client.watch_prefix(b"jobs/")

    async def write():
        for i in range(50):
            await client.put(b"jobs/%d" % i, b"%d" % i)
        await client.delete(b"jobs/7")

    writer = asyncio.create_task(write())
    seen = []
    async for event in watch:
        seen.append((event.kind, event.kv.key))
        if len(seen) == 51:
            break
    await writer
    assert seen == [("PUT", b"jobs/%d" % i) for i in range(50)] + [("DELETE", b"jobs/7")]
    await watch.cancel()


@connected
async def test_many_watches_share_a_stream(server, client):
    watches = [await client.watch(b"k%d" % i) for i in range(100)]
    for i in range(100):
        await client.put(b"k%d" % i, b"1")
    for i, watch in enumerate(watches):
        async for event in watch:
            assert event.kv.key == b"k%d" % i
            break
        await watch.cancel()


@connected
async def test_leases(server, client):
    lease = await client.lease(60)
    await client.put(b"leased", b"1", lease=lease)
    assert 57 <= await lease.remaining_ttl() <= 60
    assert await lease.granted_ttl() == 60
    assert list(await lease.keys()) == [b"leased"]
    await lease.refresh()
    await lease.revoke()
    assert await client.get(b"leased") is None
    short = await client.lease(2)
    await client.put(b"short", b"1", lease=short)
    event = await client.watch_once(b"short", timeout=DEADLINE_SECONDS)
    assert event.kind == "DELETE"


@connected
async def test_lock_excludes_other_clients(server, client):
    holders, order = 0, []

    async def contend(name):
        nonlocal holders
        async with aetcd.Client(host=server.host, port=server.port, timeout=10) as own:
            for _ in range(5):
                lock = own.lock(b"lock", ttl=30)
                assert await lock.acquire(timeout=DEADLINE_SECONDS)
                holders += 1
                assert holders == 1
                await own.get(b"anything")
                order.append(name)
                holders -= 1
                assert await lock.release()

    await asyncio.gather(*(contend(name) for name in range(4)))
    assert len(order) == 20


@connected
async def test_client_goes_on_after_a_restart(server, client):
    await client.put(b"a", b"1")
    server.kill()
    server.start()
    end = asyncio.get_running_loop().time() + DEADLINE_SECONDS
    while True:
        try:
            found = await client.get(b"a")
            break
        except aetcd.ClientError:
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.05)
    assert found.value == b"1"
    await client.put(b"a", b"2")
    assert (await client.get(b"a")).mod_revision == 3
