"""How requests are routed, chosen at one node and seen at all: in one round, at once, apart, after a restart."""

import pytest

from meshllm.core import events as ev
from meshllm.core.effects import Answer
from meshllm.core.ids import NodeId
from meshllm.core.members.times import lan
from meshllm.core.routing_config import RoutingChoice, RoutingConfig, Strategy
from meshllm.testing.sim import SimMesh
from meshllm.testing.sim_report import a_mesh

ROUND_S = 1.0


def choose(mesh: SimMesh, name: str, **document: object) -> None:
    """Let somebody ask a node for a change."""
    mesh.post(NodeId(name), ev.RoutingChangeAsked(request_id="r", document=document))


def strategies(mesh: SimMesh) -> set[str]:
    """Return what counts, at any node that runs."""
    return {node.core.view.routing.effective.strategy for node in mesh.running()}


def a_world(nodes: int = 8) -> tuple[SimMesh, list[str]]:
    """Return a mesh that has one view."""
    mesh = a_mesh(nodes, 7, lan())
    assert mesh.run_while(lambda: not mesh.is_one_view(), 30.0) is not None
    return mesh, sorted(mesh.nodes)


@pytest.mark.parametrize("nodes", [8, 40])
def test_a_change_is_seen_everywhere_within_one_round(nodes: int) -> None:
    """Announcements that say something else are pushed at once."""
    mesh, names = a_world(nodes)

    choose(mesh, names[0], strategy="random")

    took_s = mesh.run_while(lambda: strategies(mesh) != {"random"}, ROUND_S)
    assert took_s is not None
    assert {node.core.view.routing.version for node in mesh.running()} == {1}


def test_two_changes_at_once_end_as_one() -> None:
    """Of one version, so the larger author's counts."""
    mesh, names = a_world()

    choose(mesh, names[0], strategy="random")
    choose(mesh, names[-1], strategy="round_robin")

    assert mesh.run_while(lambda: strategies(mesh) != {"round_robin"}, ROUND_S) is not None


def test_two_halves_that_chose_apart_agree_when_they_meet() -> None:
    """The half that chose more often has the higher version."""
    mesh, names = a_world()
    left, right = names[:4], names[4:]
    mesh.network.divide(left, right)
    choose(mesh, left[0], strategy="random")
    choose(mesh, left[1], max_retries=1, strategy="least_loaded")
    choose(mesh, right[-1], strategy="round_robin")
    mesh.run(20.0)
    choose(mesh, left[0], strategy="latency_based")
    mesh.run(5.0)
    assert strategies(mesh) == {"latency_based", "round_robin"}

    mesh.network.heal()

    assert mesh.run_while(lambda: strategies(mesh) != {"latency_based"}, 20.0) is not None
    assert len({node.core.view.routing for node in mesh.running()}) == 1


def test_a_choice_outlives_its_author_and_everybodys_restart() -> None:
    """Each node has it written down; a node's own choice stays there."""
    mesh, names = a_world(3)
    choose(mesh, names[2], strategy="random")
    mesh.run(ROUND_S)
    choose(mesh, names[1], strategy="least_loaded", scope="node")
    mesh.run(ROUND_S)

    for name in names:
        mesh.crash(name)
    mesh.restart(names[0])
    mesh.restart(names[1])
    mesh.run(ROUND_S)

    assert {mesh.nodes[NodeId(name)].config.kept.routing for name in names} == {
        RoutingChoice(config=RoutingConfig(strategy=Strategy.RANDOM), version=1, author=NodeId(names[2]))
    }
    assert [node.core.view.routing.effective.strategy for node in mesh.running()] == ["random", "least_loaded"]


def test_every_request_for_a_change_is_answered() -> None:
    """Also one that makes no sense, and one at a node that leaves."""
    mesh, names = a_world(2)
    core = mesh.nodes[NodeId(names[0])].core

    for document in ({"strategy": "x"}, {"version": 9}, {}):
        effects = core.handle(ev.RoutingChangeAsked(request_id="q", document=document), mesh.now_s + 1e7)

        assert [one.request_id for one in effects if isinstance(one, Answer)] == ["q"]
