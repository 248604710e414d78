"""All engines of this node: `EngineSupervisor` carries out the core's orders and posts what comes of them.

Owns which model has a process, the sockets' folder and the keys. Decides nothing: starts, restarts and
stops are orders of the core. Doesn't know requests; the front door's `Traffic` tells what is in flight.

Invariant: at most one life for each model.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path

from meshllm.core import limits
from meshllm.core.engines import EngineBuild, EngineEndpoint, EnginePlan
from meshllm.core.events import Event
from meshllm.core.ids import ModelId
from meshllm.engine.command import this_host
from meshllm.engine.life import EngineLife, EngineTimes, LifeContext, Traffic, WorkerWays
from meshllm.engine.slot_store import SlotStore

SOCKET_PATH_BYTES = 103
"""What a Unix socket's address holds on every system, without its closing zero (Linux has four more)."""
KEY_BYTES = 32
REAP_S = 2.0
"""How long a killed process may take to be gone; more means that it hangs in the kernel."""

StartTask = Callable[[str, Coroutine[object, object, None]], asyncio.Task[None]]
"""Starts a named task that its owner keeps and whose failure it reports."""


class SocketPathTooLongError(Exception):
    """The runtime folder's path leaves no room for a socket's name."""


class AlreadyRunningError(Exception):
    """An engine was started for a model that has one: a mistake of ours."""


class EngineSupervisor:
    """The engines of this node."""

    def __init__(
        self,
        build: EngineBuild,
        runtime_dir: Path,
        post: Callable[[Event], None],
        traffic: Traffic,
        start_task: StartTask,
        *,
        times: EngineTimes | None = None,
    ) -> None:
        """Prepare for orders. Raises SocketPathTooLongError."""
        self._build = build
        self._runtime_dir = runtime_dir
        self._post = post
        self._traffic = traffic
        self._start_task = start_task
        self._times = times or EngineTimes()
        self._host = this_host()
        self.slots: SlotStore | None = None
        """Where conversations of engines that end are saved; set before the first one starts."""
        self._lives: dict[ModelId, EngineLife] = {}
        self._started = 0
        self._socket_path(self._started)  # so that a path that is too long shows at the start

    def start(self, plan: EnginePlan, ways: WorkerWays | None = None) -> None:
        """Start a model's engine; returns at once. Raises AlreadyRunningError.

        `ways` are for a split, one to each worker; they are the engine's from here on, and closed with it.
        """
        model = plan.model.id
        life = self._lives.get(model)
        if life is not None and not life.finished.is_set():
            msg = f"the model {model} has an engine already"
            raise AlreadyRunningError(msg)
        self._started += 1
        endpoint = EngineEndpoint(socket_path=self._socket_path(self._started), key=secrets.token_urlsafe(KEY_BYTES))
        context = LifeContext(
            build=self._build, host=self._host, times=self._times, post=self._post, traffic=self._traffic, ways=ways,
            slots=self.slots,
        )  # fmt: skip
        life = EngineLife(plan, endpoint, context)
        self._lives[model] = life
        task = self._start_task(f"engine:{model}", life.run())
        task.add_done_callback(lambda _: life.finished.set())  # one that is cancelled at once never runs

    def stop(self, model: ModelId, *, kill: bool = False, slots_bytes: int = 0) -> None:
        """Ask a model's engine to end; returns at once. One that has no process is left alone.

        With `slots_bytes` its conversations are saved first, in so many bytes of the disk.
        """
        life = self._lives.get(model)
        if life is not None and not life.finished.is_set():
            life.stop(0.0 if kill else self._times.stop_polite_s, slots_bytes)

    def log_lines(self, model: ModelId) -> tuple[str, ...]:
        """Return what a model's engine said lately, also after its end; empty where none ever ran."""
        life = self._lives.get(model)
        return life.log.lines if life is not None else ()

    async def close(self, polite_s: float = limits.ENGINE_STOP_POLITE_S) -> None:
        """End all engines at the same time and wait until they are gone."""
        living = [life for life in self._lives.values() if not life.finished.is_set()]
        for life in living:
            life.stop(polite_s)
        try:
            async with asyncio.timeout(polite_s + REAP_S):
                for life in living:
                    await life.finished.wait()
        except TimeoutError:
            pass  # a process that even SIGKILL doesn't end hangs in a driver; nobody can help it

    def _socket_path(self, number: int) -> str:
        """Return the path of the socket of the n-th engine. llama.cpp knows a socket by its suffix `.sock`."""
        path = str(self._runtime_dir / f"e{number}-{secrets.token_hex(3)}.sock")
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
            msg = (
                f"the runtime folder {str(self._runtime_dir)!r} has too long a path for a Unix socket "
                f"({SOCKET_PATH_BYTES} bytes with the name); set XDG_RUNTIME_DIR to a shorter one"
            )
            raise SocketPathTooLongError(msg)
        return path
