"""Who serves what, among real cores that hear of one another late: joiners, deaths, requests."""

import functools

import pytest

from meshllm.core import events as ev
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB
from meshllm.core.members.times import wan
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.standing import MemberState
from meshllm.core.view import Reason
from meshllm.testing.sim import SimMesh
from meshllm.testing.sim_models import Machine
from meshllm.testing.sim_network import Weather

FILLS = ServingPolicy(fills_gaps=True)
MODELS = ("x", "y", "z")
JOINERS = ("b", "c", "d")


def a_mesh(seed: int, models: tuple[str, ...] = MODELS) -> SimMesh:
    """Return a world with a founder `a` that has no models."""
    mesh = SimMesh(seed, Weather(delay_s=0.02, jitter_s=0.02), wan())
    for model in models:
        mesh.library.add(model, GIB)
    mesh.start("a", machine=Machine(memory_bytes=8 * GIB), serving=FILLS)
    mesh.run(1.0)
    return mesh


def serving(mesh: SimMesh, name: str) -> list[str]:
    """Return the models that a node says it serves or is about to."""
    return [one.model for one in mesh.nodes[NodeId(name)].core.view.me.serving]


def check_three_joiners(seed: int) -> None:
    """Let three nodes with the same three models join at once: each takes another one."""
    mesh = a_mesh(seed)
    for name in JOINERS:
        mesh.later(
            mesh.rng.uniform(0, 0.2),
            functools.partial(mesh.start, name, ["a"], MODELS, machine=Machine(memory_bytes=8 * GIB), serving=FILLS),
        )

    mesh.run(30.0)

    taken = {name: serving(mesh, name) for name in JOINERS}
    assert sorted(model for models in taken.values() for model in models) == list(MODELS), (seed, taken)
    assert [len(models) for models in taken.values()] == [1, 1, 1], (seed, taken)


@pytest.mark.rows("T20", "MSH-10")
def test_three_nodes_that_join_at_once_take_three_different_models() -> None:
    """Whatever they know of one another when they choose."""
    for seed in range(10):
        check_three_joiners(seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_joiners_over_many_seeds() -> None:
    """The same, sixty times."""
    for seed in range(10, 70):
        check_three_joiners(seed)


def test_a_model_whose_last_host_dies_is_served_by_whoever_has_it() -> None:
    """Within seconds of the death being known."""
    mesh = a_mesh(1)
    host = Machine(memory_bytes=8 * GIB)
    mesh.start("b", ["a"], ("x",), machine=host, serving=ServingPolicy(requested=("x",)))
    mesh.start("c", ["a"], ("x", "y"), machine=host, serving=ServingPolicy(requested=("y",), fills_gaps=True))
    mesh.run(30.0)
    before = serving(mesh, "c")

    mesh.crash("b")
    mesh.run_while(lambda: mesh.nodes[NodeId("c")].state_of(NodeId("b")) is not MemberState.DEAD, 30.0)
    took_s = mesh.run_while(lambda: "x" not in serving(mesh, "c"), 20.0)

    assert before == ["y"]
    assert took_s is not None
    assert took_s < 2.0


def test_a_request_at_a_node_without_models_loads_one_elsewhere_and_only_once() -> None:
    """Four nodes have it; nobody serves it unasked."""
    mesh = a_mesh(2, ("x",))
    shy = ServingPolicy(fills_gaps=True, min_unasked_bytes=9 * GIB)
    for name in ("b", "c", "d", "e"):
        mesh.start(name, ["a"], ("x",), machine=Machine(memory_bytes=8 * GIB), serving=shy)
    mesh.run(20.0)
    before = [serving(mesh, name) for name in ("b", "c", "d", "e")]

    mesh.post(NodeId("a"), ev.ModelWanted(model=ModelId("x")))
    took_s = mesh.run_while(lambda: not mesh.nodes[NodeId("a")].core.view.replicas.get(ModelId("x")), 5.0)
    mesh.run(30.0)

    hosts = [name for name in ("b", "c", "d", "e") if serving(mesh, name)]
    assert before == [[], [], [], []]
    assert took_s is not None
    assert took_s < 1.0
    assert len(hosts) == 1
    local = mesh.nodes[NodeId(hosts[0])].core.view.local[ModelId("x")]
    assert local.reason is Reason.REQUESTED_BY_REQUEST
