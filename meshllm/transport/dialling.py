"""Dialling a node at all of its addresses side by side: the first that proves its key is taken.

Owns the race. Decides which of several failures to tell. Doesn't know why the node is dialled.
"""

import asyncio
from collections.abc import Sequence

from meshllm.core import limits
from meshllm.core.announcement import Address
from meshllm.core.ids import NodeId
from meshllm.transport.codes import CloseCode
from meshllm.transport.connection import Connection
from meshllm.transport.dial_error import DialError, most_telling
from meshllm.transport.endpoint import Endpoint


async def dial_any(endpoint: Endpoint, peer: NodeId, addresses: Sequence[Address], timeout_s: float) -> Connection:
    """Return a connection to a node by the first address that leads there. Raises DialError when none does."""
    race = _Race(endpoint, peer, timeout_s)
    is_over = False
    try:
        async with asyncio.TaskGroup() as group:
            for address in tuple(dict.fromkeys(addresses))[: limits.DIAL_ADDRESSES]:
                race.tries.append(group.create_task(race.run(address), name=f"dial {address}"))
        is_over = True
    finally:
        if not is_over:
            race.give_up()  # whoever dials no longer wants it
    if race.winner is None:
        raise most_telling(race.errors)
    return race.winner


class _Race:
    """Several dials of which one is kept."""

    def __init__(self, endpoint: Endpoint, peer: NodeId, timeout_s: float) -> None:
        self.winner: Connection | None = None
        self.errors: list[DialError] = []
        self.tries: list[asyncio.Task[None]] = []
        self._endpoint = endpoint
        self._peer = peer
        self._timeout_s = timeout_s

    async def run(self, address: Address) -> None:
        """Dial one address; when it is the first to lead there, stop the others."""
        try:
            connection = await self._endpoint.dial(address, self._peer, self._timeout_s)
        except DialError as error:
            self.errors.append(error)
            return
        if self.winner is not None:  # both in one turn of the loop
            connection.close(CloseCode.REPLACED)
            return
        self.winner = connection
        for other in self.tries:
            if other is not asyncio.current_task():
                other.cancel()

    def give_up(self) -> None:
        """Close what was won."""
        if self.winner is not None:
            self.winner.close(CloseCode.DONE)
