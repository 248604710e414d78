"""What a simulated mesh achieves, in numbers that can be kept and compared.

Owns three measurements: how fast a mesh comes to one view, what it costs at rest, and how well it tells
the dead from the living. Decides nothing. A run follows from its seed alone, so a number that changed
means that the protocol changed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshllm.core.members.times import MemberTimes, wan
from meshllm.testing.invariants import Watch
from meshllm.testing.sim import SimMesh
from meshllm.testing.sim_network import Weather

DELAY_S = 0.010
"""One way: a round trip of 20 ms, as in the table of the prototype."""
_BETWEEN_JOINS_S = 0.02
_CALM_S = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """How a mesh of nodes that each know one other came to one view."""

    nodes: int
    after_last_join_s: float | None
    """None: not within a minute."""
    bytes_each: int
    """Sent by each node until then, on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What a mesh costs in which nothing happens."""

    nodes: int
    connections_each: float
    bytes_per_s_each: float
    bytes_per_s_most: float
    """Of the node that sends most: the one that the others joined by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How well a mesh tells the dead from the living, at one rate of loss."""

    loss: float
    pair_hours: float
    false_deaths: int
    suspicions: int
    detected_p50_s: float
    detected_most_s: float
    missed: int
    """Of those who should have found out."""


def a_mesh(nodes: int, seed: int, times: MemberTimes | None = None) -> SimMesh:
    """Return a mesh in which each node has joined through one of the earlier ones, just after the last join."""
    mesh = SimMesh(seed, Weather(delay_s=DELAY_S), times)
    names = [f"n{number:04d}" for number in range(nodes)]
    mesh.start(names[0])
    for number, name in enumerate(names[1:], 1):
        mesh.run(_BETWEEN_JOINS_S)
        mesh.start(name, [names[mesh.rng.randrange(number)]])
    return mesh


def convergence(nodes: int, seed: int = 1) -> Convergence:
    """Measure how long a mesh takes to one view after its last join."""
    mesh = a_mesh(nodes, seed)
    took_s = mesh.run_while(lambda: not mesh.is_one_view(), 60.0)
    sent = sum(node.sent_bytes for node in mesh.nodes.values())
    return Convergence(
        nodes=nodes, after_last_join_s=round(took_s, 2) if took_s is not None else None, bytes_each=sent // nodes
    )


def rest(nodes: int, seed: int = 1, for_s: float = 60.0) -> Rest:
    """Measure what a mesh sends while nothing happens. Raises ValueError if it does not come to rest."""
    mesh = a_mesh(nodes, seed)
    mesh.run(_CALM_S)
    if not mesh.is_one_view():
        raise ValueError(f"{nodes} nodes have no common view after {_CALM_S} s")
    before = {node: found.sent_bytes for node, found in mesh.nodes.items()}
    mesh.run(for_s)
    rates = [(found.sent_bytes - before[node]) / for_s for node, found in mesh.nodes.items()]
    links = sum(len(ends) for node in mesh.nodes for ends in mesh.transport.ends.get(node, {}).values())
    return Rest(
        nodes=nodes, connections_each=round(links / nodes, 1), bytes_per_s_each=round(sum(rates) / nodes),
        bytes_per_s_most=round(max(rates)),
    )  # fmt: skip


def detection(
    loss: float, seeds: Iterable[int], times: MemberTimes | None = None, *, nodes: int = 8, for_s: float = 1800.0
) -> Detection:  # fmt: skip
    """Measure false deaths over some time of loss, then how long one silent death takes to be known."""
    false_deaths = suspicions = missed = runs = 0
    detected_s: list[float] = []
    for seed in seeds:
        runs += 1
        mesh = a_mesh(nodes, seed, times or wan())
        watch = Watch(mesh)
        mesh.run(10.0)
        mesh.network.set_all(loss=loss)
        mesh.run(for_s)
        false_deaths += watch.counts.false_deaths
        suspicions += watch.counts.false_suspicions
        victim = mesh.rng.choice(sorted(mesh.nodes))
        mesh.crash(victim)
        watch.gone(victim)
        mesh.run(60.0)
        detected_s += watch.counts.detections_s
        missed += nodes - 1 - len(watch.counts.detections_s)
    detected_s.sort()
    return Detection(
        loss=loss, pair_hours=round(nodes * (nodes - 1) * for_s / 3600 * runs, 1), false_deaths=false_deaths,
        suspicions=suspicions, detected_p50_s=round(detected_s[len(detected_s) // 2], 1),
        detected_most_s=round(detected_s[-1], 1), missed=missed,
    )  # fmt: skip


def compared(name: str, new: Mapping[str, object], old: Mapping[str, object] | None) -> str:
    """Return one measurement as a line, with the old value behind each number that changed."""
    words = [f"{name:24s}"]
    for key, value in new.items():
        before = old.get(key) if old is not None else value
        words.append(f"{key}={value}" + (f" (was {before})" if before != value else ""))
    return "  ".join(words)
