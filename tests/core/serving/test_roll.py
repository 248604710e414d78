"""Who serves what, kept up: always what asking everybody again would say."""

import random
from collections.abc import Iterable
from dataclasses import replace

from meshllm.core.announcement import Announcement, ServedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import Rights
from meshllm.core.routing.replicas import replicas_of
from meshllm.core.serving.groups import group_key, group_of, hosted_by
from meshllm.core.serving.roll import Roll
from meshllm.core.standing import MemberState
from meshllm.core.view import Group, Member
from tests.core.members.builders import an_announcement

ME = NodeId("n0")
NODES = [NodeId(f"n{number}") for number in range(6)]


def a_member(node: NodeId, *serving: ServedModel, **changes: object) -> Member:
    """Return a live member that serves these."""
    said = replace(an_announcement(node), serving=serving, rights=changes.pop("rights", Rights.HOST))
    return Member(announcement=said, state=changes.pop("state", MemberState.ALIVE), since_s=0.0, **changes)


def groups_of(members: Iterable[Member]) -> dict[str, Group]:
    """Return the groups of all members, made from nothing: what the roll has to come to."""
    found: dict[str, list[tuple[Announcement, ServedModel]]] = {}
    for member in members:
        for served in hosted_by(member):
            found.setdefault(group_key(member.announcement.node, served), []).append((member.announcement, served))
    return {key: group_of(replicas) for key, replicas in sorted(found.items())}


def drawn(rng: random.Random, node: NodeId) -> Member | None:
    """Return a member that is like this or like that, or gone."""
    if rng.random() < 0.1:
        return None
    models = rng.sample(["m", "o", "p"], rng.randint(0, 3))
    serving = [
        ServedModel(
            model=ModelId(model), digest=rng.choice(["", "sha256:a", f"sha256:{model}"]),
            state=rng.choice(list(ServingState)), slots=rng.randint(1, 4),
        )
        for model in models
    ]  # fmt: skip
    return a_member(
        node, *serving, state=rng.choice(list(MemberState)), rtt_s=rng.choice([None, 0.01]),
        rights=rng.choice([Rights.HOST, Rights.HOST, Rights.NONE]), last_heard_s=rng.random(),
    )  # fmt: skip


def test_it_is_what_asking_everybody_again_would_say() -> None:
    """After any number of changes, the order of its keys included."""
    for seed in range(30):
        rng = random.Random(seed)
        members: dict[NodeId, Member] = {}
        roll = Roll(ME)
        for _ in range(40):
            nodes = rng.sample(NODES, rng.randint(1, 3))
            changed = [(node, drawn(rng, node)) for node in nodes]
            members = {node: member for node, member in members.items() if node not in nodes}
            members |= {node: member for node, member in changed if member is not None}

            roll.take(changed)

            groups, replicas = groups_of(members.values()), replicas_of(members.values(), ME)
            assert (list(roll.groups.items()), list(roll.replicas.items())) == (
                list(groups.items()), list(replicas.items()),
            )  # fmt: skip


def test_what_says_nothing_of_models_makes_no_difference() -> None:
    """Nearly all changes of members are of when they were heard, and nobody makes lists anew for that."""
    tiny = ServedModel(model=ModelId("tiny"), digest="sha256:t", state=ServingState.READY)
    roll = Roll(ME)
    first = roll.take([(NODES[1], a_member(NODES[1], tiny)), (NODES[2], a_member(NODES[2]))])
    groups = roll.groups

    again = roll.take([(NODES[1], a_member(NODES[1], tiny, last_heard_s=9.0, connected=True)), (NODES[2], None)])

    assert (first, again) == (True, False)
    assert roll.groups is groups


def test_a_model_whose_last_host_is_gone_is_gone() -> None:
    """Also from the keys."""
    tiny = ServedModel(model=ModelId("tiny"), digest="sha256:t", state=ServingState.READY)
    roll = Roll(ME)
    roll.take([(NODES[1], a_member(NODES[1], tiny))])

    changed = roll.take([(NODES[1], None)])

    assert changed
    assert (dict(roll.groups), dict(roll.replicas)) == ({}, {})
