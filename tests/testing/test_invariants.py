"""The checks find what they are for."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from meshllm.core import events as ev
from meshllm.core.ids import ConnectionId, NodeId
from meshllm.core.standing import Evidence
from meshllm.testing import invariants
from meshllm.testing.invariants import InvariantError, Watch
from meshllm.testing.sim import SimMesh
from tests.testing.test_sim import a_trio

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def members_of(mesh: SimMesh, node: NodeId):
    """Return the insides of a node, to break them."""
    return mesh.nodes[node].core._members


def test_a_verdict_out_of_nowhere_is_found() -> None:
    """I2: somebody is buried without having been asked."""
    mesh = a_trio()
    Watch(mesh)
    mesh.run(10.0)
    table = members_of(mesh, A).table

    table.judge(table.entries[B], Evidence.CONFIRM_FAILED, 0.0)

    with pytest.raises(InvariantError, match="I2"):
        mesh.post(A, ev.PathFailed(peer=NodeId("x"), reason=""))


def test_a_honest_verdict_passes() -> None:
    """And is counted, with how long it took."""
    mesh = a_trio()
    watch = Watch(mesh)
    mesh.run(10.0)

    mesh.crash("b")
    watch.gone("b")
    mesh.run(30.0)

    assert (watch.counts.deaths, watch.counts.false_deaths) == (2, 0)
    assert all(5.0 < took_s < 16.0 for took_s in watch.counts.detections_s)


def test_a_route_to_nowhere_is_found() -> None:
    """I1: a model that its owner does not announce."""
    mesh = a_trio()
    Watch(mesh)
    picture = mesh.nodes[B].core._picture
    replicas = picture.view.replicas
    picture.view = replace(picture.view, members=MappingProxyType({B: picture.view.members[B]}))

    assert replicas
    with pytest.raises(InvariantError, match="I1"):
        mesh.post(B, ev.PathFailed(peer=NodeId("x"), reason=""))


def test_views_that_differ_are_found_and_told_in_words() -> None:
    """I3."""
    mesh = a_trio()
    table = members_of(mesh, A).table
    table.judge(table.entries[B], Evidence.CONFIRM_FAILED, 0.0)
    mesh.post(A, ev.LoopLagged(lag_s=0.0))

    with pytest.raises(InvariantError, match=r"I3: .*a thinks b dead"):
        invariants.check_one_view(mesh, 0.0)
    with pytest.raises(InvariantError, match=r"I3: .*a thinks b dead"):
        invariants.check_news_arrives(mesh, 0.0)


def test_news_arrives_in_a_moment_and_not_at_once() -> None:
    """I3, where others may go on talking."""
    mesh = a_trio()
    node = mesh.nodes[A]
    node.core._own.renew(replace(node.core.view.me, name="renamed"), node.clock_s)
    node.core._members.say()
    mesh.post(A, ev.LoopLagged(lag_s=0.0))

    with pytest.raises(InvariantError, match="I3: news is not everywhere"):
        invariants.check_news_arrives(mesh, 0.0)
    assert invariants.check_news_arrives(mesh, 20.0) > 0.0


def test_a_revoked_node_that_is_still_there_is_found() -> None:
    """I7."""
    mesh = a_trio()
    mesh.revoked.add(B)

    with pytest.raises(InvariantError, match="I7"):
        invariants.check_revoked(mesh)


def test_a_second_connection_is_found() -> None:
    """I8."""
    mesh = a_trio()
    ends = mesh.transport.ends[A][B]
    ends.append(ends[0])

    with pytest.raises(InvariantError, match="I8"):
        invariants.check_leaks(mesh)


def test_a_connection_that_its_node_does_not_know_is_found() -> None:
    """I8."""
    mesh = a_trio()
    members_of(mesh, A).circle.unlink(B)
    mesh.post(A, ev.PeerLost(peer=B, connection=ConnectionId(0), code=""))

    with pytest.raises(InvariantError, match="I8"):
        invariants.check_leaks(mesh)


def test_another_host_for_the_same_view_is_found() -> None:
    """I9."""
    mesh = a_trio()
    picture = mesh.nodes[B].core._picture
    (key, group), *_ = picture.view.groups.items()
    picture.view = replace(picture.view, groups=MappingProxyType({key: replace(group, host=C)}))

    with pytest.raises(InvariantError, match="I9"):
        invariants.check_elections(mesh)


def test_a_queue_beyond_its_limit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """I10."""
    mesh = a_trio()
    monkeypatch.setattr("meshllm.core.members.members.MEMBERS", 2)

    with pytest.raises(InvariantError, match=r"I10: .* members"):
        invariants.check_sizes(mesh)


def test_a_healthy_mesh_passes_everything() -> None:
    """No check cries wolf."""
    mesh = a_trio()

    invariants.check_one_view(mesh)
    invariants.check_news_arrives(mesh)
    invariants.check_quiet(mesh)
