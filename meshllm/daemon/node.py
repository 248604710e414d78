"""The composition root: makes every shell, hands each what it needs, runs them, ends them in order.

Owns the one `TaskGroup` and the order of start and end. Decides nothing. Whatever a folder needs of a
sibling is a `Protocol` there and the real thing here.
"""

import asyncio
import errno
import logging
import random
import secrets
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Protocol

import uvloop

from meshllm.api.app import ManagementServer
from meshllm.config import Config
from meshllm.core.engines import EngineBuild
from meshllm.core.events import EngineProbed, InventoryChanged, LeaveRequested, ResourcesMeasured
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import ENGINE_STOP_POLITE_S
from meshllm.core.mesh import MeshCore
from meshllm.core.rights import Rights
from meshllm.core.view import MeshView
from meshllm.daemon import frugal, logs, places, socket_owner
from meshllm.daemon.asking import Asking
from meshllm.daemon.carry_out import CarryOut, Engines, Shells
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.downloads import ModelDownloads
from meshllm.daemon.errors import EngineChoiceError, NotJoinedError, PortInUseError, StartError
from meshllm.daemon.journal import Journal
from meshllm.daemon.loop import Loop
from meshllm.daemon.management import Asked, Management
from meshllm.daemon.mesh_link import MeshLink
from meshllm.daemon.mesh_start import MeshStart, begin, core_config
from meshllm.daemon.ports import holder_of
from meshllm.daemon.profile import Profile
from meshllm.daemon.registrations import Registrations
from meshllm.daemon.rpc_lending import RpcLending
from meshllm.daemon.rpc_tunnels import RpcTunnels
from meshllm.daemon.signals import signals_obeyed
from meshllm.daemon.state_dir import StateDir
from meshllm.daemon.tasks import Tasks
from meshllm.daemon.tensor_cache import TensorCache
from meshllm.daemon.time_zone import zone_of
from meshllm.daemon.trace_export import TraceExport, export_of
from meshllm.daemon.upkeep import verify_loaded
from meshllm.daemon.view_log import tell_changes
from meshllm.engine.build import AUTO, probe_build
from meshllm.engine.endpoint import probe
from meshllm.engine.inquiry import EngineUnusableError
from meshllm.engine.life import EngineTimes
from meshllm.engine.rpc_store import Holds
from meshllm.engine.slot_store import SlotStore
from meshllm.engine.supervisor import EngineSupervisor
from meshllm.inventory import gpu, machine
from meshllm.inventory.digests import DigestStore
from meshllm.inventory.model_files import Inventory
from meshllm.inventory.model_watcher import ModelWatcher
from meshllm.proxy.front_door import FrontDoor, FrontDoorConfig
from meshllm.proxy.reference import inference_reference
from meshllm.wire.tunnel_frames import TunnelHead, TunnelRefusal

log = logging.getLogger(__name__)

MEASURE_INTERVAL_S = 10.0


class Ears(Protocol):
    """Who hears of a node's start and of every change."""

    def started(self, address: str) -> None:
        """Hear where the API listens."""

    def joinable(self, rights: Rights, make_token: Callable[[], str]) -> None:
        """Hear that others can join with some rights, and how to get a token for them."""

    def report(self, view: MeshView) -> None:
        """Hear of a new view."""


def run(config: Config, ears: Ears) -> int:
    """Run a node until it leaves; return the exit code. Raises StartError."""
    ring = logs.set_up(config.log_level, config.log_format, config.log_file)
    state = StateDir(config.state_dir, config.runtime_dir)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(config, state, ring, ears))
    finally:
        state.release(forget=config.client)


async def _run(config: Config, state: StateDir, ring: logs.Ring, ears: Ears) -> int:
    """Start everything, wait until the core says leave, end everything."""
    node = Node(config, state, ring, begin(config, state), await chosen_engine(config))
    # First: whoever sees the API answer may already send the signal that ends the node.
    with signals_obeyed(node):
        await node.open()
        ears.started(node.address)
        if rights := node.mesh_link.inviting:
            ears.joinable(rights, node.mesh_link.make_own_token)
        async with asyncio.TaskGroup() as group:
            tasks = node.start(group, ears.report)
            exit_code = await node.left
            await node.close()
            tasks.cancel_all()
    if node.not_joined:
        raise NotJoinedError("no member of the mesh could be reached, or none lets this node in; the log says which")
    return exit_code


async def chosen_engine(config: Config) -> EngineBuild | None:
    """Return the engine that somebody named, or None where the node looks for one. Raises EngineChoiceError.

    Before anything opens: a node that cannot do as it was told serves nothing else in its place.
    """
    if config.engine == AUTO:
        return None
    try:
        return await probe_build(config.engine, cache_dir=config.cache_dir)
    except EngineUnusableError as error:
        raise EngineChoiceError(error.failure.message) from None


class Node:
    """The shells of one daemon."""

    def __init__(
        self, config: Config, state: StateDir, ring: logs.Ring, start: MeshStart, build: EngineBuild | None
    ) -> None:
        """Make every shell; nothing runs yet. Without a `build`, it looks for an engine when it has started."""
        loop = asyncio.get_running_loop()
        logs.name_node(start.node)
        self.left: asyncio.Future[int] = loop.create_future()
        started_s = loop.time()
        self.not_joined = False
        """It had to join a mesh and reached nobody."""
        self._is_asked_to_leave = False
        self._left_because = ""
        self._config = config
        self._state = state
        self._build = build
        core = MeshCore(core_config(config, start), started_s, random.Random(secrets.randbits(64)))
        self.views = CurrentView(core.view)
        journal, profile = Journal(), Profile() if config.profile else None
        self._loop = Loop(core, self.views, journal, profile)
        self._asking = Asking(self._loop.post)
        self._engines: EngineSupervisor | None = None
        self._held_builds = Holds()
        self._tunnels: RpcTunnels | None = None
        self._lending: RpcLending | None = None
        where, digests = places.model_places(config), DigestStore(state.path / places.DIGESTS_NAME)
        self._watcher = ModelWatcher(where, digests, self._on_inventory)
        registry = Registrations(
            state.path / places.REGISTRY_NAME, where, self.views, self._watcher.look, self._loop.post
        )
        self._slots = SlotStore(state.path / places.SLOTS_NAME)
        registry.read()
        self.mesh_link = MeshLink(start, config, self.views, self._loop.post, self._serve_tunnel)
        socket = state.runtime / places.MANAGEMENT_SOCKET_NAME
        self._door = FrontDoor(_door_config(config, start), self.views, self._loop.post, socket, tunnels=self.mesh_link)
        self._door.metering.ledger.restore(start.kept.quota_uses)
        self._traces: TraceExport | None = export_of(config, start.node)
        self._door.watch(self._traces.collecting(config.trace_share) if self._traces is not None else None)
        self.management = Management(
            config, started_s,
            Asked(
                asking=self._asking, post=self._loop.post, views=self.views, journal=journal,
                profile=profile, ring=ring, door=self._door, link=self.mesh_link,
                watcher=self._watcher, registry=registry, traces=self._traces, engine_log=self._engine_log,
            ),
        )  # fmt: skip
        self._server = ManagementServer(self.management, socket, inference_reference)

    @property
    def address(self) -> str:
        """Return `host:port` of the front door; empty before it is open."""
        return self.management.address

    # -- start and end -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the port for peers, the management app, then the front door. Raises PortInUseError or StartError."""
        await self.mesh_link.listen()
        await self._server.open()
        asked = self._config.port
        try:
            host, port = await self._door.start()
            if self._config.console not in {None, port}:
                asked = self._config.console or 0
                await self._door.listen(asked)
        except OSError as error:
            await self._door.close()
            await self._server.close()
            await self.mesh_link.close()
            raise _cannot_listen(self._config.host, asked, error) from error
        self.management.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._state.write_address(self.address)

    def start(self, group: asyncio.TaskGroup, report: Callable[[MeshView], None]) -> Tasks:
        """Run everything that goes on by itself."""
        tasks = Tasks(group, self._loop.post)
        bulk = self.mesh_link.bulk
        self._tunnels = RpcTunnels(bulk.dial_worker, tasks.start)
        self._lending = RpcLending(
            lambda: self.views.newest.engine_build, self._state.runtime, self._loop.post, tasks.start,
            TensorCache(self._state.path / places.TENSORS_NAME, self._state.runtime),
        )  # fmt: skip
        bulk.lends_by(self._lending.serve)
        carry_out = CarryOut(
            Shells(
                engines=self._supervisor,
                ways=self._tunnels.open,
                lending=self._lending,
                probe=probe,
                downloads=ModelDownloads(
                    self._config.models_dirs[0],
                    self._usable_bytes,
                    offline=self._config.offline,
                    dial=bulk.dial,
                ),
                downloaded=self._watcher.rescan,
                idle=self._door.idle,
                keep_slots=self._slots.keep,
                mesh=self.mesh_link.carry_out,
                answer=self._asking.answer,
                leave=self._leave,
                start_task=tasks.start,
                post=self._loop.post,
            )
        )
        work: dict[str, Coroutine[object, object, None]] = {
            "loop": self._loop.run(carry_out),
            "report": self._report(report),
            "measure": self._measure(),
            **({"traces": self._traces.run()} if self._traces is not None else {}),
            **self.mesh_link.work(tasks),
            **({"require-join": self._require_join()} if self._config.require_join else {}),
            **(self._client_work() if self._config.client else self._host_work(tasks)),
        }
        for name, coroutine in work.items():
            tasks.start(name, coroutine)
        return tasks

    def _host_work(self, tasks: Tasks) -> dict[str, Coroutine[object, object, None]]:
        return {
            "engine-probe": self._probe(tasks), "inventory": self._watcher.run(),
            "verify": verify_loaded(self.views, self._watcher.verify),
        }  # fmt: skip

    def _client_work(self) -> dict[str, Coroutine[object, object, None]]:
        """Return what a client does in the place of serving: nothing, and it says so to its core."""
        self._loop.post(InventoryChanged(models=()))
        return {}

    def leave(self, reason: str, *, is_last_word: bool = False) -> None:
        """Ask the core to end the daemon; asked a second time, at once. A last word is said before this returns."""
        self._is_asked_to_leave = True
        self._loop.post(LeaveRequested(reason=reason))
        if is_last_word:
            self._loop.catch_up()

    def hang_up(self) -> None:
        """Ask the core to end the daemon, because its terminal is closed. Nobody hurries it so.

        The kernel and the shell both send this signal, and service managers send it after SIGTERM.
        """
        if not (self._is_asked_to_leave or self.views.newest.leaving):
            self.leave(signal.SIGHUP.name)

    async def close(self) -> None:
        """Close the shells. Engines have ended already, unless something went wrong.

        The management app first: whoever asked for the end, by `drop`, gets the answer through the open door.
        """
        await self._server.close()
        await self._door.close()
        await self.mesh_link.close()
        if self._traces is not None:
            await self._traces.last_word()
        if self._engines is not None:
            await self._engines.close(ENGINE_STOP_POLITE_S)
        if self._lending is not None:
            await self._lending.close()
        if self._tunnels is not None:
            await self._tunnels.close()
        self._held_builds.close()
        log.info("left reason=%s", self._left_because)

    # -- what goes on by itself ------------------------------------------------------------------------

    async def _report(self, report: Callable[[MeshView], None]) -> None:
        view = self.views.newest
        while True:
            report(view)
            before, view = view, await self.views.changed(view.epoch)
            tell_changes(before, view)

    async def _require_join(self) -> None:
        """End the node when it has found nobody by the time that joining takes."""
        view = self.views.newest
        while view.joining:
            view = await self.views.changed(view.epoch)
        if view.has_found_nobody:
            self.not_joined = True
            self.leave("nobody of the mesh was reached")

    async def _measure(self) -> None:
        """Look at the machine now and then; GPUs are asked again only where some were found."""
        found = await asyncio.to_thread(gpu.probe)
        while True:
            resources = await asyncio.to_thread(machine.measure, found.gpus, found.problem)
            free_bytes = await asyncio.to_thread(machine.free_disk_bytes, self._config.models_dirs[0])
            self._loop.post(ResourcesMeasured(resources=replace(resources, disk_free_bytes=free_bytes)))
            await asyncio.to_thread(frugal.give_back)
            await asyncio.sleep(MEASURE_INTERVAL_S)
            if found.gpus:
                found = await asyncio.to_thread(gpu.probe)

    async def _probe(self, tasks: Tasks) -> None:
        """Find out which engine can run here."""
        try:
            build = self._build or await probe_build(cache_dir=self._config.cache_dir)
        except EngineUnusableError as error:
            self._loop.post(EngineProbed(build=None, failure=error.failure))
            return
        await self._held_builds.take(build)
        self._engines = EngineSupervisor(
            build, self._state.runtime, self._loop.post, self._door, tasks.start,
            times=EngineTimes(load_timeout_s=self._config.load_timeout_s, stall_s=self._config.engine_stall_s),
        )  # fmt: skip
        self._engines.slots = self._slots
        self._loop.post(EngineProbed(build=build))

    def _on_inventory(self, inventory: Inventory) -> None:
        self._loop.post(InventoryChanged(models=inventory.models, problems=inventory.problems))

    def _supervisor(self) -> Engines:
        assert self._engines is not None  # noqa: S101 - the core starts engines only after EngineProbed
        return self._engines

    def _engine_log(self, model: ModelId) -> tuple[str, ...]:
        lent = self._lending.log_lines(model) if self._lending is not None else ()
        return (self._engines.log_lines(model) if self._engines is not None else ()) or lent

    def _serve_tunnel(self, peer: NodeId, rights: Rights, head: TunnelHead) -> asyncio.Protocol | TunnelRefusal:
        return self._door.far_end.take(peer, rights, head)

    def _usable_bytes(self) -> int:
        resources = self.views.newest.resources
        if resources is None:
            return 0
        return self._config.max_vram.of(resources.gpu_total_bytes or resources.memory_total_bytes)

    def _leave(self, reason: str, exit_code: int) -> None:
        if not self.left.done():
            self._left_because = reason
            self.left.set_result(exit_code)


def _door_config(config: Config, start: MeshStart) -> FrontDoorConfig:
    return FrontDoorConfig(
        host=config.host, port=config.port, node=start.node, api_key=config.api_key,
        allowed_hosts=config.allowed_hosts, allowed_origins=config.allowed_origins,
        admin_key=config.admin_key, is_open_locally=config.insecure_local_admin, is_owner=socket_owner.is_own,
        load_wait_s=config.load_wait_s, quota_zone=zone_of(config.quota_timezone), client_keys=config.client_keys,
    )  # fmt: skip


def _cannot_listen(host: str, port: int, error: OSError) -> StartError:
    """Say why the front door could not open, and what would help."""
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(port) or "another program"
        return PortInUseError(f"{where} is already in use by {holder}; --port and --console choose other ports")
    return StartError(f"cannot listen on {where}: {error.strerror or error}")
