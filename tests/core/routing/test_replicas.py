"""What other members serve, in order."""

import pytest

from meshllm.core.announcement import Announcement, Role, ServedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import CLIENT_ONLY, GUEST, Rights
from meshllm.core.routing.replicas import digests, in_order, of_digest, pinned, replicas_of
from meshllm.core.standing import MemberState
from meshllm.core.view import Member, Replica

ME = NodeId("me")


def a_served(model: str = "tiny", *, digest: str = "sha256:1", busy: int = 0, **fields: object) -> ServedModel:
    """Return a model that some node serves."""
    said = {"state": ServingState.READY, "slots": 4, "context_tokens": 4096, **fields}
    return ServedModel(model=ModelId(model), digest=digest, busy=busy, **said)


def a_member(
    node: str,
    *served: ServedModel,
    state: MemberState = MemberState.ALIVE,
    rights: Rights = GUEST,
    rtt_s: float | None = 0.001,
) -> Member:
    """Return another node as membership sees it."""
    said = Announcement(
        node=NodeId(node), name=node, incarnation=1, version=1, role=Role.HOST, resources=None, rights=rights,
        serving=served,
    )  # fmt: skip
    return Member(announcement=said, state=state, since_s=0.0, rtt_s=rtt_s)


def a_replica(node: str, *, is_suspect: bool = False, rtt_s: float | None = 0.001, **served: object) -> Replica:
    """Return a model at another node."""
    return Replica(node=NodeId(node), name=node, served=a_served(**served), is_suspect=is_suspect, rtt_s=rtt_s)


def test_living_hosts_count_and_nobody_else() -> None:
    """Neither the dead nor those without the right to host, nor this node itself."""
    members = [
        a_member("b", a_served()), a_member("a", a_served()), a_member("me", a_served()),
        a_member("gone", a_served(), state=MemberState.DEAD), a_member("left", a_served(), state=MemberState.LEFT),
        a_member("client", a_served(), rights=CLIENT_ONLY), a_member("shaky", a_served(), state=MemberState.SUSPECT),
    ]  # fmt: skip

    found = replicas_of(members, ME)

    assert [(one.node, one.is_suspect) for one in found[ModelId("tiny")]] == [
        ("a", False), ("b", False), ("shaky", True),
    ]  # fmt: skip


def test_the_order_is_trust_then_room_then_nearness_then_id() -> None:
    """A suspected node comes last however idle; an unmeasured distance is not a short one."""
    replicas = [
        a_replica("idle-suspect", is_suspect=True), a_replica("busy", busy=3), a_replica("unmeasured", rtt_s=None),
        a_replica("far", rtt_s=0.1), a_replica("near-b"), a_replica("near-a"),
    ]  # fmt: skip

    assert [one.node for one in in_order(replicas)] == [
        "near-a", "near-b", "far", "unmeasured", "busy", "idle-suspect",
    ]  # fmt: skip


def test_what_is_not_ready_takes_no_requests() -> None:
    """A model that loads or drains is announced, and not routed to."""
    replicas = [a_replica("a", state=ServingState.LOADING), a_replica("b", state=ServingState.DRAINING)]

    assert in_order(replicas) == ()


def test_files_under_one_name_are_told_apart() -> None:
    """An unknown digest is nobody's replica, and no second file either."""
    replicas = [a_replica("a", digest="sha256:1"), a_replica("b", digest="sha256:2"), a_replica("c", digest="")]

    assert digests(replicas) == ("sha256:1", "sha256:2")
    assert [one.node for one in of_digest(replicas, "sha256:2")] == ["b"]
    assert of_digest(replicas, "") == ()


@pytest.mark.rows("REG-10")
def test_a_name_can_be_pinned_to_a_file() -> None:
    """The name that an ambiguous one is answered with."""
    assert pinned(ModelId("tiny"), "sha256:0123456789abcdef") == "tiny@sha256:0123456789ab"
