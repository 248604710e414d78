"""Lines are kept for near peers: dialled when one is missed, never waited for, bounded, and gone with their peer."""

import asyncio
import socket
import time

import pytest

from meshllm.core import line_limits as limits
from meshllm.core.announcement import Address
from meshllm.core.rights import Rights
from meshllm.transport.lines import Lines, LinesUser
from tests.transport.builders import Mesh
from tests.transport.lines import Tasks, ways
from tests.transport.net import ended, until

ON_BOTH_LOOPS = True


async def test_the_first_tunnel_finds_no_line_and_the_next_one_does() -> None:
    """Nobody waits for a handshake."""
    async with ways() as both:
        first = both.near.take(both.far_node.id)
        stream, _ = await both.stream()

        assert first is None
        stream.abort()


async def test_as_many_lines_are_dialled_as_are_missed_but_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes beyond them goes on the connection."""
    monkeypatch.setattr(limits, "LINES_PER_PEER", 2)
    async with ways() as both:
        streams = [(await both.stream())[0] for _ in range(2)]
        beyond = [both.near.take(both.far_node.id) for _ in range(5)]

        assert beyond == [None] * 5
        assert both.dials == 2
        for stream in streams:
            stream.abort()


async def test_a_peer_has_only_so_many_lines_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its own limits are."""
    monkeypatch.setattr(limits, "LINES_TAKEN_PER_PEER", 1)
    async with ways() as both:
        stream, _, far, far_taker = await both.opened()
        both.near.take(both.far_node.id)
        await until(lambda: both.dials > 1, "the second dial")

        assert both.far.counts() == {both.near_node.id: 1}
        stream.abort()
        await ended(far_taker)
        assert far.is_closing()


async def test_a_peer_that_takes_no_lines_is_not_asked_again_soon() -> None:
    """Without the right to ask for answers there are none."""
    async with ways(rights=Rights.HOST) as both:
        both.near.take(both.far_node.id)
        await until(lambda: both.far_node.id in both.near._failed_s, "the refusal")

        assert both.near.take(both.far_node.id) is None
        assert both.dials == 1


async def test_a_peer_without_a_port_is_not_dialled() -> None:
    """Clients and older nodes have none."""
    tasks = Tasks()
    lines = Lines(LinesUser(addresses=lambda _: (), dial=None, start_task=tasks.start))  # type: ignore[arg-type]

    assert lines.take(Mesh().member().id) is None
    assert not tasks.all
    await lines.close()


async def test_lines_end_with_their_peer() -> None:
    """Whoever is lost takes its exchanges with it: they go on elsewhere."""
    async with ways() as both:
        stream, taker, _, far_taker = await both.opened()

        both.near.cut(both.far_node.id, "dead", "it does not answer")
        await ended(taker, far_taker)

        assert taker.lost[0].code == "dead"
        assert not stream._line.is_open


async def test_closing_does_not_wait_for_a_peer_that_says_nothing() -> None:
    """A dial under way is cut short."""
    tasks, mesh = Tasks(), Mesh()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = Address("127.0.0.1", silent.getsockname()[1])
        from meshllm.transport.bulk_dial import dial_bulk  # noqa: PLC0415
        from tests.transport.builders import terms  # noqa: PLC0415

        node = mesh.member()
        lines = Lines(
            LinesUser(
                addresses=lambda _: [where], start_task=tasks.start,
                dial=lambda peer, addresses, opened: dial_bulk(
                    peer, addresses, "line", node.credentials(), terms(), opened
                ),
            )
        )  # fmt: skip
        peer = mesh.member().id
        lines.take(peer)
        await until(lambda: lines._dialling[peer] is not None, "the dial")
        began_s = time.monotonic()

        await asyncio.wait_for(lines.close(), 30)
        await tasks.end()

        assert time.monotonic() - began_s < 30
        assert not lines.counts()
