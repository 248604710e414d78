"""What a request is told whose model is not ready."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import ModelOrder, ServingState
from meshllm.core.engines import EngineFault, EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.limits import GIB
from meshllm.core.policy import LoadMode, ModelPolicy
from meshllm.core.routing.asleep import order_version, unloaded_since
from meshllm.core.routing.plan_routes import plan_routes
from meshllm.core.routing.routes import Refusal, RefusalCode, RouteRequest, Routes, Wait
from meshllm.core.view import LoadProgress, MeshView
from tests.core.builders import Story, a_member, a_spec, a_story, exited, ready
from tests.core.routing.test_meaning import a_cold, a_view
from tests.core.routing.test_replicas import a_replica

COLD = ModelId("cold")
OTHER = NodeId("b".ljust(52, "2"))
ME = NodeId("a" * 32)


def ask(view: MeshView, model: str = "cold", **facts: bool) -> Routes | Wait | Refusal:
    """Return where a request goes in a view."""
    return plan_routes(view, RouteRequest(model=model, **facts))


def refused(found: object) -> tuple[RefusalCode, str]:
    """Return code and message of what has to be a refusal."""
    assert isinstance(found, Refusal), found
    return found.code, found.message


def an_order(verb: Verb = Verb.UNLOAD, **facts: Any) -> ModelOrder:
    """Return an order about the cold model."""
    return ModelOrder(**{"model": COLD, "verb": verb, "version": 3, "author": OTHER, **facts})


@pytest.mark.rows("LIF-6", "LIF-7", "T29")
def test_a_model_on_another_nodes_disk_is_waited_for_and_asked_for() -> None:
    """Never another model; and the words say who has it."""
    member = a_member("b")
    nodes = (OTHER, *(NodeId(letter * 52) for letter in "cdef"))
    view = a_view(cold=(a_cold(nodes=nodes),), members={OTHER: member})
    fetched = a_view(cold=(a_cold(nodes=()),))

    assert ask(view) == Wait(
        model=COLD, message="the model 'cold' is on the disk of b, cccccccc, dddddddd and 2 more and not in memory yet",
        is_asleep=True,
    )  # fmt: skip
    assert ask(fetched) == Wait(
        model=COLD, message="the model 'cold' is to be downloaded and not in memory yet", is_asleep=True
    )


@pytest.mark.rows("LIF-6", "T3")
@pytest.mark.parametrize(
    ("states", "words"),
    [
        ((ServingState.CLAIMED,), "about to be loaded at a"),
        ((ServingState.CLAIMED, ServingState.DOWNLOADING), "being downloaded at b"),
        ((ServingState.LOADING, ServingState.CLAIMED), "loading at a"),
        ((ServingState.DRAINING,), "being unloaded at a"),
        ((ServingState.DRAINING, ServingState.CLAIMED), "about to be loaded at b"),
    ],
)
def test_a_model_that_somebody_takes_up_is_waited_for_and_asked_for_no_more(
    states: tuple[ServingState, ...], words: str
) -> None:
    """One load in the whole mesh."""
    replicas = [a_replica(node, model="cold", state=state) for node, state in zip("ab", states, strict=False)]
    story = a_story(a_spec("cold"), a_spec("warm"), requested=("warm",))
    here = a_view(*(replace(one, served=replace(one.served, digest="sha256:cold")) for one in replicas), story=story)

    for view in (a_view(*replicas), here):
        assert ask(view) == Wait(model=COLD, message=f"the model 'cold' is {words}", is_asleep=False)


def test_a_held_model_is_refused_on_every_node() -> None:
    """With what lifts the hold; an order that only unloads does not keep requests from loading."""
    story = a_story(a_spec("cold"), a_spec("warm"), requested=("warm",))
    held, unloaded = (a_cold(nodes=(ME,), order=an_order(hold=hold)) for hold in (True, False))

    for with_it in (story, None):
        code, message = refused(ask(a_view(cold=(held,), story=with_it)))
        assert code is RefusalCode.MODEL_HELD
        assert "`mesh-llm load cold` brings it back" in message
        assert isinstance(ask(a_view(cold=(unloaded,), story=with_it)), Wait)


@pytest.mark.rows("REG-12")
def test_a_disabled_model_is_refused_even_where_it_is_ready() -> None:
    """Also when another node sends the request."""
    story = a_story(a_spec("cold"), requested=("cold",))
    story.tell(ready("cold"))
    policies = MappingProxyType({COLD: ModelPolicy(name="cold", is_enabled=False)})

    for view in (a_view(a_replica("b", model="cold"), policies=policies), a_view(story=story, policies=policies)):
        assert refused(ask(view))[0] is RefusalCode.MODEL_DISABLED
        assert refused(ask(a_view(story=story, policies=policies), is_forwarded=True))[0] is RefusalCode.MODEL_DISABLED


def test_a_model_that_loads_by_order_only_is_refused_until_it_is_ordered() -> None:
    """Where it answers, it answers."""
    policies = MappingProxyType({COLD: ModelPolicy(name="cold", load=LoadMode.OFF)})
    story = a_story(a_spec("cold"), a_spec("warm"), requested=("warm",))

    for view in (a_view(cold=(a_cold(),), policies=policies), a_view(story=story, policies=policies)):
        code, message = refused(ask(view))
        assert code is RefusalCode.MODEL_NOT_LOADED
        assert "mesh-llm load cold" in message
    assert isinstance(ask(a_view(a_replica("b", model="cold"), policies=policies)), Routes)
    story.ask(Verb.LOAD, "cold")
    assert isinstance(ask(a_view(story=story, policies=policies)), Wait)


@pytest.mark.rows("PRX-6")
def test_without_room_anywhere_the_lack_is_told_in_bytes() -> None:
    """Also by a node that has the file and has not tried."""
    lack = "it needs 90.0 GiB, and the most that any node has free is 3.0 GiB"
    story = a_story(a_spec("cold"), a_spec("warm"), requested=("warm",))

    for with_it in (story, None):
        code, message = refused(ask(a_view(cold=(a_cold(lack=lack),), story=with_it)))
        assert code is RefusalCode.NO_CAPACITY
        assert message == f"no node can load the model 'cold': {lack}"


def no_room() -> Story:
    """Return a story in which this node has no room for the cold model."""
    story = a_story(a_spec("cold", size_bytes=90 * GIB))
    story.tell(ev.ModelWanted(model=COLD))
    return story


def broken() -> Story:
    """Return a story in which the cold model's file is damaged here."""
    story = a_story(a_spec("cold"), requested=("cold",))
    story.tell(exited("cold", EngineFault.BAD_FILE, "the file is damaged"))
    return story


def withdrawn(verb: Verb, *, hold: bool = False) -> Story:
    """Return a story in which somebody took the cold model out of this node."""
    story = a_story(a_spec("cold"), requested=("cold",))
    story.tell(ready("cold"))
    story.ask(verb, "cold", hold=hold, keep_running=True)
    story.tell(exited("cold"))
    return story


@pytest.mark.parametrize(
    ("story", "code"),
    [
        (no_room(), RefusalCode.NO_CAPACITY), (broken(), RefusalCode.MODEL_FAILED),
        (withdrawn(Verb.UNLOAD, hold=True), RefusalCode.MODEL_HELD),
        (withdrawn(Verb.DROP), RefusalCode.MODEL_NOT_FOUND),
    ],
    ids=["no room", "broken", "held", "dropped"],
)  # fmt: skip
def test_what_keeps_a_model_from_this_node_does_not_keep_it_from_others(story: Story, code: RefusalCode) -> None:
    """Whoever else has the file may load it; alone, this node says why it does not."""
    alone = a_view(cold=(a_cold(nodes=(ME,), lack="this node has no room"),), story=story)
    shared = a_view(cold=(a_cold(nodes=(ME, OTHER)),), story=story)

    assert refused(ask(alone))[0] is code
    assert isinstance(ask(shared), Wait)
    assert refused(ask(shared, is_forwarded=True))[0] is code


def test_a_forwarded_request_knows_only_what_is_here() -> None:
    """It is served here or refused."""
    view = a_view(cold=(a_cold(nodes=(OTHER,)),))

    assert refused(ask(view, is_forwarded=True))[0] is RefusalCode.MODEL_NOT_FOUND


def test_a_model_that_is_unhealthy_at_every_host_is_refused() -> None:
    """Never routed to for want of another; a degraded one comes after healthy ones."""
    sick, weak, well = (
        a_replica(node, model="cold", health=health)
        for node, health in (("a", "unhealthy"), ("b", "degraded"), ("c", "healthy"))
    )

    leaving = a_replica("d", model="cold", state=ServingState.DRAINING)

    assert refused(ask(a_view(sick)))[0] is RefusalCode.MODEL_FAILED
    assert refused(ask(a_view(sick, leaving)))[0] is RefusalCode.MODEL_FAILED
    found = ask(a_view(sick, weak, well))
    assert isinstance(found, Routes)
    assert [route.node for route in found.routes] == ["c", "b"]


def test_a_request_that_waits_hears_of_an_order_to_unload_that_came_later() -> None:
    """It must not outvote whoever gave the order; one that comes after it may."""
    view = a_view(cold=(a_cold(order=an_order()),), orders=MappingProxyType({COLD: an_order()}))
    held = replace(view, orders=MappingProxyType({COLD: an_order(hold=True)}))
    loaded = replace(view, orders=MappingProxyType({COLD: an_order(Verb.LOAD)}))

    found = unloaded_since(view, COLD, 2)

    assert (order_version(view, COLD), order_version(view, ModelId("x"))) == (3, 0)
    assert refused(found)[0] is RefusalCode.MODEL_UNLOADED
    assert "another request loads it again" in refused(found)[1]
    assert "`mesh-llm load cold`" in refused(unloaded_since(held, COLD, 2))[1]
    assert unloaded_since(view, COLD, 3) is None
    assert unloaded_since(loaded, COLD, 2) is None


def test_a_file_that_was_named_by_its_digest_is_not_replaced_by_another_cold_one() -> None:
    """The one that is asked for has to come, not one of that name."""
    wanted, other = f"sha256:{'2' * 64}", f"sha256:{'1' * 64}"
    sick = a_replica("a", model="cold", digest=wanted, health="unhealthy")

    code, _ = refused(ask(a_view(sick, cold=(a_cold(digest=other),)), f"cold@{wanted}"))

    assert code is RefusalCode.MODEL_FAILED


def test_words_for_every_step_of_a_model_of_this_node() -> None:
    """From the order to memory."""
    story = a_story(a_spec("cold"), a_spec("warm"), requested=("warm",))
    view = story.core.view

    words = []
    for facts in (
        {"wanted": False}, {"wanted": True},
        {"wanted": True, "progress": LoadProgress(stage="downloading", share=0.5, total_bytes=2 * GIB)},
        {"wanted": True, "state": EngineState.BACKING_OFF},
    ):  # fmt: skip
        local = MappingProxyType({**view.local, COLD: replace(view.local[COLD], **facts)})
        found = ask(replace(view, local=local))
        assert isinstance(found, Wait)
        words.append(found.message.removeprefix("the model 'cold' is "))

    assert words == ["not in memory yet", "about to be loaded", "downloading, 50% of 2.1 GB", "backing off"]


def test_a_model_whose_nodes_have_just_started_is_waited_for_and_asked_for_later() -> None:
    """An engine's self-test may take longer than anybody is given to take a model up."""
    young, other = (a_member(name) for name in "bc")
    young = replace(young, announcement=replace(young.announcement, is_starting=True))
    early = a_view(cold=(a_cold(nodes=(OTHER,)),), members={OTHER: young})
    nodes = (OTHER, other.announcement.node)
    both = a_view(cold=(a_cold(nodes=nodes),), members={OTHER: young, nodes[1]: other})

    assert ask(early) == Wait(
        model=COLD, message="the model 'cold' is on the disk of b, where no engine is known yet", is_asleep=False
    )
    assert isinstance(found := ask(both), Wait)
    assert found.is_asleep
