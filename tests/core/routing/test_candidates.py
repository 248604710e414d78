"""What a choice among hosts is told of them."""

from dataclasses import replace
from typing import Any

import pytest

from meshllm.core.announcement import Announcement, Role, ServedModel, ServingState
from meshllm.core.engines import EngineEndpoint
from meshllm.core.health import HealthChecks
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB
from meshllm.core.resources import Resources
from meshllm.core.routing.candidates import candidate_of, engines_of, hosts_of, mark_of
from meshllm.core.routing.routes import Local, Remote, Route
from meshllm.core.standing import MemberState
from meshllm.core.view import Member, MeshView, Replica
from tests.proxy.builders import NODE, TINY, a_model, a_view

FAR = NodeId("f" * 52)


def a_replica(**facts: Any) -> Replica:
    """Return the model at another node."""
    served = ServedModel(**({"model": TINY, "digest": "d", "state": ServingState.READY, "slots": 2} | facts))
    return Replica(node=FAR, name="far", served=served, rtt_s=0.02)


def a_member(version: int = 7, incarnation: int = 1) -> Member:
    """Return the other node."""
    said = Announcement(
        node=FAR, name="far", incarnation=incarnation, version=version, role=Role.HOST, resources=None
    )  # fmt: skip
    return Member(announcement=said, state=MemberState.ALIVE, since_s=0.0)


def a_mesh(replica: Replica, member: Member | None = None) -> MeshView:
    """Return a view of this node's engine and one of another."""
    members = {} if member is None else {FAR: member}
    return a_view(a_model(socket="/e", ready_since_s=3.0), replicas=(replica,), members=members)


def far(view: MeshView) -> Any:
    """Return the other node's engine as a candidate."""
    to = Remote(digest="d", slots=2, context_tokens=0, in_flight=5)
    return candidate_of(view, Route(model=TINY, node=FAR, target=to, reason="remote"))


def here(view: MeshView) -> Any:
    """Return this node's engine as a candidate."""
    to = Local(endpoint=EngineEndpoint(socket_path="/e"), slots=4, context_tokens=0)
    return candidate_of(view, Route(model=TINY, node=NODE, target=to, reason="local"))


def test_another_nodes_engine_is_what_that_node_said() -> None:
    """Load, health, distance."""
    candidate = far(a_mesh(a_replica(health="degraded"), a_member()))

    assert (candidate.node, candidate.model, candidate.slots, candidate.busy) == (FAR, TINY, 2, 5)
    assert (candidate.health, candidate.rtt_s, candidate.is_here, candidate.is_suspect) == (
        "degraded", 0.02, False, False,
    )  # fmt: skip


def test_a_suspected_node_is_a_suspected_candidate_and_an_unmeasured_one_is_not_near() -> None:
    """Nobody knows how far it is."""
    candidate = far(a_mesh(replace(a_replica(), is_suspect=True, rtt_s=None), a_member()))

    assert candidate.is_suspect
    assert candidate.rtt_s > 0.02


@pytest.mark.rows("RTE-4")
@pytest.mark.parametrize(("free_bytes", "pressure"), [(8 * GIB, 0.0), (3 * GIB, 0.0), (GIB, 0.9375)])
def test_a_machine_whose_memory_is_nearly_all_taken_is_loaded(free_bytes: int, pressure: float) -> None:
    """It swaps soon; below that, memory that is in use slows nobody."""
    resources = Resources(cores=4, memory_total_bytes=16 * GIB, memory_free_bytes=free_bytes)
    member = a_member()
    view = a_mesh(a_replica(), replace(member, announcement=replace(member.announcement, resources=resources)))

    assert far(view).pressure == pressure
    assert here(replace(view, resources=resources)).pressure == pressure
    assert here(view).pressure == far(a_mesh(a_replica(), a_member())).pressure == 0.0


def test_the_mark_changes_with_each_announcement_and_the_life_with_each_start_of_the_node() -> None:
    """The same version of another incarnation is another announcement."""
    seen = [far(a_mesh(a_replica(), a_member(version, life))) for version, life in ((7, 1), (8, 1), (7, 2))]

    assert len({candidate.mark for candidate in seen}) == 3
    assert [candidate.life for candidate in seen] == ["1", "1", "2"]
    assert mark_of(a_mesh(a_replica()), FAR) == 0
    assert far(a_mesh(a_replica())).mark != 0


@pytest.mark.parametrize("change", [{"ready_since_s": 4.0}, {"restarts": 1}])
def test_this_nodes_engine_begins_another_life_when_it_starts_anew(change: dict[str, Any]) -> None:
    """It has forgotten every prompt."""
    view = a_mesh(a_replica())
    again = replace(view, local={TINY: replace(view.local[TINY], **change)})

    assert here(view).is_here
    assert here(view).life != here(again).life


def test_this_nodes_engine_is_as_well_as_its_checks_say() -> None:
    """One that fails often is asked after the others."""
    view = a_mesh(a_replica())
    failing = replace(view, local={TINY: replace(view.local[TINY], checks=HealthChecks(error_rate=0.9))})

    assert (here(view).health, here(failing).health) == ("healthy", "degraded")


def test_engines_are_those_in_memory() -> None:
    """One that is loaded anew is none meanwhile: what was known of it is forgotten."""
    ready, loading = a_mesh(a_replica()), a_mesh(a_replica(state=ServingState.LOADING))
    asleep = replace(ready, local={TINY: replace(ready.local[TINY], endpoint=None)})

    assert engines_of(ready) == {(NODE, TINY), (FAR, TINY)}
    assert engines_of(loading) == {(NODE, TINY)}
    assert engines_of(asleep) == {(FAR, ModelId("tiny"))}


def test_the_hosts_of_a_model_are_those_that_are_ready_with_the_same_file() -> None:
    """This node first; a host of another file under the same name is none of them."""
    same = a_replica(digest="sha256:tiny", busy=2, queued=3)
    other, loading = replace(a_replica(), node=NodeId("g" * 52)), a_replica(state=ServingState.LOADING)

    both = hosts_of(a_view(a_model(socket="/e"), replicas=(same, other), members={FAR: a_member()}), TINY)
    alone = hosts_of(a_view(a_model(socket="/e"), replicas=(loading,)), TINY)
    elsewhere = hosts_of(a_view(replicas=(same,)), TINY)

    assert [(one.node, one.busy, one.is_here) for one in both] == [(NODE, 0, True), (FAR, 5, False)]
    assert both[1].mark == mark_of(a_mesh(same, a_member()), FAR)
    assert [one.node for one in alone] == [NODE]
    assert [one.node for one in elsewhere] == [FAR]
    assert hosts_of(a_view(), TINY) == ()
