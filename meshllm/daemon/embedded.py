"""A node on the loop of another program: started and ended by it, deaf to signals, and writing no log of its own.

Owns the one task in which such a node lives. Decides how it ends where nobody has closed it: by a farewell, when its
loop or its program ends. Doesn't know who asks for it; `node.run` is its counterpart for a process that is nothing but
a node.
"""

import asyncio
import contextlib
import threading
from typing import Any

from meshllm.config import Config
from meshllm.core.limits import LOAD_WAIT_S
from meshllm.core.view import MeshView
from meshllm.daemon.errors import StartError
from meshllm.daemon.logs import Ring
from meshllm.daemon.mesh_start import begin
from meshllm.daemon.node import Node, chosen_engine
from meshllm.daemon.program_exit import UNCLOSED
from meshllm.daemon.state_dir import StateDir

CLOSED = "its program closes it"
FORGOTTEN = "its program ends"
LOOK_S = LOAD_WAIT_S
"""How long the first look at the model folders may take: as long as a request waits for a model."""


class EmbeddedNode:
    """A node that lives until it is closed, or leaves by itself."""

    def __init__(self, config: Config) -> None:
        """Keep the configuration; nothing runs yet."""
        self._config = config
        self._node: Node | None = None
        self._life: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Return `host:port` of the front door; empty before the start."""
        return self._node.address if self._node is not None else ""

    async def start(self) -> None:
        """Run the node on this loop; return when its door is open and its models are known. Raises StartError."""
        loop = asyncio.get_running_loop()
        is_open: asyncio.Future[Node] = loop.create_future()
        life = loop.create_task(self._live(is_open), name="mesh-llm")
        try:
            both: set[asyncio.Future[Any]] = {life, is_open}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                is_open.cancel()
                await life  # says why
            node = await is_open
            await self._known(node)
        except BaseException:
            life.cancel()
            await asyncio.wait({life})
            raise
        self._life, self._node = life, node
        UNCLOSED.add(self, lambda within_s: _ended(loop, life, within_s))
        life.add_done_callback(lambda _: UNCLOSED.remove(self))

    async def _known(self, node: Node) -> None:
        """Wait until the core knows what lies in the model folders: orders about models mean something then."""
        if self._config.client:
            return
        try:
            async with asyncio.timeout(LOOK_S):
                await node.management.look()
        except TimeoutError:
            raise StartError(f"the model folders cannot be looked at within {LOOK_S:g} s") from None

    async def close(self) -> None:
        """Let requests finish, end engines, leave the mesh. Cancelling does not stop it."""
        if self._life is None or self._node is None:
            return
        if not self._life.done():
            self._node.leave(CLOSED)
        await asyncio.shield(self._life)

    async def _live(self, is_open: "asyncio.Future[Node]") -> None:
        state = StateDir(self._config.state_dir, self._config.runtime_dir)
        try:
            node = Node(self._config, state, Ring(), begin(self._config, state), await chosen_engine(self._config))
            await _opened(node)
            async with asyncio.TaskGroup() as group:
                tasks = node.start(group, _unheard)
                is_open.set_result(node)
                try:
                    await node.left
                except asyncio.CancelledError:
                    # The loop ends, and with it the core's own task, maybe before this one.
                    node.leave(FORGOTTEN, is_last_word=True)
                    tasks.cancel_all()
                    raise
                finally:
                    await node.close()
                    tasks.cancel_all()
        finally:
            state.release(forget=self._config.client)


async def _opened(node: Node) -> None:
    """Open a node's ports; whoever gives that up leaves none open."""
    try:
        await node.open()
    except asyncio.CancelledError:
        await node.close()
        raise


def _ended(loop: asyncio.AbstractEventLoop, life: asyncio.Task[None], within_s: float) -> bool:
    """End a node whose program ends, from the thread that ends it; tell whether that was possible in time."""
    if loop.is_closed():
        return True  # whoever closed it has ended its tasks, or thrown them away
    with contextlib.suppress(RuntimeError):  # something in the program stops or closes the loop meanwhile
        if loop.is_running():  # in a thread that goes on till the end
            is_over = threading.Event()
            loop.call_soon_threadsafe(life.add_done_callback, lambda _: is_over.set())
            loop.call_soon_threadsafe(life.cancel)
            return is_over.wait(within_s)
        life.cancel()
        loop.run_until_complete(asyncio.wait({life}, timeout=within_s))
    return life.done()


def _unheard(_: MeshView) -> None:
    """Hear of a new view: a program asks for what it wants to know."""
