"""The composition root: makes every shell, hands each what it needs, runs them, ends them in order.

Owns the one `TaskGroup` and the order of start and end. Decides nothing. Whatever a folder needs of a
sibling is a `Protocol` there and the real thing here.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from functools import partial

import uvloop

from meshllm.api.app import ManagementServer
from meshllm.config import Config
from meshllm.core.mesh import MeshCore
from meshllm.core.view import MeshView
from meshllm.daemon import logs
from meshllm.daemon.asking import Asking
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.journal import Journal
from meshllm.daemon.loop import Loop
from meshllm.daemon.state_dir import StateDir
from meshllm.engine.supervisor import EngineSupervisor
from meshllm.inventory.model_files import DigestStore, ModelWatcher
from meshllm.proxy.front_door import FrontDoor

log = logging.getLogger(__name__)

MEASURE_INTERVAL_S = 10.0
MIB = 1_000_000


def run(config: Config, report: Callable[[MeshView], None], started: Callable[[str], None]) -> int:
    """Run a node until it is asked to leave; return the exit code.

    `report` is called with every new view, `started` once with the API's address. Raises StartError.
    """
    logs.set_up(config.log_level, config.log_format, config.log_file)
    state = StateDir(config.state_dir, config.runtime_dir)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(config, state, report, started))
    finally:
        state.release()


async def _run(
    config: Config, state: StateDir, report: Callable[[MeshView], None], started: Callable[[str], None]
) -> int:
    """Start everything, wait until the core says leave, end everything."""
    loop = asyncio.get_running_loop()
    left: asyncio.Future[int] = loop.create_future()
    node = Node(config, state)
    address = await node.open()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, partial(node.leave, number.name))
    try:
        started(address)
        async with asyncio.TaskGroup() as group:
            tasks = node.start(group, left, report)
            exit_code = await left
            await node.close()
            tasks.cancel_all()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return exit_code


class Node:
    """The shells of one daemon."""

    def __init__(self, config: Config, state: StateDir) -> None:
        """Make every shell; nothing runs yet."""
        self._config = config
        self._state = state
        now_s = asyncio.get_running_loop().time()
        self._core = MeshCore(_core_config(config, state), now_s)
        self._views = CurrentView(self._core.view)
        self._journal = Journal()
        self._loop = Loop(self._core, self._views, self._journal)
        self._asking = Asking(self._loop.post)
        self._engines: EngineSupervisor | None = None
        self._watcher = ModelWatcher(model_places(config), DigestStore(state.path / "digests.json"), self._on_inventory)
        socket = state.runtime / "api.sock"
        self._door = FrontDoor(_door_config(config, state), self._views, self._loop.post, socket)
        self._management = ManagementServer(self, socket)
