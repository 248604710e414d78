"""Models that no node holds alone, among real cores: begun once, lost with a member, planned anew, settled."""

import random
from dataclasses import replace

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import ServingState
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import ASSIGN_INTERVAL_S, FULL_MESH_MEMBERS, GIB, NUMBERS_INTERVAL_S, UNCLAIMED_WAIT_S
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.split_limits import SPLIT_LOOK_S, SPLIT_REACH_S, SPLIT_SETTLE_S
from meshllm.testing.sim import SimMesh
from meshllm.testing.sim_models import Machine
from meshllm.testing.sim_network import Weather

BIG = ModelId("big")
SIZE = 15 * GIB
MACHINE = Machine(memory_bytes=16 * GIB, load_bytes_per_s=4 * GIB, rpc="7.0.0 b1")
SERVES = ServingPolicy(requested=("big",))
SERVED_S = 60.0
CALM_S = 60.0
"""Longer than a death takes to be known, and than a loan is remembered that its host forgot."""


def a_mesh(seed: int, *names: str) -> SimMesh:
    """Return a world in which the first two nodes have a model that takes two, all may lend, and one wants it."""
    mesh = SimMesh(seed, Weather(delay_s=0.002, jitter_s=0.001))
    mesh.library.add("big", SIZE)
    for number, name in enumerate(names):
        mesh.start(
            name, [] if number == 0 else [names[0]], ("big",) if number < 2 else (), machine=MACHINE,
            serving=SERVES if number == 0 else ServingPolicy(),
        )  # fmt: skip
        mesh.run(0.5)
    return mesh


def hosts(mesh: SimMesh) -> list[str]:
    """Return the running nodes that say that they serve the model."""
    return [
        node.node for node in mesh.running()
        if any(one.model == BIG and one.state is ServingState.READY for one in node.core.view.me.serving)
    ]  # fmt: skip


def check_settled(mesh: SimMesh, seed: int) -> None:
    """Check that every engine has its workers, every loan an engine, and no machine more than it has."""
    engines = {node.node: engine for node in mesh.running() if node.rig and (engine := node.rig.engines.get(BIG))}
    lent = {}
    for node in mesh.running():
        assert node.rig is not None
        host_bytes, _ = node.rig.promised_bytes()
        assert host_bytes <= node.machine.memory_bytes * 0.9 + 1, (seed, node.node)
        for server in node.rig.lending.servers.values():
            lent[node.node] = server
    for worker, server in lent.items():
        split = engines[server.host].plan.split
        assert split is not None, (seed, worker)
        assert (split.epoch, worker in {part.node for part in split.workers}) == (server.epoch, True), (seed, worker)
    for host, engine in engines.items():
        split = engine.plan.split
        assert split is not None, (seed, host)
        assert {part.node for part in split.workers} <= lent.keys(), (seed, host)


def test_one_host_shares_it_with_as_few_as_suffice() -> None:
    """Of five, two; the others lend nothing."""
    mesh = a_mesh(1, "a", "b", "c", "d", "e")
    mesh.run_while(lambda: not hosts(mesh), SERVED_S)
    mesh.run(CALM_S)

    assert len(hosts(mesh)) == 1
    check_settled(mesh, 1)
    assert sum(len(node.rig.lending.servers) for node in mesh.running() if node.rig is not None) == 1


@pytest.mark.parametrize("seed", [*range(12), 17, 44])
def test_whatever_is_lost_it_is_shared_again_and_nothing_is_left_behind(seed: int) -> None:
    """Workers and hosts die or stand still, servers are killed, engines crash, links break; then it is quiet."""
    rng = random.Random(seed)
    names = ("a", "b", "c", "d", "e")
    mesh = a_mesh(seed, *names)
    mesh.run_while(lambda: not hosts(mesh), SERVED_S)
    for _ in range(4):
        misfortune(mesh, rng, names)
        mesh.run(rng.uniform(0.1, 25.0))
    mesh.network.heal()
    for name in names:
        bring_back(mesh, name)
    mesh.run(CALM_S)
    mesh.run_while(lambda: not hosts(mesh), SERVED_S)
    mesh.run(CALM_S)

    assert len(hosts(mesh)) == 1, (seed, hosts(mesh))
    check_settled(mesh, seed)


def misfortune(mesh: SimMesh, rng: random.Random, names: tuple[str, ...]) -> None:
    """Let one thing go wrong at a node that has a part in it; at most two nodes are down at a time."""
    running = [node for node in mesh.running() if node.rig is not None]
    lending = [node for node in running if node.rig and node.rig.lending.servers]
    hosting = [node for node in running if node.rig and BIG in node.rig.engines]
    down = [name for name in names if not mesh.nodes[NodeId(name)].is_running]
    if len(down) >= 2:
        bring_back(mesh, rng.choice(down))
        return
    node = rng.choice([*lending, *hosting, rng.choice(running)])
    match rng.choice(("crash", "server", "engine", "stop", "cut")):
        case "crash":
            mesh.crash(node.node)
        case "stop":
            mesh.suspend(node.node)
        case "cut":
            mesh.network.heal()
            mesh.network.divide([node.node], [NodeId(name) for name in names if name != node.node])
        case "server" if node.rig is not None:
            node.rig.lending.kill(BIG)
        case _ if node.rig is not None:
            node.rig.crash_engine(BIG)
        case _:
            pass


def bring_back(mesh: SimMesh, name: str) -> None:
    """Let a node go on that stands still, or start it again."""
    node = mesh.nodes[NodeId(name)]
    if node.is_asleep:
        mesh.wake(name)
    elif not node.is_running:
        mesh.restart(name)


def test_both_halves_of_a_divided_mesh_share_it_and_one_goes_on_when_it_heals() -> None:
    """The later epoch, or the host that the election prefers."""
    mesh = a_mesh(3, "a", "c", "b", "d")
    mesh.run_while(lambda: not hosts(mesh), SERVED_S)
    mesh.network.divide([NodeId("a"), NodeId("b")], [NodeId("c"), NodeId("d")])
    mesh.run(120.0)
    mesh.network.heal()
    mesh.run(CALM_S * 2)

    assert len(hosts(mesh)) == 1
    check_settled(mesh, 3)
    assert [node.core.view.local[BIG].state for node in mesh.running() if node.node == hosts(mesh)[0]] == [
        EngineState.READY
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_who_asks_for_what_nobody_can_share_is_told_so_wherever_they_ask(seed: int) -> None:
    """The host alone knows the way to those who would lend; its word is everywhere before anybody has waited long."""
    rng = random.Random(seed)
    mesh = SimMesh(seed, Weather(delay_s=0.05, jitter_s=0.001))  # too far to share anything
    mesh.library.add("big", SIZE)
    names = ("a", "b", "c", "d")
    for number, name in enumerate(names):
        files = ("big",) if number == 0 else ()
        mesh.start(name, [] if number == 0 else ["a"], files, machine=MACHINE, serving=ServingPolicy())
        mesh.run(0.5)
    mesh.run(CALM_S)
    asked = mesh.nodes[NodeId(rng.choice(names))]
    mesh.post(asked.node, ev.ModelWanted(model=BIG))

    waited_s = mesh.run_while(lambda: "no split" not in asked.core.view.cold[BIG].lack, UNCLAIMED_WAIT_S)
    assert waited_s is not None, seed
    assert waited_s < ASSIGN_INTERVAL_S * 2, (seed, waited_s)
    mesh.run(NUMBERS_INTERVAL_S * 2)
    assert all("no split" in node.core.view.cold[BIG].lack for node in mesh.running()), seed
    assert not any(node.core.view.me.waiting for node in mesh.running()), seed
    check_settled(mesh, seed)


@pytest.mark.slow
def test_in_a_large_mesh_the_host_finds_the_one_that_lends() -> None:
    """Nobody is connected to all; who could lend is dialled, and stays connected while it does."""
    mesh = SimMesh(1, Weather(delay_s=0.002, jitter_s=0.001))
    mesh.library.add("big", SIZE)
    small = replace(MACHINE, rpc="")
    names = [f"n{number:02}" for number in range(FULL_MESH_MEMBERS + 8)]
    for number, name in enumerate(names):
        able = number in (0, len(names) - 1)
        files = ("big",) if number == 0 else ()
        mesh.start(
            name, [] if number == 0 else ["n01"] if number > 1 else ["n00"], files, machine=MACHINE if able else small,
            serving=SERVES if number == 0 else ServingPolicy(),
        )  # fmt: skip
        mesh.run(0.2)
    waited_s = mesh.run_while(lambda: not hosts(mesh), SERVED_S)
    mesh.run(SPLIT_REACH_S + 10.0)

    assert waited_s is not None
    assert waited_s < SPLIT_SETTLE_S + SPLIT_LOOK_S + SIZE / MACHINE.load_bytes_per_s + 5.0, waited_s
    assert hosts(mesh) == ["n00"]
    (host,) = [node for node in mesh.running() if node.node == "n00"]
    assert host.core.view.members[NodeId(names[-1])].connected
    check_settled(mesh, 1)
