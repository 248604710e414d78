"""Two minutes of misfortune for a small simulated mesh, then peace: one run for each seed.

Owns the menu of faults and how they are drawn. Decides by the seed alone. What must hold is in
`invariants`; a run raises InvariantError with the seed's own story where it does not.
"""

import random
from dataclasses import dataclass

from meshllm.core.ids import NodeId
from meshllm.testing.invariants import Counts, InvariantError, Watch, check_one_view, check_quiet
from meshllm.testing.sim import SimMesh
from meshllm.testing.sim_network import Weather

FAULTS_S = 120.0
CALM_S = 25.0
"""Before the end of the faults nobody crashes any more: a crash may take 16 s to be known."""
HEAL_S = 10.0
"""From the last fault to one view, also for a node that slept until then and through the crashes of others."""
QUIET_S = 30.0
_PAUSE_S = (0.5, 9.0)
_REVOKE_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run was like."""

    seed: int
    nodes: int
    heal_s: float
    """From the last fault to one view."""
    events: int
    counts: Counts
    story: tuple[str, ...]


class Chaos:
    """One run."""

    def __init__(self, seed: int) -> None:
        """Draw a mesh."""
        self._rng = random.Random(seed ^ 0x5EED)
        rng = self._rng
        delay_s = rng.choice([0.001, 0.003, 0.010, 0.040, 0.080])
        self.mesh = SimMesh(seed, Weather(delay_s=delay_s, jitter_s=delay_s / 2))
        self.watch = Watch(self.mesh)
        self.names = [f"n{number:02d}" for number in range(rng.randint(5, 12))]
        self.story: list[str] = []
        self._down: set[str] = set()
        self._asleep: set[str] = set()
        self._left: set[str] = set()

    def run(self) -> None:
        """Let it all happen. Raises InvariantError."""
        self._begin()
        while (left_s := FAULTS_S - self.mesh.now_s) > 0:
            self._fault(may_crash=left_s > CALM_S)
            self.mesh.run(min(self._rng.uniform(*_PAUSE_S), left_s))

    def peace(self) -> float:
        """End every fault; return how long it takes to one view. Raises InvariantError."""
        mesh = self.mesh
        for name in sorted(self._asleep):
            self._say("wake", name)
            mesh.wake(name)
        mesh.network.heal()
        self._say("heal")
        took_s = check_one_view(mesh, HEAL_S)
        mesh.run(QUIET_S)
        before = self.watch.counts.deaths
        check_one_view(mesh, 0.0)
        check_quiet(mesh)
        mesh.run(QUIET_S)
        if self.watch.counts.deaths != before:
            raise InvariantError("a member died in peace")
        return took_s

    def _begin(self) -> None:
        first, *others = self.names
        self.mesh.start(first, models=["tiny"])
        for number, name in enumerate(others):
            self.mesh.run(self._rng.uniform(0, 2))
            models = self._rng.choice([(), (), ("tiny",), ("tiny=other",), ("small=tiny",)])
            self.mesh.start(name, [self.names[self._rng.randrange(number + 1)]], models)
        self.mesh.run(5)

    def _say(self, *words: object) -> None:
        self.story.append(" ".join([f"{self.mesh.now_s:7.2f}", *map(str, words)]))

    def _up(self) -> list[str]:
        return [name for name in self.names if name not in self._down | self._asleep | self._left]

    def _fault(self, *, may_crash: bool) -> None:
        """Draw one thing that goes wrong, or right again."""
        crashes = (self._crash, self._kill, self._leave) if may_crash else ()
        what = self._rng.choice([
            *crashes, self._restart, self._restart, self._sleep, self._wake, self._divide, self._mend, self._loss,
            self._one_way, self._slow, self._jump, self._revoke,
        ])  # fmt: skip
        what()

    def _crash(self, *, is_machine_up: bool = False) -> None:
        if len(up := self._up()) > 2:
            name = self._rng.choice(up)
            self._say("kill" if is_machine_up else "crash", name)
            self.mesh.crash(name, is_machine_up=is_machine_up)
            self.watch.gone(name)
            self._down.add(name)

    def _kill(self) -> None:
        self._crash(is_machine_up=True)

    def _leave(self) -> None:
        if len(up := self._up()) > 4:
            name = self._rng.choice(up)
            self._say("leave", name)
            self.mesh.leave(name)
            self._left.add(name)

    def _restart(self) -> None:
        if self._down or self._left:
            name = self._rng.choice(sorted(self._down | self._left))
            if self.mesh.nodes[NodeId(name)].is_up:
                return  # it is still saying goodbye
            self._say("restart", name)
            self.watch.here(name)
            self.mesh.restart(name)
            self._down.discard(name)
            self._left.discard(name)

    def _sleep(self) -> None:
        if len(up := self._up()) > 2:
            name = self._rng.choice(up)
            self._say("sleep", name)
            self.mesh.suspend(name)
            self._asleep.add(name)

    def _wake(self) -> None:
        if self._asleep:
            name = self._rng.choice(sorted(self._asleep))
            self._say("wake", name)
            self.mesh.wake(name)
            self._asleep.discard(name)

    def _divide(self) -> None:
        side = self._rng.sample(self.names, self._rng.randint(1, len(self.names) - 1))
        self._say("divide", *sorted(side))
        self.mesh.network.divide(
            [NodeId(name) for name in self.names if name not in side], [NodeId(name) for name in side]
        )

    def _mend(self) -> None:
        self._say("mend")
        self.mesh.network.heal()

    def _loss(self) -> None:
        share = self._rng.choice([0.01, 0.05, 0.2, 0.4])
        self._say("loss", share)
        self.mesh.network.set_all(loss=share)

    def _one_way(self) -> None:
        source, target = self._rng.sample(self.names, 2)
        self._say("cut", source, "->", target)
        self.mesh.network.set_link(NodeId(source), NodeId(target), loss=1.0)

    def _slow(self) -> None:
        source, target = self._rng.sample(self.names, 2)
        self._say("slow", source, "->", target)
        self.mesh.network.set_link(NodeId(source), NodeId(target), delay_s=0.3, jitter_s=0.2, reorder=0.2)

    def _revoke(self) -> None:
        name = self.names[-1]
        if not self.mesh.revoked and self._rng.random() < _REVOKE_SHARE:
            self._say("revoke", name)
            self.mesh.revoke(name)
            self._left.add(name)

    def _jump(self) -> None:
        if up := self._up():
            name = self._rng.choice(up)
            self._say("jump", name)
            self.mesh.jump_clock(name, self._rng.choice([1.0, 30.0, 86_400.0 / 4]))


def play(seed: int) -> Outcome:
    """Run one seed. Raises InvariantError, which names the seed and tells the story."""
    chaos = Chaos(seed)
    try:
        chaos.run()
        heal_s = chaos.peace()
    except InvariantError as error:
        story = "\n".join(chaos.story)
        raise InvariantError(f"seed {seed}, at {chaos.mesh.now_s:.2f} s: {error}\n{story}") from error
    return Outcome(
        seed=seed, nodes=len(chaos.names), heal_s=heal_s, events=chaos.mesh.events, counts=chaos.watch.counts,
        story=tuple(chaos.story),
    )  # fmt: skip
