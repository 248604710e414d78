"""Who has a model, and how it is there."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import DiskModel
from meshllm.core.health import HealthState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.hosts import Host, best_health, best_status, hosts_of
from meshllm.core.routing.replicas import replicas_of
from meshllm.core.standing import MemberState
from meshllm.core.view import Member, MeshView
from tests.core.builders import a_member, a_spec, a_story, ready

TINY = ModelId("tiny")


def a_view(*members: Member, **story: object) -> MeshView:
    """Return the view of a node that serves `tiny` and knows these others."""
    told = a_story(a_spec("tiny"), requested=("tiny",), **story)
    told.tell(ready("tiny"), ev.TrafficMeasured(finished=((TINY, 3),)))
    view = told.core.view
    known = {**view.members, **{member.announcement.node: member for member in members}}
    return replace(view, members=MappingProxyType(known), replicas=replicas_of(known.values(), view.me.node))


def with_disk(member: Member, model: str) -> Member:
    """Return a member that has a file and does not serve it."""
    stored = DiskModel(model=ModelId(model), digest="sha256:disk", size_bytes=9)
    return replace(member, announcement=replace(member.announcement, models_on_disk=(stored,), uses=(("tiny", 4),)))


@pytest.mark.rows("LST-8", "HLT-5")
def test_hosts_are_this_node_then_those_that_serve_or_have_the_file() -> None:
    """The dead have nothing any more."""
    view = a_view(
        a_member("c", models=("tiny",), last_heard_s=90.0), with_disk(a_member("b"), "tiny"),
        with_disk(a_member("d", state=MemberState.DEAD), "tiny"), a_member("e", models=("other",)),
    )  # fmt: skip

    found = hosts_of(view, TINY)

    assert [(host.name, host.status, host.health_status, host.digest, host.slots) for host in found] == [
        ("a", "loaded", "healthy", "sha256:tiny", 4), ("b", "unloaded", "unknown", "sha256:disk", 0),
        ("c", "loaded", "healthy", "sha256:tiny", 4),
    ]  # fmt: skip
    assert [host.checked_s for host in found] == [100.0, None, 90.0]
    assert [host.checks is not None for host in found] == [True, False, False]
    assert hosts_of(view, ModelId("nothing")) == ()


def test_a_model_is_as_well_and_as_far_as_on_its_best_host() -> None:
    """One healthy host is enough for whoever asks."""
    states = [HealthState.UNHEALTHY, HealthState.UNKNOWN, HealthState.LOADING, HealthState.DEGRADED]
    hosts = [
        Host(node_id=NodeId("a"), name="a", status=status, health_status=HealthState.UNKNOWN, digest=None)
        for status in ("unloaded", "reloading")
    ]

    assert best_health([]) is HealthState.UNKNOWN
    assert [best_health(states[: count + 1]) for count in range(4)] == states
    assert (best_status(hosts), best_status([])) == ("reloading", "unloaded")
