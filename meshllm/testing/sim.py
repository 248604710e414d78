"""A whole mesh in one process and in virtual time: real cores, a pretended network.

Owns the clock, the order of everything that happens, and the nodes' lives: start, crash, kill, restart,
sleep, leave. Decides nothing by itself beyond a seeded chance, so a run repeats exactly. Doesn't know
what is expected of a mesh; `invariants` and tests do.
"""

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from meshllm.core import effects as do
from meshllm.core import events as ev
from meshllm.core.announcement import Address, Announcement
from meshllm.core.credentials import Revocation
from meshllm.core.effects import Effect
from meshllm.core.events import Event
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.members.times import MemberTimes
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.standing import LIVE, MemberState
from meshllm.testing.sim_lending import Lost
from meshllm.testing.sim_machine import SimMachine
from meshllm.testing.sim_models import USUAL_MACHINE, Disk, Library, Machine
from meshllm.testing.sim_network import SimNetwork, Weather
from meshllm.testing.sim_transport import SimTransport

PORT = 4000
_ROUNDING_S = 1e-6
_NAP_S = 0.5
"""What is due while a process is stopped is tried again this often."""
_UNIX_S = 1_800_000_000.0
"""The time of day, for what needs one: nothing in a simulation lasts long enough for it to pass."""
_YEAR_S = 365 * 86_400.0
Observer = Callable[["SimNode", Event, tuple[Effect, ...]], None]


@dataclass(slots=True, eq=False)
class SimNode:
    """One node: its core, and how its process is."""

    node: NodeId
    core: MeshCore
    config: CoreConfig
    clock_ahead_s: float
    """How much its own clock differs from that of the simulation: nothing may depend on it."""
    clock_s: float = 0.0
    life: int = 1
    is_up: bool = True
    is_machine_up: bool = True
    is_asleep: bool = False
    wakes_at_s: float | None = None
    roster: tuple[tuple[NodeId, tuple[Address, ...]], ...] = ()
    sent_bytes: int = 0
    events: int = 0
    exit_code: int | None = None
    machine: Machine = USUAL_MACHINE
    disk: Disk | None = None
    """None: it has neither engine nor folder for models, and says nothing of its machine."""
    rig: SimMachine | None = None
    """The engines of this run of its process."""

    @property
    def is_running(self) -> bool:
        """Tell whether its process runs and is awake."""
        return self.is_up and not self.is_asleep

    def state_of(self, other: NodeId) -> MemberState | None:
        """Return what it thinks of another node."""
        member = self.core.view.members.get(other)
        return member.state if member is not None else None

    def live(self) -> dict[NodeId, tuple[int, int]]:
        """Return whom it thinks alive, with the numbers of their newest statements."""
        return {
            node: (member.announcement.incarnation, member.announcement.version)
            for node, member in self.core.view.members.items() if member.state in LIVE
        }  # fmt: skip


class SimMesh:
    """The world: satisfies `sim_transport.World`."""

    def __init__(
        self, seed: int, weather: Weather | None = None, times: MemberTimes | None = None
    ) -> None:  # fmt: skip
        """Make an empty world. Everything in it follows from the seed."""
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.network = SimNetwork(self.rng, weather or Weather())
        self.transport = SimTransport(self)
        self.nodes: dict[NodeId, SimNode] = {}
        self.observers: list[Observer] = []
        self.endings: list[Callable[[NodeId], None]] = []
        """Told of every process that has ended."""
        self.revoked: set[NodeId] = set()
        self.library = Library()
        self.events = 0
        self._times = times
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    # -- what the transport needs ----------------------------------------------------------------------

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Do something after a while."""
        self._order += 1
        heapq.heappush(self._queue, (self.now_s + delay_s, self._order, call))

    def hears(self, node: NodeId) -> bool:
        """Tell whether a node's process runs and is awake."""
        found = self.nodes.get(node)
        return found is not None and found.is_up and not found.is_asleep

    def refuses(self, node: NodeId) -> bool:
        """Tell whether a node's machine is up without its process."""
        found = self.nodes.get(node)
        return found is not None and found.is_machine_up and not found.is_up

    def life(self, node: NodeId) -> int:
        """Return which run of its process a node is in; 0 while it is in none."""
        found = self.nodes.get(node)
        return found.life if found is not None and found.is_up else 0

    def at(self, address: Address) -> NodeId | None:
        """Return the node at an address: each is at the host of its own name."""
        node = NodeId(address.host)
        return node if node in self.nodes and address.port == PORT else None

    def spend(self, node: NodeId, size_bytes: int) -> None:
        """Count bytes that a node sent."""
        self.nodes[node].sent_bytes += size_bytes

    def may_connect(self, source: NodeId, target: NodeId) -> bool:
        """Tell whether the target admits the source."""
        return all(entry.node != source for entry in self.nodes[target].core.view.revocations)

    def post(self, node: NodeId, event: Event) -> None:
        """Give a node's core an event at this moment and carry out what follows."""
        found = self.nodes[node]
        if not found.is_running:
            return
        self.events += 1
        found.events += 1
        # What is due at a moment may be a rounding error later on the node's own clock.
        found.clock_s = max(found.clock_s, self.now_s + found.clock_ahead_s + _ROUNDING_S)
        effects = found.core.handle(event, found.clock_s)
        for observer in self.observers:
            observer(found, event, effects)
        for effect in effects:
            self._carry_out(found, effect)
        self._arrange_wake(found)

    def _carry_out(self, node: SimNode, effect: Effect) -> None:
        match effect:
            case do.Send():
                self.transport.send(node.node, effect)
            case do.Dial():
                self.transport.dial(node.node, effect)
            case do.Disconnect():
                self.later(0.0, lambda: self.transport.disconnect(node.node, effect))
            case do.KeepRoster():
                node.roster = effect.entries
            case do.KeepTrust():
                node.config = replace(node.config, tokens=effect.tokens, revocations=effect.revocations)
            case do.KeepOrders(kept=kept):
                node.config = replace(node.config, kept=kept)
            case do.Leave():
                node.exit_code = effect.exit_code
                life = node.life
                self.later(0.05, lambda: self._end(node, life))  # what is on its way out still goes
            case _ if node.rig is not None:
                node.rig.carry_out(effect)
            case _:
                pass  # answers and logs: nobody waits for them here

    def _in_life(self, node: SimNode, life: int, delay_s: float, call: Callable[[], None]) -> None:
        """Do something after a while for a process: not while it is stopped, and never once it has ended."""

        def due() -> None:
            if node.is_up and node.life == life:
                if node.is_asleep:
                    self.later(_NAP_S, due)
                else:
                    call()

        self.later(delay_s, due)

    def _end(self, node: SimNode, life: int) -> None:
        if node.is_up and node.life == life:
            self.transport.close_all(node.node, "leaving")
            node.is_up = False
            self._stop(node)

    def _stop(self, node: SimNode) -> None:
        """End what runs for a process that has ended."""
        if node.rig is not None:
            node.rig.end()
            node.rig = None
        for ending in self.endings:
            ending(node.node)

    def _arrange_wake(self, node: SimNode) -> None:
        due_s = node.core.next_wakeup_s()
        at_s = max(due_s - node.clock_ahead_s, self.now_s) if due_s is not None else None
        if at_s is None or (node.wakes_at_s is not None and node.wakes_at_s <= at_s):
            return
        node.wakes_at_s = at_s
        life = node.life
        self.later(at_s - self.now_s, lambda: self._wake(node, life, at_s))

    def _wake(self, node: SimNode, life: int, at_s: float) -> None:
        if node.life != life or node.wakes_at_s != at_s:
            return
        node.wakes_at_s = None
        due_s = node.core.next_wakeup_s()
        if due_s is not None and due_s <= self.now_s + node.clock_ahead_s + _ROUNDING_S:
            self.post(node.node, ev.Woke())
        elif node.is_up:
            self._arrange_wake(node)

    # -- lives -----------------------------------------------------------------------------------------

    def start(
        self, name: str, seeds: Iterable[str] = (), models: Iterable[str] = (), *, machine: Machine | None = None,
        serving: ServingPolicy = ServingPolicy(),
    ) -> SimNode:  # fmt: skip
        """Start a node for the first time; `seeds` are the nodes that its token names, `models` are on its disk.

        Without models and without a machine it is a member that can serve nothing, now or later.
        """
        seeds, models = tuple(seeds), tuple(models)
        node = NodeId(name)
        config = CoreConfig(
            node=node, name=name, times=self._times, addresses=(Address(host=name, port=PORT),),
            is_joining=bool(seeds), serving=serving,
        )  # fmt: skip
        ahead_s = self.rng.uniform(0, 1e6)
        core = MeshCore(config, self.now_s + ahead_s, random.Random(self.rng.random()))
        disk = Disk(self.library.of(models)) if models or machine is not None else None
        found = self.nodes[node] = SimNode(
            node=node, core=core, config=config, clock_ahead_s=ahead_s, machine=machine or USUAL_MACHINE, disk=disk
        )
        self._equip(found)
        for seed in seeds:
            address = Address(host=seed, port=PORT)
            self.post(node, ev.AddressFound(peer=NodeId(seed), addresses=(address,), source="token"))
        self._arrange_wake(found)
        return found

    def crash(self, name: str, *, is_machine_up: bool = False) -> None:
        """End a node without a word. With its machine up, packets to it are refused."""
        node = self.nodes[NodeId(name)]
        self.transport.abandon(node.node)
        node.is_up, node.is_machine_up, node.wakes_at_s = False, is_machine_up, None
        self._stop(node)

    def restart(self, name: str) -> SimNode:
        """Start a crashed or stopped node again, with what it had written down."""
        node = self.nodes[NodeId(name)]
        node.config = replace(node.config, incarnation=node.config.incarnation + 1, is_joining=bool(node.roster))
        node.clock_ahead_s = self.rng.uniform(0, 1e6)
        node.core = MeshCore(node.config, self.now_s + node.clock_ahead_s, random.Random(self.rng.random()))
        node.life += 1
        node.clock_s = 0.0
        node.is_up = node.is_machine_up = True
        node.is_asleep, node.wakes_at_s, node.exit_code = False, None, None
        self._equip(node)
        for peer, addresses in node.roster:
            self.post(node.node, ev.AddressFound(peer=peer, addresses=addresses, source="roster"))
        self._arrange_wake(node)
        return node

    def _equip(self, node: SimNode) -> None:
        """Let a node find its machine and its models."""
        if node.disk is None:
            return
        life = node.life
        node.rig = SimMachine(
            node.machine, node.disk, self.library, partial(self._in_life, node, life), partial(self.post, node.node),
            partial(self._use_server, node.node),
        )  # fmt: skip
        node.rig.begin()
        if node.machine.rpc:
            self.post(node.node, ev.OwnAddressesChanged(addresses=node.config.addresses, bulk_port=1))

    def _use_server(self, host: NodeId, worker: NodeId, model: ModelId, epoch: int, lost: Lost) -> bool:
        """Let a host's engine use a worker's server, if that is there."""
        rig = self.nodes[worker].rig
        return rig is not None and rig.lending.use(model, epoch, host, lost)

    def suspend(self, name: str) -> None:
        """Stop a node's process; packets to it are lost."""
        self.nodes[NodeId(name)].is_asleep = True

    def wake(self, name: str) -> None:
        """Let a stopped process go on: first of all, what was due."""
        node = self.nodes[NodeId(name)]
        node.is_asleep, node.wakes_at_s = False, None
        if node.is_up:
            self._arrange_wake(node)
            self.transport.wake(node.node)

    def jump_clock(self, name: str, ahead_s: float) -> None:
        """Let a node's clock leap forwards, as after a suspended machine."""
        node = self.nodes[NodeId(name)]
        node.clock_ahead_s += ahead_s
        node.wakes_at_s = None
        if node.is_up:
            self._arrange_wake(node)

    def revoke(self, name: str) -> None:
        """Expel a node, by the word of some admin that runs; the word spreads as it may."""
        node = NodeId(name)
        self.revoked.add(node)
        able = [found.node for found in self.running() if found.node not in self.revoked]
        if able:
            entry = Revocation(
                node=node, by=able[0], at_unix_s=_UNIX_S, until_unix_s=_UNIX_S + _YEAR_S, sealed=node.encode()
            )
            self.post(self.rng.choice(able), ev.NodeRevoked(revocation=entry, now_unix_s=_UNIX_S))

    def leave(self, name: str) -> None:
        """Ask a node to go properly."""
        self.post(NodeId(name), ev.LeaveRequested(reason="SIGTERM"))

    # -- time ------------------------------------------------------------------------------------------

    def run_until(self, at_s: float) -> None:
        """Let everything happen up to a moment."""
        queue = self._queue
        while queue and queue[0][0] <= at_s:
            due_s, _, call = heapq.heappop(queue)
            self.now_s = max(due_s, self.now_s)
            call()
        self.now_s = max(at_s, self.now_s)

    def run(self, for_s: float) -> None:
        """Let everything happen for a while."""
        self.run_until(self.now_s + for_s)

    def run_while(self, condition: Callable[[], bool], within_s: float, step_s: float = 0.05) -> float | None:
        """Run while a condition holds; return how long that was, or None when it never ceased."""
        began_s = self.now_s
        while condition():
            if self.now_s - began_s >= within_s:
                return None
            self.run(step_s)
        return self.now_s - began_s

    # -- looking at it ---------------------------------------------------------------------------------

    def running(self) -> list[SimNode]:
        """Return the nodes whose processes run, in order."""
        return [node for _, node in sorted(self.nodes.items()) if node.is_running]

    def is_one_view(self) -> bool:
        """Tell whether all running nodes think exactly all running nodes alive, with the same statements."""
        running = [node for node in self.running() if node.node not in self.revoked]
        truth = {node.node: _numbers(node.core.view.me) for node in running if not node.core.view.me.left}
        return all(node.live() == truth for node in running if node.node in truth)


def _numbers(said: Announcement) -> tuple[int, int]:
    return said.incarnation, said.version
