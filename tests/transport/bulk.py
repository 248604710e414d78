"""A node's bulk port on loopback, for tests: what is served there is the test's to say."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from meshllm.core.announcement import Address
from meshllm.core.ids import NodeId
from meshllm.core.members.bulk_admission import bulk_rights, refusal_of
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.transport.bulk_channel import BulkChannel
from meshllm.transport.bulk_dial import dial_bulk
from meshllm.transport.bulk_listener import BulkListener, BulkUser
from tests.transport.builders import Node, terms

LOOPBACK = "127.0.0.1"


class Port:
    """A listening node. `refused` are the words of those who did not get in."""

    def __init__(self, node: Node, listener: BulkListener) -> None:
        self.node = node
        self.listener = listener

    @property
    def address(self) -> Address:
        """Return where it listens."""
        return Address(LOOPBACK, self.listener.port)

    async def dial(self, by: Node, use: str = "file", *, expected: NodeId | None = None) -> BulkChannel:
        """Return a member's connection to it. Raises BulkError."""
        return await asyncio.to_thread(
            dial_bulk, expected or self.node.id, [self.address], use, by.credentials(), terms()
        )


@asynccontextmanager
async def a_port(
    node: Node, serve: Mapping[str, Callable[[BulkChannel], None]], *,
    revoked: Collection[NodeId] = (), mine: Rights = OWN_MACHINE,
) -> AsyncIterator[Port]:  # fmt: skip
    """Let a node listen."""
    tasks: set[asyncio.Task[Any]] = set()

    def start_task(name: str, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        tasks.add(task)
        return task

    user = BulkUser(
        credentials=node.credentials, terms=terms, judge=lambda claim: bulk_rights(claim, revoked),
        refusal=lambda use, theirs: refusal_of(use, theirs, mine), serve=serve, start_task=start_task,
    )  # fmt: skip
    listener = BulkListener.open(LOOPBACK, 0, node.identity, user)
    start_task("accept", listener.run())
    try:
        yield Port(node, listener)
    finally:
        await listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
