"""The race of a node's addresses."""

import asyncio

import pytest

from meshllm.core import limits
from meshllm.core.announcement import Address
from meshllm.transport.dial_error import DialCode, DialError
from meshllm.transport.dialling import dial_any
from meshllm.transport.identity import Identity
from tests.transport.net import WITHIN_S, Relay, closed_port, endpoint, listening, until

ON_BOTH_LOOPS = True


async def test_quickest_address_wins_and_the_others_are_dropped() -> None:
    """A dead address costs no time, and a second way to the same node no second connection."""
    slow = Relay()
    async with endpoint() as far, endpoint() as near:
        sides = listening(far)
        slow_address = await slow.open(far.address)
        slow.passes = lambda data, is_forth: is_forth

        connection = await dial_any(near, far.node, [closed_port(), slow_address, far.address], WITHIN_S)
        slow.close()
        await until(lambda: near.connections == (connection,), "the end of the others")

        assert connection.remote == far.address
        assert not connection.is_closed
        assert len(sides) >= 1


async def test_two_ways_to_one_node_make_one_connection() -> None:
    """Both may answer in the same turn of the loop."""
    async with endpoint("::") as far, endpoint("::") as near:
        listening(far)
        port = far.address.port

        connection = await dial_any(near, far.node, [Address("127.0.0.1", port), Address("::1", port)], WITHIN_S)
        await until(lambda: near.connections == (connection,), "one connection")

        assert not connection.is_closed


async def test_every_address_that_fails_is_told() -> None:
    """People see what was tried."""
    async with endpoint() as other, endpoint() as near:
        listening(other)
        dead = closed_port()

        with pytest.raises(DialError) as raised:
            await dial_any(near, Identity.generate().node, [dead, other.address], WITHIN_S)

        assert raised.value.code is DialCode.WRONG_IDENTITY
        assert str(dead) in raised.value.message
        assert str(other.address) in raised.value.message


async def test_few_addresses_are_tried_once_each() -> None:
    """A peer that announces hundreds of addresses makes nobody scan a network."""
    async with endpoint() as near:
        tried: list[Address] = []

        async def dial(address, expected, timeout_s):
            tried.append(address)
            raise DialError(DialCode.TIMEOUT, str(address))

        near.dial = dial  # type: ignore[method-assign]
        addresses = [Address("192.0.2.1", number) for number in (1, 1, *range(1, 100))]
        with pytest.raises(DialError):
            await dial_any(near, Identity.generate().node, addresses, WITHIN_S)

        assert tried == [Address("192.0.2.1", number) for number in range(1, limits.DIAL_ADDRESSES + 1)]


async def test_dial_that_is_given_up_leaves_nothing() -> None:
    """Time is up for the whole of it, also when one address has just answered."""
    async with endpoint() as far, endpoint() as near:
        listening(far)
        deaf = Relay()
        deaf.passes = lambda data, is_forth: False
        address = await deaf.open(far.address)

        race = asyncio.get_running_loop().create_task(dial_any(near, far.node, [address, far.address], WITHIN_S))
        await until(lambda: len(near.connections) == 2, "both dials")
        for connection in near.connections:
            connection.ready.add_done_callback(lambda _: race.cancel())
        with pytest.raises(asyncio.CancelledError):
            await race
        deaf.close()

        assert near.connections == ()
