"""Owners of kept answers: whose each one is, who is asked, and who may look or put one there."""

import random
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import Role, ServedModel, ServingState
from meshllm.core.cache_config import CacheConfig
from meshllm.core.cache_limits import (
    COMPLETION_LOOKUP_ROUND_TRIP_S,
    COMPLETION_OWNER_PAUSE_MOST_S,
    COMPLETION_OWNER_PAUSE_S,
    COMPLETION_SHARED_BYTES,
    COMPLETION_TAKEN_AT_ONCE,
)
from meshllm.core.cache_use import CachePicture
from meshllm.core.caches.completions import KEY_DIGEST_BYTES, WHOLE, Key, recipe_of
from meshllm.core.caches.owners import Denial, OwnerStanding, may_look, may_put, owner_of, owners
from meshllm.core.engines import EngineBuild, EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE, Rights
from meshllm.core.standing import MemberState
from meshllm.core.view import Member, MeshView, Replica
from tests.core.builders import a_member, a_story
from tests.core.caches.test_completions import BUILD, a_model

RECIPE = "ab" * 16
KEY: Key = ("tiny", RECIPE, WHOLE.ljust(KEY_DIGEST_BYTES, b"\1"))
KEEPING = CachePicture(config=CacheConfig(completions=True))


def an_owner(name: str, **changes: Any) -> Member:
    """Return a member that keeps answers, unless `changes` say otherwise."""
    said = {key: changes.pop(key) for key in ("keeps_answers", "left") if key in changes}
    member = a_member(name, **changes)
    member = replace(member, state=MemberState(member.state))
    return replace(member, announcement=replace(member.announcement, **({"keeps_answers": True} | said)))


def a_view(*members: Member, hosts: tuple[ServedModel, ...] = (), **changes: Any) -> MeshView:
    """Return what a node knows that keeps answers itself, unless `changes` say otherwise."""
    view = a_story().core.view
    found = {member.announcement.node: member for member in members}
    replicas = {ModelId("tiny"): tuple(Replica(node=NodeId("h"), name="h", served=served) for served in hosts)}
    facts = {"caches": KEEPING, "members": MappingProxyType(found), "replicas": MappingProxyType(replicas)}
    return replace(view, **(facts | changes))


def served(recipe: str = RECIPE, state: ServingState = ServingState.READY) -> ServedModel:
    """Return a model at a host."""
    return ServedModel(model=ModelId("tiny"), digest="", state=state, recipe=recipe)


SERVED = a_view(hosts=(served(),))


# -- whose it is ---------------------------------------------------------------------------------------


@pytest.mark.rows("CAC-9")
def test_every_node_comes_to_the_same_owner() -> None:
    """Whatever it heard first; another request, recipe or model may be another one's."""
    nodes = tuple(NodeId(letter * 52) for letter in "abcdefgh")
    keys: list[Key] = [(model, recipe, WHOLE + bytes([n] * 16))
                       for model in ("tiny", "other") for recipe in (RECIPE, "0" * 32) for n in range(8)]  # fmt: skip
    found = [owner_of(key, nodes) for key in keys]

    assert found == [owner_of(key, nodes[::-1]) for key in keys]
    assert len(set(found)) > 3
    for start in range(0, 32, 8):
        assert found[start : start + 8] != found[(start + 8) % 32 :][:8]
    assert owner_of(KEY, ()) is None


@pytest.mark.rows("CAC-9")
@pytest.mark.parametrize(
    ("changes", "can_own"),
    [
        ({}, True),
        ({"role": Role.WORKER}, True),
        ({"state": "suspect"}, True),
        ({"state": "dead"}, False),
        ({"state": "left"}, False),
        ({"left": True}, False),
        ({"role": Role.CLIENT}, False),
        ({"rights": CLIENT_ONLY}, False),
        ({"keeps_answers": False}, False),
    ],
)
def test_those_own_that_keep_and_may_host(changes: dict[str, Any], can_own: bool) -> None:
    """A suspect still does: what is its own must not move with every lost probe."""
    member = an_owner("b", **changes)

    assert owners(a_view(member)) == ((member.announcement.node,) if can_own else ())


@pytest.mark.rows("CAC-9")
def test_a_node_says_that_it_keeps_answers_as_soon_as_it_does() -> None:
    """And that it does not; a client never does."""
    said = []
    for is_client in (False, True):
        config = CoreConfig(node=NodeId("a" * 52), name="a", is_client=is_client)
        core = MeshCore(config, 100.0, random.Random(1))
        for number, change in enumerate(({"completions": "on"}, {"completions_shared": "off"}, {"completions": "off"})):
            core.handle(ev.CacheChangeAsked(request_id=f"r{number}", document=change), 101.0 + number)
            said.append(core.view.me.keeps_answers)

    assert said == [True, False, False, False, False, False]


# -- who is asked --------------------------------------------------------------------------------------


def test_a_live_near_owner_is_asked() -> None:
    """One that was never measured too; not a suspect, nor one that is far, nor one that is not there."""
    far_s = COMPLETION_LOOKUP_ROUND_TRIP_S
    members = [
        an_owner("b", rtt_s=0.001), an_owner("c"), an_owner("d", rtt_s=far_s), an_owner("e", rtt_s=far_s * 1.01),
        an_owner("f", state="suspect"), an_owner("g", state="dead"),
    ]  # fmt: skip
    view, standing = a_view(*members), OwnerStanding()

    asked = [standing.is_worth_asking(view, one.announcement.node, 0.0) for one in members]
    sent = [standing.is_heard(view, one.announcement.node, 0.0) for one in members]

    assert asked == [True, True, True, False, False, False]
    assert sent == [True, True, True, True, False, False]
    assert not standing.is_worth_asking(view, NodeId("z" * 52), 0.0)


def test_an_owner_that_is_silent_is_left_in_peace_longer_each_time() -> None:
    """Up to a limit; whoever answers is forgiven, and failures that end together count once."""
    member = an_owner("b")
    node, view, standing = member.announcement.node, a_view(member), OwnerStanding()
    now_s, pauses = 100.0, []

    for _ in range(9):
        standing.failed(node, now_s)
        standing.failed(node, now_s)
        began_s = now_s
        while not standing.is_heard(view, node, now_s):
            now_s += COMPLETION_OWNER_PAUSE_S
        pauses.append(now_s - began_s)
    standing.answered(node)
    standing.failed(node, now_s)

    assert pauses[:4] == [COMPLETION_OWNER_PAUSE_S * factor for factor in (1, 2, 4, 8)]
    assert pauses[-1] == COMPLETION_OWNER_PAUSE_MOST_S
    assert not standing.is_heard(view, node, now_s + COMPLETION_OWNER_PAUSE_S * 0.99)
    assert standing.is_heard(view, node, now_s + COMPLETION_OWNER_PAUSE_S)
    standing.keep(())
    assert standing.is_heard(view, node, now_s)


# -- what it says to others ----------------------------------------------------------------------------


@pytest.mark.rows("CAC-9")
@pytest.mark.parametrize(
    ("rights", "look", "put"),
    [
        (OWN_MACHINE, None, None),
        (GUEST, None, None),
        (CLIENT_ONLY, None, Denial.NOT_ADMITTED),
        (Rights.HOST, Denial.NOT_ADMITTED, Denial.NOT_ADMITTED),
        (Rights.NONE, Denial.NOT_ADMITTED, Denial.NOT_ADMITTED),
    ],
)
def test_rights_say_who_may(rights: Rights, look: Denial | None, put: Denial | None) -> None:
    """Whoever may ask hosts may look; whoever may be one may put."""
    assert may_look(SERVED, rights, KEY) == look
    assert may_put(SERVED, rights, KEY, 10, 0) == put


@pytest.mark.rows("CAC-9", "CAC-10")
@pytest.mark.parametrize(
    "view",
    [
        a_view(),
        a_view(hosts=(served("0" * 32),)),
        a_view(hosts=(served(state=ServingState.DRAINING), served(state=ServingState.LOADING))),
        a_view(hosts=(served(),), caches=CachePicture(config=CacheConfig(completions=True, completions_shared=False))),
        a_view(hosts=(served(),), caches=CachePicture()),
        a_view(hosts=(served(),), leaving=True),
        a_view(hosts=(served(),), me=replace(SERVED.me, role=Role.CLIENT)),
    ],
    ids=["nobody", "another recipe", "not ready", "not shared", "off", "leaving", "a client"],
)
def test_what_no_host_would_say_now_is_not_told(view: MeshView) -> None:
    """Nor taken: nobody gets here what it could not have from a host; and who keeps nothing tells nothing."""
    assert may_look(view, OWN_MACHINE, KEY) is Denial.NOT_KEPT
    assert may_put(view, OWN_MACHINE, KEY, 10, 0) is Denial.NOT_KEPT


def test_what_this_node_itself_would_say_is_told() -> None:
    """As long as its engine is ready."""
    model = a_model()
    key: Key = ("tiny", recipe_of(model, BUILD), KEY[2])
    rebuilt = EngineBuild(kind="fake", version="b2", uses_gpu=False)

    ready, stopped = (
        a_view(local=MappingProxyType({model.id: one}), engine_build=BUILD)
        for one in (model, replace(model, state=EngineState.STOPPED))
    )

    assert may_look(ready, CLIENT_ONLY, key) is None
    assert may_look(stopped, CLIENT_ONLY, key) is Denial.NOT_KEPT
    assert may_look(replace(ready, engine_build=rebuilt), CLIENT_ONLY, key) is Denial.NOT_KEPT


def test_answers_that_come_are_bounded() -> None:
    """Each in size, all in number."""
    assert may_put(SERVED, GUEST, KEY, COMPLETION_SHARED_BYTES, COMPLETION_TAKEN_AT_ONCE - 1) is None
    assert may_put(SERVED, GUEST, KEY, COMPLETION_SHARED_BYTES + 1, 0) is Denial.TOO_LARGE
    assert may_put(SERVED, GUEST, KEY, 10, COMPLETION_TAKEN_AT_ONCE) is Denial.BUSY
