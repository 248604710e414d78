"""What a node lends: to one host, in one epoch, on one connection at a time, and to nobody else."""

import asyncio
import struct
import time

import psutil
import pytest

from meshllm.core.events import LendingEnded, LendingReady
from meshllm.core.ids import ModelId
from meshllm.core.rights import CLIENT_ONLY, GUEST
from meshllm.daemon import rpc_lending
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError
from meshllm.wire.bulk_frames import Join, Ready, Refused
from tests.daemon.lent import MODEL, WITHIN_S, Lender, a_lender
from tests.transport.builders import Mesh

_LENGTH = struct.Struct(">I")


def soon() -> float:
    """Return a deadline that only detects a hang."""
    return time.monotonic() + WITHIN_S


def echoed(channel: BulkChannel, data: bytes) -> bytes:
    """Send bytes through to the server, as a host's bridge does, and return what it answers."""
    channel.send_block(memoryview(_LENGTH.pack(len(data)) + data), soon())
    answer = b""
    while len(answer) < len(data):
        answer += heard(channel)
    return answer


def heard(channel: BulkChannel) -> bytes:
    """Return what the server says next; empty where its connection has ended."""
    head = bytearray(_LENGTH.size)
    channel.receive_into(memoryview(head), soon())
    content = bytearray(*_LENGTH.unpack(head))
    channel.receive_into(memoryview(content), soon())
    return bytes(content)


def ended(channel: BulkChannel) -> bytes:
    """End the server's connection, and return what it says then."""
    channel.send_block(memoryview(_LENGTH.pack(0)), soon())
    return heard(channel)


def is_ended(channel: BulkChannel) -> bool:
    """Tell whether the other side ends a connection."""
    try:
        channel.receive_into(memoryview(bytearray(1)), soon())
    except BulkError as error:
        return error.code is BulkCode.LOST
    return False


def servers() -> list[psutil.Process]:
    """Return the servers that this process runs."""
    return [one for one in psutil.Process().children(recursive=True) if "fake_rpc_server" in " ".join(one.cmdline())]


def clients(lender: Lender) -> int:
    """Return how many connections the lent server has."""
    (server,) = servers()
    return sum(one.status == psutil.CONN_ESTABLISHED for one in server.net_connections())


async def test_the_host_reaches_the_server() -> None:
    """Raw bytes go both ways after it has said which split it is the host of."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        channel, told = await lender.came()
        answer = await asyncio.to_thread(echoed, channel, b"tensor" * 10_000)
        channel.close()

    assert told == Ready()
    assert answer == b"tensor" * 10_000


@pytest.mark.parametrize(
    ("join", "code"),
    [
        (Join(model=MODEL, epoch=6), "stale_epoch"),
        (Join(model=MODEL, epoch=8), "stale_epoch"),
        (Join(model="other", epoch=7), "not_lent"),
    ],
    ids=["stale", "forged", "other model"],
)
async def test_any_other_epoch_or_model_reaches_no_port(join: Join, code: str) -> None:
    """A host that time overtook, or one that makes an epoch up."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        channel, told = await lender.came(join=join)
        reached = clients(lender)
        channel.close()

    assert isinstance(told, Refused)
    assert (told.code, reached) == (code, 0)


async def test_another_member_reaches_no_port() -> None:
    """Though it may lend and borrow itself, and knows the epoch."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        channel, told = await lender.came(by=mesh.member())
        reached = clients(lender)
        channel.close()

    assert isinstance(told, Refused)
    assert (told.code, reached) == ("wrong_host", 0)


async def test_a_peer_without_the_right_reaches_no_port() -> None:
    """Even where the order names it: its certificate counts."""
    mesh = Mesh()
    for rights in (CLIENT_ONLY, GUEST):
        host = mesh.member(rights)
        async with a_lender(mesh, host) as lender:
            await lender.lent()
            with pytest.raises(BulkError) as refused:
                await asyncio.to_thread(lender.dial, host)

            assert refused.value.reason == "no_right"
            assert clients(lender) == 0


async def test_one_host_connection_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has one client; a second one is told, and the first goes on."""
    monkeypatch.setattr(rpc_lending, "RPC_TURN_S", 0.05)
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        first, _ = await lender.came()
        second, told = await lender.came()
        answer = await asyncio.to_thread(echoed, first, b"tensor")
        first.close()
        second.close()

    assert isinstance(told, Refused)
    assert (told.code, answer) == ("busy", b"tensor")


async def test_an_engines_connections_follow_one_another_on_one_connection() -> None:
    """It looks at a worker first, and connects anew to load: the server sees each begin and end."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        channel, _ = await lender.came()
        before = clients(lender)
        for data in (b"first", b"second"):
            assert await asyncio.to_thread(echoed, channel, data) == data
            assert clients(lender) == 1
            assert await asyncio.to_thread(ended, channel) == b""
        channel.close()

    assert before == 0


async def test_a_host_that_comes_again_is_let_in() -> None:
    """The next connection waits for the end of the last."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        for _ in range(3):
            channel, told = await lender.came()
            assert told == Ready()
            assert await asyncio.to_thread(echoed, channel, b"x") == b"x"
            channel.close()


async def test_nothing_that_took_the_servers_port_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time the engine connects, the port has to be the server's own."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        channel, _ = await lender.came()
        assert await asyncio.to_thread(echoed, channel, b"x") == b"x"
        assert await asyncio.to_thread(ended, channel) == b""
        monkeypatch.setattr(rpc_lending, "listens", lambda *_: False)
        with pytest.raises(BulkError) as over:
            await asyncio.to_thread(echoed, channel, b"x")
        again, told = await lender.came()
        channel.close()
        again.close()

    assert over.value.code is BulkCode.LOST
    assert isinstance(told, Refused)
    assert told.code == "not_lent"


async def test_the_end_of_lending_ends_the_connection_and_the_process() -> None:
    """It is told when the process is gone, not before."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        channel, _ = await lender.came()
        ended = await lender.ended()
        left = servers()
        over = await asyncio.to_thread(is_ended, channel)
        channel.close()

    assert ended == LendingEnded(model=MODEL, epoch=7)
    assert (left, over) == ([], True)


async def test_a_server_that_dies_is_told_with_its_connection() -> None:
    """The host must not wait for an answer that cannot come."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        channel, _ = await lender.came()
        servers()[0].kill()
        ended = await lender.next(LendingEnded)
        over = await asyncio.to_thread(is_ended, channel)
        channel.close()

    assert ended.message
    assert over


async def test_a_new_epoch_replaces_the_old_one() -> None:
    """Never two at a time; whoever still comes with the old one is refused."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent(7)
        lender.lending.lend(lender.order(8))
        ended = await lender.next(LendingEnded)
        ready = await lender.next(LendingReady)
        channel, told = await lender.came()
        channel.close()

        assert len(servers()) == 1
    assert (ended.epoch, ready.epoch) == (7, 8)
    assert isinstance(told, Refused)
    assert told.code == "stale_epoch"


async def test_an_order_that_time_overtook_is_passed_over() -> None:
    """The newer epoch stays."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent(7)
        lender.lending.lend(lender.order(6))
        channel, told = await lender.came()
        channel.close()

    assert told == Ready()


async def test_the_end_of_what_is_not_lent_is_told_at_once() -> None:
    """Whoever asks gets an answer."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        nothing = await lender.ended()
        await lender.lent(7)
        other = await lender.ended(6)

        assert len(servers()) == 1
    assert (nothing.epoch, other.epoch) == (7, 6)


async def test_an_end_that_comes_before_the_start_counts() -> None:
    """Nothing is left running."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        lender.lending.lend(lender.order())
        ended = await lender.ended()

    assert ended == LendingEnded(model=MODEL, epoch=7)


async def test_a_node_without_an_engine_that_can_lend_says_so() -> None:
    """In words."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member(), is_equipped=False) as lender:
        lender.lending.lend(lender.order())
        ended = await lender.next(LendingEnded)

    assert "no engine" in ended.message


async def test_nobody_gets_in_while_the_cache_is_filled() -> None:
    """The server has one client, and that is the node itself; a node without the file has nothing to fill it from."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        lender.cache.may_end.clear()
        lender.lending.lend(lender.order(path="/models/big.gguf"))
        await asyncio.wait_for(lender.cache.has_begun.wait(), WITHIN_S)
        channel, told = await lender.came()
        channel.close()
        lender.cache.may_end.set()
        ready = await lender.next(LendingReady)

    assert isinstance(told, Refused)
    assert (told.code, ready.model) == ("not_lent", ModelId("big"))


async def test_a_connection_says_which_split_it_is_for() -> None:
    """Anything else ends it, and reaches no port."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        channel = await asyncio.to_thread(lender.dial, lender.host)
        await asyncio.to_thread(channel.say, Ready(), soon())
        over = await asyncio.to_thread(is_ended, channel)
        channel.close()

        assert clients(lender) == 0
    assert over


async def test_no_port_but_loopback_is_opened_for_tensors() -> None:
    """The server's own is the only one beside the bulk port."""
    mesh = Mesh()
    async with a_lender(mesh, mesh.member()) as lender:
        await lender.lent()
        (server,) = servers()
        listening = [one.laddr.ip for one in server.net_connections() if one.status == psutil.CONN_LISTEN]

        assert listening == ["127.0.0.1"]
        assert lender.lending.log_lines(MODEL)
