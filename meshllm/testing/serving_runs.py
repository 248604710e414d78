"""Seeded runs of meshes that serve: machines of all sizes, requests with moving heat, deaths, joiners; then calm.

Owns how machines, models and misfortunes are drawn, and the order of a run. Decides by the seed alone. What must
hold is in `serving_invariants`; a run raises InvariantError with the seed's own story where it does not.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB, MIB
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.testing import serving_invariants as must
from meshllm.testing.invariants import InvariantError, check_news_arrives, check_quiet
from meshllm.testing.serving_invariants import ServingCounts, ServingWatch
from meshllm.testing.sim import SimMesh
from meshllm.testing.sim_models import HUB, Machine
from meshllm.testing.sim_network import Weather
from meshllm.testing.sim_requests import Pattern, SimRequests

SETTLED_S = 90.0
"""From the last start until everything wanted that fits is served."""
LOAD_WAIT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large a run is."""

    nodes: int = 12
    models: int = 8
    misfortunes: int = 5
    pause_s: float = 40.0
    """Between two of them: longer than it takes to find out about a death."""
    calm_s: float = 60.0
    """At the end, without requests; nothing starts or stops in its second half."""
    requests_per_s: float = 1.0
    joining_s: float = 5.0
    """Within which all nodes start."""
    may_divide: bool = True
    loses_a_model: bool = False
    """Whether all who serve some model die first: in a large mesh hardly any model has one host alone."""


SHORT = Scale(nodes=8, models=6, misfortunes=2, pause_s=30.0, calm_s=40.0)
LARGE = Scale(
    nodes=200, models=40, misfortunes=2, pause_s=45.0, calm_s=40.0, requests_per_s=5.0, may_divide=False,
    loses_a_model=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOutcome:
    """What one run was like."""

    seed: int
    counts: ServingCounts
    accepted: int
    ends: dict[str, int]
    events: int
    simulated_s: float
    story: tuple[str, ...]


class ServingRun:
    """One run."""

    def __init__(self, seed: int, scale: Scale) -> None:
        """Draw the models and the weather."""
        self._rng = rng = random.Random(seed ^ 0x5E12)
        self.scale = scale
        delay_s = rng.choice([0.001, 0.010, 0.040])
        self.mesh = SimMesh(seed, Weather(delay_s=delay_s, jitter_s=delay_s / 2))
        self.requests = SimRequests(self.mesh, seed, LOAD_WAIT_S)
        self.watch = ServingWatch(self.mesh, self.requests)
        self.models = [f"m{number:02d}" for number in range(scale.models)]
        self.story: list[str] = []
        self._count = 0
        for model in self.models:
            self.mesh.library.add(model, int(2 ** rng.uniform(8, 13) * MIB))

    def run(self) -> None:
        """Let it all happen. Raises InvariantError."""
        scale, mesh = self.scale, self.mesh
        for number in range(scale.nodes):
            self._start(is_first=number == 0)
            mesh.run(self._rng.uniform(0, 2 * scale.joining_s / scale.nodes))
        mesh.run(SETTLED_S / 2)
        pattern = Pattern(per_s=scale.requests_per_s, models=tuple(self.models), move_s=scale.pause_s)
        self.requests.follow(pattern)
        self._say("requests for", len(self.models), "models")
        for number in range(scale.misfortunes):
            self.watch.counts.changes += scale.models // 4  # the heat moves
            mesh.run(scale.pause_s * self._rng.uniform(0.5, 1.0))
            if scale.loses_a_model and not number:
                self._all_hosts_die()
            else:
                self._misfortune()
            mesh.run(scale.pause_s)
        mesh.network.heal()
        self.requests.follow(None)
        self._calm()

    def _calm(self) -> None:
        """No requests, no misfortune: everything ends, and then nothing moves."""
        mesh, scale = self.mesh, self.scale
        self._say("calm")
        mesh.run(SETTLED_S)
        check_news_arrives(mesh, 20.0)
        before = self.watch.moves()
        mesh.run(scale.calm_s)
        must.check_calm(self.watch, before)
        must.check_explicit(mesh)
        must.check_moves(self.watch, scale.models)
        check_quiet(mesh)
        if self.requests.open:
            mesh.run(LOAD_WAIT_S)
        if self.requests.open:
            left = ", ".join(f"{request.number} for {request.model}" for request in self.requests.open)
            raise InvariantError(f"I5: these requests never end: {left}")

    # -- nodes -----------------------------------------------------------------------------------------------

    def _say(self, *words: object) -> None:
        line = " ".join(map(str, words))
        self.story.append(f"{self.mesh.now_s:7.2f} {line}")
        self.watch.say(line)

    def _machine(self) -> Machine:
        rng = self._rng
        memory_bytes = rng.choice([4, 8, 16, 16, 32, 64]) * GIB
        return Machine(
            memory_bytes=memory_bytes, others_bytes=int(memory_bytes * rng.uniform(0, 0.4)),
            gpu_bytes=rng.choice([0, 0, 8, 24]) * GIB, disk_bytes=rng.choice([5, 50, 500]) * GIB,
            load_bytes_per_s=int(rng.uniform(0.5, 3) * GIB), download_bytes_per_s=int(rng.uniform(100, 400) * MIB),
            excess=rng.choice([0.0, 0.0, 0.03]),
        )  # fmt: skip

    def _start(self, *, is_first: bool = False, wants: tuple[str, ...] | None = None) -> str:
        """Start another node: some are told what to serve, most fill gaps, some fetch files."""
        rng = self._rng
        name = f"n{self._count:03d}"
        self._count += 1
        models = rng.sample(self.models, min(rng.choice([0, 1, 2, 3, 5]), len(self.models)))
        if wants is None:
            chosen = rng.sample(self.models, rng.choice([1, 2, 3])) if rng.random() < self._asking_share else []
            wants = tuple(model if model in models else f"{HUB}/{model}" for model in chosen)
        serving = ServingPolicy(requested=wants, fills_gaps=rng.random() < 0.9, downloads=rng.random() < 0.5)
        seeds = () if is_first else (rng.choice([node.node for node in self.mesh.running()]),)
        self.mesh.start(name, seeds, models, machine=self._machine(), serving=serving)
        self._say("start", name, "with", *models, "told", *wants)
        self.watch.counts.changes += 1 + len(models) + len(wants)
        return name

    @property
    def _asking_share(self) -> float:
        """Return the share of nodes that are told what to serve: about every model is named once."""
        return min(self.scale.models / (2 * self.scale.nodes), 0.5)

    def _up(self) -> list[NodeId]:
        return [node.node for node in self.mesh.running()]

    # -- misfortunes -------------------------------------------------------------------------------------------

    def _misfortune(self) -> None:
        menu: list[Callable[[], None]] = [
            self._last_host_dies, self._last_host_dies, self._some_die, self._joiners, self._joiners, self._leave,
            self._engine_crashes, self._restart,
        ]  # fmt: skip
        if self.scale.may_divide:
            menu += [self._divide, self._heal]
        self._rng.choice(menu)()

    def _crash(self, node: NodeId) -> None:
        self._say("crash", node)
        self.mesh.crash(node, is_machine_up=self._rng.random() < 0.5)

    def _last_host_dies(self) -> None:
        """Someone who serves a model alone dies, where there is one."""
        counts = must.served(self.mesh)
        alone = [
            node.node
            for node in self.mesh.running()
            if any(counts[str(one.model)] == 1 for one in node.core.view.me.serving)
        ]
        if len(self._up()) > 3:
            self._crash(self._rng.choice(alone or self._up()))

    def _all_hosts_die(self) -> None:
        """All who serve a model die at once: the one that the fewest serve."""
        counts = must.served(self.mesh)
        model = min(sorted(counts), key=counts.__getitem__)
        hosts = [node for node in self.mesh.running() if any(one.model == model for one in node.core.view.me.serving)]
        for host in hosts:
            self._crash(host.node)

    def _some_die(self) -> None:
        for _ in range(3):
            if len(up := self._up()) > 3:
                self._crash(self._rng.choice(up))

    def _joiners(self) -> None:
        """Several nodes join at once; the first wants models that it cannot serve all by itself."""
        chosen = self._rng.sample(self.models, min(4, len(self.models)))
        self._start(wants=tuple(f"{HUB}/{model}" for model in chosen))
        for _ in range(self._rng.randint(2, 4)):
            self._start(wants=())

    def _leave(self) -> None:
        if len(up := self._up()) > 3:
            node = self._rng.choice(up)
            self._say("leave", node)
            self.mesh.leave(node)

    def _engine_crashes(self) -> None:
        nodes = [node for node in self.mesh.running() if node.rig is not None and node.rig.engines]
        if nodes:
            node = self._rng.choice(nodes)
            model = self._rng.choice(sorted(node.rig.engines if node.rig is not None else ()))
            if node.rig is not None and node.rig.crash_engine(ModelId(model)):
                self._say("engine of", model, "crashes at", node.node)
                self.watch.counts.changes += 1

    def _restart(self) -> None:
        down = [node for node, found in sorted(self.mesh.nodes.items()) if not found.is_up]
        if down:
            node = self._rng.choice(down)
            self._say("restart", node)
            self.watch.counts.changes += 2 + len(self.mesh.nodes[node].config.serving.requested)
            self.mesh.restart(node)

    def _divide(self) -> None:
        up = self._up()
        side = self._rng.sample(up, self._rng.randint(1, max(len(up) // 2, 1)))
        self._say("divide", *sorted(side))
        self.watch.counts.changes += self.scale.models
        self.mesh.network.divide([node for node in up if node not in side], side)

    def _heal(self) -> None:
        self._say("heal")
        self.mesh.network.heal()


def play(seed: int, scale: Scale = Scale()) -> ServingOutcome:
    """Run one seed. Raises InvariantError, which names the seed and tells what happened last."""
    run = ServingRun(seed, scale)
    try:
        run.run()
    except (InvariantError, AssertionError) as error:
        last = "\n".join(run.watch.story)
        raise InvariantError(f"seed {seed}, at {run.mesh.now_s:.2f} s: {error}\n{last}") from error
    return ServingOutcome(
        seed=seed, counts=run.watch.counts, accepted=run.requests.accepted, ends=dict(run.requests.ends),
        events=run.mesh.events, simulated_s=run.mesh.now_s, story=tuple(run.story),
    )  # fmt: skip
