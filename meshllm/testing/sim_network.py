"""The network of a simulated mesh: what happens to a packet between two nodes at a moment.

Owns the weather of every link, in each direction on its own, and partitions. Decides by a seeded chance
whether a packet arrives and when. Doesn't know connections; `sim_transport` sends again what was lost.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from meshllm.core.ids import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What a link does to packets, in one direction."""

    loss: float = 0.0
    """Share of packets that vanish, 0 to 1; 1 is a cut."""
    delay_s: float = 0.010
    jitter_s: float = 0.0
    reorder: float = 0.0
    """Share of packets that take three times as long."""
    duplicate: float = 0.0
    """Share of packets that arrive twice. QUIC drops the second one: it costs bytes and nothing else."""


class SimNetwork:
    """All links."""

    def __init__(self, rng: random.Random, weather: Weather) -> None:
        """Give every link the same weather."""
        self._rng = rng
        self.weather = weather
        self._links: dict[tuple[NodeId, NodeId], Weather] = {}
        self._sides: dict[NodeId, int] = {}

    def set_all(self, **changes: float) -> None:
        """Change the weather of every link that has none of its own."""
        self.weather = replace(self.weather, **changes)

    def set_link(self, source: NodeId, target: NodeId, **changes: float) -> None:
        """Change the weather in one direction of one link."""
        self._links[source, target] = replace(self.between(source, target), **changes)

    def divide(self, *sides: Iterable[NodeId]) -> None:
        """Cut all links between groups of nodes; those named nowhere stay with the first."""
        self._sides = {node: number for number, side in enumerate(sides) for node in side}

    def heal(self) -> None:
        """End every partition and give every link the common weather, without loss."""
        self._sides = {}
        self._links = {}
        self.set_all(loss=0.0, reorder=0.0, duplicate=0.0)

    def between(self, source: NodeId, target: NodeId) -> Weather:
        """Return the weather of a link in one direction."""
        return self._links.get((source, target), self.weather)

    def is_cut(self, source: NodeId, target: NodeId) -> bool:
        """Tell whether nothing at all passes between two nodes, in one direction or the other."""
        if self._sides and self._sides.get(source, 0) != self._sides.get(target, 0):
            return True
        return self.between(source, target).loss >= 1 or self.between(target, source).loss >= 1

    def arrives_after_s(self, source: NodeId, target: NodeId) -> float | None:
        """Return how long a packet takes that is sent at this moment, or None when it is lost."""
        weather = self._links.get((source, target), self.weather) if self._links else self.weather
        if self._sides and self._sides.get(source, 0) != self._sides.get(target, 0):
            return None
        if weather.loss and self._rng.random() < weather.loss:
            return None
        delay_s = weather.delay_s
        if weather.jitter_s:
            delay_s += self._rng.random() * weather.jitter_s
        if weather.reorder and self._rng.random() < weather.reorder:
            delay_s *= 3
        return delay_s
