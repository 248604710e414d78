"""Who may send a request here, for what, and how many."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.announcement import Announcement, Role
from meshllm.core.engines import EngineEndpoint, EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.names import NameIndex
from meshllm.core.rights import CLIENT_ONLY, OWN_MACHINE, Rights
from meshllm.core.routing.priorities import Priority
from meshllm.core.routing.tunnel_admission import Crowd, TunnelAsked, admit_tunnel
from meshllm.core.view import LocalModel, MeshView
from tests.core.builders import a_spec

TINY = ModelId("tiny")
ALONE = Crowd(in_flight=0, of_peer=0, admitted=66)


def a_view(state: EngineState = EngineState.READY, *, role: Role = Role.HOST, **facts: Any) -> MeshView:
    """Return the view of a node with one model."""
    endpoint = EngineEndpoint(socket_path="/e") if state in {EngineState.READY, EngineState.DRAINING} else None
    model = LocalModel(id=TINY, spec=a_spec("tiny"), state=state, wanted=True, endpoint=endpoint)
    me = Announcement(node=NodeId("a"), name="a", incarnation=1, version=1, role=role, resources=None)
    empty: MappingProxyType[Any, Any] = MappingProxyType({})
    return MeshView(
        epoch=1, at_s=0.0, me=me, members=empty, groups=empty, local=MappingProxyType({TINY: model}),
        names=NameIndex([TINY]), default_model=TINY, **facts,
    )  # fmt: skip


def asked(**facts: Any) -> TunnelAsked:
    """Return what a client asks for."""
    return TunnelAsked(**({"rights": CLIENT_ONLY, "model": TINY, "digest": "sha256:tiny"} | facts))


def code(view: MeshView, question: TunnelAsked, crowd: Crowd = ALONE) -> str | None:
    """Return the code of the denial, or None."""
    denial = admit_tunnel(view, question, crowd)
    return denial.code.value if denial is not None else None


@pytest.mark.parametrize("question", [asked(), asked(rights=OWN_MACHINE), asked(digest="")])
def test_whoever_may_infer_comes_in(question: TunnelAsked) -> None:
    """For the file that is meant, or any of the name."""
    assert code(a_view(), question) is None


@pytest.mark.parametrize("rights", [Rights.NONE, Rights.HOST | Rights.RPC, Rights.ADMIN])
def test_without_the_right_to_infer_nothing_comes_in(rights: Rights) -> None:
    """And nothing is told of what is here."""
    assert code(a_view(), asked(rights=rights, model="other")) == "not_admitted"


@pytest.mark.parametrize(
    ("view", "question", "expected"),
    [
        (a_view(leaving=True), asked(), "draining"),
        (a_view(role=Role.CLIENT), asked(), "not_hosting"),
        (a_view(), asked(model=ModelId("other")), "not_hosting"),
        (a_view(), asked(digest="sha256:other"), "not_hosting"),
        (a_view(EngineState.DRAINING), asked(), "draining"),
        (a_view(EngineState.STOPPING), asked(), "draining"),
        (a_view(EngineState.STARTING), asked(), "loading"),
        (a_view(EngineState.BACKING_OFF), asked(), "loading"),
        (a_view(EngineState.STOPPED), asked(), "not_hosting"),
        (a_view(EngineState.FAILED), asked(), "not_hosting"),
    ],
)
def test_what_is_not_ready_here_is_refused_with_how_far_it_is(
    view: MeshView, question: TunnelAsked, expected: str
) -> None:
    """L1: the head names the model, and a far end never serves another one."""
    assert code(view, question) == expected


@pytest.mark.parametrize(
    ("crowd", "expected"),
    [
        (Crowd(in_flight=66, of_peer=0, admitted=66), "busy"),
        (Crowd(in_flight=65, of_peer=0, admitted=66), None),
        (Crowd(in_flight=50, of_peer=50, admitted=66), None),
        (Crowd(in_flight=60, of_peer=30, admitted=66), "busy"),
        (Crowd(in_flight=60, of_peer=10, admitted=66), None),
        (replace(ALONE, tunnels=limits.FAR_TUNNELS_TOTAL), "busy"),
        (replace(ALONE, tunnels_of_peer=limits.FAR_TUNNELS_PER_PEER), "busy"),
    ],
)
def test_room_is_shared(crowd: Crowd, expected: str | None) -> None:
    """A peer alone takes most of the room; the more crowded it is, the less one peer may have of it."""
    assert code(a_view(), asked(), crowd) == expected


@pytest.mark.parametrize(
    ("queued", "wait_s", "expected"),
    [
        (3, 1000.0, None),
        (4, 29.0, None),
        (4, 31.0, "busy"),
        (60, 29.0, None),
        (60, 0.0, None),
        (4, float("inf"), "busy"),
    ],
)
def test_a_queue_that_hardly_moves_is_not_made_longer(queued: int, wait_s: float, expected: str | None) -> None:
    """Two for each slot may always wait; more only if their turn comes within half a minute."""
    crowd = Crowd(in_flight=2 + queued, of_peer=0, admitted=66, slots=2, wait_s=wait_s)

    assert code(a_view(), asked(), crowd) == expected


def test_one_peer_cannot_keep_the_next_one_out() -> None:
    """However many it sends."""
    of_greedy = 0
    while code(a_view(), asked(), Crowd(in_flight=of_greedy, of_peer=of_greedy, admitted=66)) is None:
        of_greedy += 1

    assert 40 < of_greedy < 60
    assert code(a_view(), asked(), Crowd(in_flight=of_greedy, of_peer=0, admitted=66)) is None


def test_low_ones_are_turned_away_first_and_high_ones_last() -> None:
    """A peer's batch work does not fill the queue, and what is urgent still finds a place in a full one."""

    def codes(in_flight: int) -> list[str | None]:
        crowd = Crowd(in_flight=in_flight, of_peer=0, admitted=66, slots=2)
        return [code(a_view(), asked(priority=priority), crowd) for priority in Priority]

    assert codes(3) == [None, None, None]
    assert codes(4) == ["busy", None, None]
    assert codes(66) == ["busy", "busy", None]
    assert codes(74) == ["busy", "busy", "busy"]
