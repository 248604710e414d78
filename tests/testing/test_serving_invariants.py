"""The checks of who serves what find what they are for."""

from dataclasses import replace

import pytest

from meshllm.core import effects as do
from meshllm.core import events as ev
from meshllm.core.engines import EnginePlan, MemoryNeed
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB, MIB
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.view import Reason
from meshllm.testing import serving_invariants as must
from meshllm.testing.invariants import InvariantError
from meshllm.testing.serving_invariants import ServingWatch
from meshllm.testing.sim import SimMesh
from meshllm.testing.sim_models import Machine
from meshllm.testing.sim_network import Weather
from meshllm.testing.sim_requests import SimRequests

A, B = NodeId("a"), NodeId("b")
TINY = ModelId("tiny")


def a_pair(*, at_b: tuple[str, ...] = ("other",)) -> tuple[SimMesh, ServingWatch]:
    """Return two nodes: one serves the tiny model, the other one what it is told."""
    mesh = SimMesh(1, Weather())
    watch = ServingWatch(mesh, SimRequests(mesh, 1))
    machine = Machine(memory_bytes=8 * GIB)
    mesh.start("a", [], ["tiny"], serving=ServingPolicy(requested=("tiny",)), machine=machine)
    mesh.start("b", ["a"], ["tiny", "other"], serving=ServingPolicy(requested=at_b), machine=machine)
    mesh.run(20.0)
    return mesh, watch


def pretend(mesh: SimMesh, node: NodeId, **serving: object) -> None:
    """Say something else of a node's settings than its core was told."""
    found = mesh.nodes[node]
    found.config = replace(found.config, serving=replace(found.config.serving, **serving))


def a_plan(mesh: SimMesh, total_bytes: int) -> EnginePlan:
    """Return a plan that takes so much memory."""
    need = MemoryNeed(weights_bytes=total_bytes, kv_bytes=0, overhead_bytes=0)
    return EnginePlan(
        model=mesh.library.add("tiny"), context_tokens=4096, slots=1, gpu_layers=0, threads=4, memory=need
    )  # fmt: skip


def test_memory_that_is_given_away_twice_is_found() -> None:
    """Counted before the engine runs, with all that run."""
    mesh, watch = a_pair()
    node = mesh.nodes[B]

    watch(node, ev.Woke(), (do.StartEngine(plan=a_plan(mesh, GIB)),))

    with pytest.raises(InvariantError, match="over-commit: b"):
        watch(node, ev.Woke(), tuple(do.StartEngine(plan=a_plan(mesh, 3 * GIB)) for _ in range(3)))


def test_two_nodes_that_fill_one_gap_are_found() -> None:
    """Not at once: they have a moment to notice each other. Who could not know of the other is excused."""
    mesh, watch = a_pair(at_b=("tiny",))
    for name in (A, B):
        pretend(mesh, name, fills_gaps=True)
        record = mesh.nodes[name].core._serving.held.records[TINY]
        record.is_assigned, record.reason = True, Reason.UNSERVED_ON_DISK
        rig = mesh.nodes[name].rig
        assert rig is not None
        rig._measure()

    mesh.run(30.0)
    watch._excused.clear()

    with pytest.raises(InvariantError, match=r"double claim: a and b .* tiny"):
        mesh.run(10.0)
    assert watch.counts.starts == 2


def test_a_model_that_nobody_serves_although_somebody_could_is_found() -> None:
    """Once everybody knows that its host is dead, and not before."""
    mesh, watch = a_pair()
    pretend(mesh, B, fills_gaps=True)
    pretend(mesh, A, requested=())

    mesh.crash("a")
    mesh.run(20.0)
    early = dict(watch.lost)

    with pytest.raises(InvariantError, match=r"tiny is wanted, unserved for .*, and could be served by b in 1 s"):
        mesh.run(60.0)
    assert list(early) == ["tiny"]


def test_a_model_that_fits_nowhere_is_nobodys_fault() -> None:
    """Nor one whose file nobody has."""
    mesh, _ = a_pair()
    mesh.library.add("big", 100 * GIB)
    pretend(mesh, B, fills_gaps=True, requested=("other", "big", "unheard of"))

    mesh.run(120.0)

    assert must.served(mesh) == {"tiny": 1, "other": 1}


def test_a_last_host_that_leaves_on_purpose_is_not_missed() -> None:
    """Its models are wanted no more."""
    mesh, watch = a_pair()
    pretend(mesh, B, fills_gaps=True)

    mesh.leave("a")
    mesh.run(60.0)

    assert watch.lost == {}


def test_a_model_that_is_served_again_is_timed() -> None:
    """From the moment that everybody knew."""
    mesh, watch = a_pair()
    mesh.crash("a")
    mesh.run(60.0)

    mesh.restart("a")
    mesh.run(10.0)

    assert len(watch.counts.reserved_s) == 1
    assert watch.lost == {}


def test_what_a_host_that_is_back_was_not_told_to_serve_may_stay_cold() -> None:
    """Those who ask for it have it served again."""
    mesh = SimMesh(1, Weather())
    watch = ServingWatch(mesh, SimRequests(mesh, 1))
    mesh.start("a", [], ["tiny", "other"], serving=ServingPolicy(requested=("tiny",)), machine=Machine())
    mesh.start("b", ["a"], serving=ServingPolicy(fills_gaps=True), machine=Machine())
    mesh.run(20.0)
    mesh.crash("a")
    mesh.run(30.0)
    before = dict(watch.lost)

    pretend(mesh, A, requested=("other",), fills_gaps=True)
    mesh.restart("a")
    mesh.run(60.0)

    assert (before, watch.lost) == ({"tiny": A}, {})
    assert must.served(mesh) == {"other": 1}


def test_a_lost_model_that_has_to_be_fetched_is_timed_by_itself() -> None:
    """Nobody who is left has its file; a line's speed says nothing about who was slow to act."""
    mesh = SimMesh(1, Weather())
    watch = ServingWatch(mesh, SimRequests(mesh, 1))
    mesh.start("a", [], ["tiny"], serving=ServingPolicy(requested=("tiny",)), machine=Machine())
    fetching = ServingPolicy(fills_gaps=True, downloads=True)
    mesh.start("b", ["a"], [], serving=fetching, machine=Machine(download_bytes_per_s=4 * MIB))
    mesh.start("c", ["a"], [], serving=ServingPolicy(requested=("sim/tiny",)), machine=Machine(disk_bytes=0))
    mesh.run(20.0)

    mesh.crash("a")
    mesh.run(90.0)

    assert must.served(mesh) == {"tiny": 1}
    assert watch.counts.reserved_s == []
    assert len(watch.counts.refetched_s) == 1


def test_a_named_model_that_is_not_served_is_found() -> None:
    """As far as it fits."""
    mesh, _ = a_pair()
    must.check_explicit(mesh)

    pretend(mesh, B, requested=("tiny",))

    with pytest.raises(InvariantError, match="b was told to serve tiny"):
        must.check_explicit(mesh)


def test_a_model_that_comes_and_goes_is_counted() -> None:
    """Too often is an error, and so is anything where nothing happens."""
    mesh, watch = a_pair()
    node = mesh.nodes[B]
    before = watch.moves()

    for _ in range(3):
        watch(node, ev.Woke(), (do.StopEngine(model=TINY), do.StartEngine(plan=a_plan(mesh, GIB))))

    assert watch.counts.flaps == 3
    with pytest.raises(InvariantError, match="6 starts and stops without a reason"):
        must.check_calm(watch, before)
    with pytest.raises(InvariantError, match="flapping: 5 starts, 3 stops, 3 of one"):
        must.check_moves(watch, 2)


def test_a_healthy_mesh_passes_everything() -> None:
    """No check cries wolf."""
    mesh, watch = a_pair()
    before = watch.moves()

    mesh.run(60.0)

    must.check_calm(watch, before)
    must.check_explicit(mesh)
    must.check_moves(watch, 2)
    assert "model ready" in "\n".join(watch.story)
