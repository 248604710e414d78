"""Which members serve the same file."""

from collections.abc import Mapping

import pytest

from meshllm.core.announcement import ServedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import Rights
from meshllm.core.serving.roll import Roll
from meshllm.core.standing import MemberState
from meshllm.core.view import Group, Member
from tests.core.members.builders import an_announcement


def a_member(
    name: str, *models: tuple[str, str], state: MemberState = MemberState.ALIVE, **changes: object
) -> Member:  # fmt: skip
    """Return a member that serves some (model, digest)."""
    serving = tuple(
        ServedModel(model=ModelId(model), digest=digest, state=ServingState.READY) for model, digest in models
    )
    return Member(announcement=an_announcement(name, serving=serving, **changes), state=state, since_s=0.0)


def groups_of(members: list[Member]) -> Mapping[str, Group]:
    """Return the groups of some members."""
    roll = Roll(NodeId("me"))
    roll.take([(member.announcement.node, member) for member in members])
    return roll.groups


@pytest.mark.rows("REG-10")
def test_the_digest_makes_a_group_whatever_the_name() -> None:
    """Two names for one file are replicas; one name for two files are not."""
    groups = groups_of([a_member("b", ("tiny", "x")), a_member("a", ("small", "x")), a_member("c", ("tiny", "y"))])

    assert {key: (group.members, group.host) for key, group in groups.items()} == {
        "x": (("a", "b"), "a"), "y": (("c",), "c"),
    }  # fmt: skip


def test_a_group_is_called_what_most_call_it() -> None:
    """One node's odd file name does not rename a model for all."""
    groups = groups_of([a_member("a", ("odd", "x")), a_member("b", ("tiny", "x")), a_member("c", ("tiny", "x"))])

    assert groups["x"].model == "tiny"


def test_a_file_that_is_still_hashed_is_a_group_of_its_own() -> None:
    """Nobody knows yet what it is the same as."""
    groups = groups_of([a_member("a", ("tiny", "")), a_member("b", ("tiny", ""))])

    assert [group.members for group in groups.values()] == [("a",), ("b",)]


def test_only_live_members_that_may_host_count() -> None:
    """A suspect still counts: suspicion passes."""
    groups = groups_of([
        a_member("a", ("tiny", "x"), state=MemberState.DEAD), a_member("b", ("tiny", "x"), state=MemberState.LEFT),
        a_member("c", ("tiny", "x"), rights=Rights.INFER), a_member("d", ("tiny", "x"), state=MemberState.SUSPECT),
    ])  # fmt: skip

    assert groups["x"].members == ("d",)


def test_a_model_that_is_loading_is_in_no_group() -> None:
    """Announced before it is ready, it must not be routed to."""
    loading = ServedModel(model=ModelId("tiny"), digest="x", state=ServingState.LOADING)
    member = Member(announcement=an_announcement("a", serving=(loading,)), state=MemberState.ALIVE, since_s=0.0)

    assert groups_of([member]) == {}
