"""Who shares a model's limits, and when only urgent requests come in."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from meshllm.core.announcement import Announcement, Role, ServedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.quota_config import QuotaRegister, Quotas
from meshllm.core.quotas.hosts import emergencies_of, hosts_of, is_crowd
from meshllm.core.standing import MemberState
from meshllm.core.view import Member, MeshView, Replica
from tests.core.builders import a_machine, a_spec, a_story

ME, B, C, GONE = NodeId("n1"), NodeId("b"), NodeId("c"), NodeId("g")
TINY, FREE = ModelId("tiny"), ModelId("free")


def a_view(**facts: object) -> MeshView:
    """Return the view of a node with a limited model and another one, each also at two other nodes."""
    view = a_story(a_spec(TINY), a_spec(FREE), min_unasked_bytes=10**12).core.view
    gone = Announcement(node=GONE, name="g", incarnation=1, version=1, role=Role.HOST, resources=None)
    hosts = {
        model: (
            Replica(node=B, name="b", served=ServedModel(model=model, digest="", state=ServingState.READY)),
            Replica(
                node=C, name="c", served=ServedModel(model=model, digest="", state=ServingState.READY), is_suspect=True
            ),
        )
        for model in (TINY, FREE)
    }
    return replace(
        view,
        members=MappingProxyType({GONE: Member(announcement=gone, state=MemberState.LEFT, since_s=0.0)}),
        replicas=MappingProxyType(hosts),
        quotas=QuotaRegister(configured=((TINY, Quotas(hourly_token_limit=5)),)),
        **facts,
    )


def test_the_hosts_of_a_limited_model_are_told_with_who_surely_lives() -> None:
    """Of other models nobody asks, and who left uses nothing more."""
    hosts = hosts_of(a_view(), ME)

    assert set(hosts) == {TINY}
    assert (hosts[TINY].me, dict(hosts[TINY].others), set(hosts[TINY].left)) == (ME, {B: True, C: False}, {GONE})
    assert not hosts[TINY].are_sure


@pytest.mark.parametrize(("free_bytes", "models"), [(4, set()), (3, set()), (2, {TINY})])
def test_a_machine_with_next_to_no_memory_left_is_an_emergency(free_bytes: int, models: set[ModelId]) -> None:
    """For what has quotas; a machine that was not measured is none."""
    machine = a_machine(memory_bytes=100, free_bytes=free_bytes)

    assert emergencies_of(a_view(resources=machine)) == models
    assert emergencies_of(a_view(resources=None)) == set()
    assert emergencies_of(a_view(resources=a_machine(memory_bytes=0))) == set()


def test_many_more_requests_than_places_are_a_crowd() -> None:
    """Ten for each."""
    assert not is_crowd(20, slots=2)
    assert is_crowd(21, slots=2)
