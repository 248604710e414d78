"""Requests find their way, wait, fail over, and end once."""

import pytest

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.testing import sim_requests
from meshllm.testing.sim import SimMesh
from meshllm.testing.sim_models import USUAL_MACHINE, Machine
from meshllm.testing.sim_network import Weather
from meshllm.testing.sim_requests import Pattern, SimRequests


def a_mesh(*, hosts: tuple[str, ...] = ("a", "b"), load_wait_s: float = 60.0) -> tuple[SimMesh, SimRequests]:
    """Return three nodes of which some serve the tiny model, and their requests."""
    mesh = SimMesh(1, Weather())
    requests = SimRequests(mesh, 1, load_wait_s)
    serving = ServingPolicy(requested=("tiny",))
    for name in ("a", "b", "c"):
        seeds = [] if name == "a" else ["a"]
        if name in hosts:
            mesh.start(name, seeds, ["tiny"], serving=serving)
        else:
            mesh.start(name, seeds, machine=USUAL_MACHINE)
    mesh.run(5.0)
    return mesh, requests


def test_a_request_is_answered_where_it_came_in() -> None:
    """The own engine comes first."""
    mesh, requests = a_mesh()

    request = requests.ask("tiny", "a")
    mesh.run(5.0)

    assert (request.end, request.hosts, request.begun_s, request.ended_s) == ("complete", ["a"], 5.25, 6.0)


def test_a_request_goes_to_another_node_through_a_tunnel() -> None:
    """And is told to both cores as traffic."""
    mesh, requests = a_mesh(hosts=("a",))

    request = requests.ask("tiny", "c")
    mesh.run(5.0)

    assert (request.end, request.hosts) == ("complete", ["a"])
    assert mesh.nodes[NodeId("a")].core.view.local[ModelId("tiny")].requests == 1


def test_a_dead_host_is_passed_over_before_the_first_byte() -> None:
    """The next way leads to an answer."""
    mesh, requests = a_mesh()
    request = requests.ask("tiny", "c", 8.0)
    first = NodeId(request.hosts[0])
    mesh.run(0.5)

    mesh.crash(first)
    mesh.run(60.0)

    assert request.end == "complete"
    assert len(request.hosts) == 2


def test_a_stream_that_has_begun_breaks_with_its_host() -> None:
    """It is not sent anywhere else."""
    mesh, requests = a_mesh()
    request = requests.ask("tiny", "c", 8.0)
    mesh.run(3.0)

    mesh.crash(request.hosts[0])
    mesh.run(60.0)

    assert (request.end, len(request.hosts)) == ("stream_lost", 1)


def test_a_request_ends_with_the_node_that_it_came_in_at() -> None:
    """Its client's connection is gone; whether it waits or is computed somewhere."""
    mesh, requests = a_mesh(hosts=("a",))
    computed = requests.ask("tiny", "c", 8.0)
    mesh.run(1.0)

    mesh.crash("c")
    mesh.run(60.0)

    assert computed.end == "client_gone"
    assert requests.open == set()


def test_a_request_waits_for_a_model_that_loads() -> None:
    """Until it is ready, or until its patience ends."""
    mesh = SimMesh(1, Weather())
    requests = SimRequests(mesh, 1, load_wait_s=10.0)
    serving = ServingPolicy(requested=("tiny", "big"))
    mesh.library.add("big", 100 * 2**30)
    mesh.library.add("tiny", 400 * 2**20)
    mesh.start("a", [], ["tiny", "big"], serving=serving, machine=Machine(memory_bytes=2**40))

    waited, gave_up = requests.ask("tiny", "a"), requests.ask("big", "a")
    mesh.run(60.0)

    assert (waited.end, waited.begun_s) == ("complete", 4.25)
    assert gave_up.end == "model_loading"
    assert requests.waits_s == [4.25]


def test_an_unknown_name_is_refused() -> None:
    """With the code that the front door would give."""
    _, requests = a_mesh()

    requests.ask("nobody", "a")

    assert dict(requests.ends) == {"model_not_found": 1}


def test_an_engine_that_is_lost_sends_requests_on() -> None:
    """Before the first byte; its host lives and has it again in a moment."""
    mesh, requests = a_mesh()
    request = requests.ask("tiny", "c", 8.0)
    mesh.run(0.5)
    rig = mesh.nodes[request.hosts[0]].rig
    assert rig is not None

    rig.crash_engine(ModelId("tiny"))
    mesh.run(60.0)

    assert request.end == "complete"
    assert len(set(request.hosts)) == 2


def test_a_host_that_does_not_have_the_model_any_more_refuses() -> None:
    """Views are always a little old; the next way is taken at once."""
    mesh, requests = a_mesh()
    request = requests.ask("tiny", "c")
    host = mesh.nodes[request.hosts[0]]
    assert host.rig is not None

    host.rig.crash_engine(ModelId("tiny"))  # while the tunnel is being opened
    mesh.run(60.0)

    assert (request.end, len(set(request.hosts))) == ("complete", 2)


def test_arrivals_follow_their_seed() -> None:
    """The heat moves, and every request ends."""
    ends = []
    left = set()
    for _ in range(2):
        mesh, requests = a_mesh()
        requests.follow(Pattern(per_s=5.0, models=("tiny", "none"), move_s=20.0))
        mesh.run(60.0)
        requests.follow(None)
        mesh.run(60.0)
        ends.append(dict(requests.ends))
        left |= requests.open

    assert ends[0] == ends[1]
    assert 200 < sum(ends[0].values()) < 400
    assert ends[0].keys() == {"complete", "model_not_found"}
    assert left == set()


def test_a_request_that_ends_twice_is_a_mistake() -> None:
    """I5, and I6 for one that goes on after its first byte."""
    mesh, requests = a_mesh()
    request = requests.ask("tiny", "a")
    mesh.run(5.0)

    with pytest.raises(AssertionError, match="I5"):
        requests._end(request, sim_requests.COMPLETE)
    with pytest.raises(AssertionError, match="I6"):
        requests._pursue(request)
