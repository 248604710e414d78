"""A whole mesh in one process."""

from meshllm.core.ids import NodeId
from meshllm.core.standing import MemberState
from meshllm.testing.sim import SimMesh
from meshllm.testing.sim_network import Weather


def a_trio(seed: int = 1, **weather: float) -> SimMesh:
    """Return three nodes that know one another."""
    mesh = SimMesh(seed, Weather(**weather))
    mesh.start("a", models=["tiny"])
    mesh.start("b", ["a"])
    mesh.start("c", ["a"])
    mesh.run(5.0)
    assert mesh.is_one_view()
    return mesh


def test_the_same_seed_gives_the_same_life() -> None:
    """A failure that was seen once can be looked at."""
    runs = []
    for seed in (7, 7, 8):
        mesh = a_trio(seed, loss=0.2, jitter_s=0.01)
        mesh.crash("b")
        mesh.run(60.0)
        runs.append((mesh.events, [node.sent_bytes for node in mesh.nodes.values()]))

    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_clocks_of_nodes_have_nothing_in_common() -> None:
    """No decision may compare two of them."""
    mesh = a_trio()

    assert len({node.clock_ahead_s for node in mesh.nodes.values()}) == 3


def test_a_crashed_node_hears_nothing_and_comes_back_with_a_higher_incarnation() -> None:
    """With its roster, and without what it knew."""
    mesh = a_trio()
    mesh.crash("b")
    before = mesh.nodes[NodeId("b")].events
    mesh.run(30.0)

    node = mesh.restart("b")
    alone = len(node.core.view.members)
    took_s = mesh.run_while(lambda: not mesh.is_one_view(), 10.0)

    assert (node.events - before, alone) != (0, 3)
    assert alone == 1
    assert node.core.view.me.incarnation == 2
    assert took_s is not None


def test_a_sleeping_node_does_nothing_until_it_wakes() -> None:
    """Its timers are late then."""
    mesh = a_trio()
    mesh.suspend("b")
    before = mesh.nodes[NodeId("b")].events

    mesh.run(60.0)
    asleep = mesh.nodes[NodeId("b")].events - before
    mesh.wake("b")
    took_s = mesh.run_while(lambda: not mesh.is_one_view(), 10.0)

    assert asleep == 0
    assert took_s is not None


def test_a_node_that_leaves_ends_and_takes_its_models_along() -> None:
    """Its engine is drained and stopped first."""
    mesh = a_trio()
    served = dict(mesh.nodes[NodeId("b")].core.view.replicas)

    mesh.leave("a")
    mesh.run(1.0)

    assert list(served) == ["tiny"]
    assert mesh.nodes[NodeId("a")].exit_code == 0
    assert not mesh.nodes[NodeId("a")].is_up
    assert dict(mesh.nodes[NodeId("b")].core.view.replicas) == {}
    assert mesh.nodes[NodeId("b")].state_of(NodeId("a")) is MemberState.LEFT


def test_running_while_something_holds_has_a_limit() -> None:
    """A condition that never ceases ends the wait."""
    mesh = a_trio()

    assert mesh.run_while(lambda: True, 1.0) is None
    assert mesh.run_while(lambda: False, 1.0) == 0.0
