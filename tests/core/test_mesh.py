"""The one door: deterministic, traceable, and quiet when nothing changed."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshllm.core import events as ev
from meshllm.core.announcement import Address
from meshllm.core.effects import Answer, Effect, KeepOrders, Leave, Send, StartEngine
from meshllm.core.engines import EngineFault, EngineState
from meshllm.core.ids import NO_MODEL, ConnectionId, EventId, ModelId, NodeId
from meshllm.core.intents import Intent, Verb
from meshllm.core.limits import GIB
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.messages import HealthQuestion, Leaving
from meshllm.core.quota_config import QuotaChoice, Quotas
from meshllm.core.quota_use import QuotaUse, Spent
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.core.serving.engine_state import HAS_PROCESS
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.view import MeshView
from tests.core.builders import a_machine, a_spec, a_story, exited, ready
from tests.core.serving.neighbours import PEER, Neighbourhood, a_node, a_served
from tests.core.test_picture import a_core

NAMES = ("a", "b", "c")


def a_random_event(chance: random.Random, number: int) -> ev.Event:
    """Return any event about any of three models, legal or not at this moment."""
    model = ModelId(chance.choice(NAMES))
    verb = chance.choice(list(Verb))
    intent = Intent(
        verb=verb, model=model, request_id=f"r{number}", hold=chance.random() < 0.3,
        force=chance.random() < 0.3, keep_running=True,
    )  # fmt: skip
    events: list[ev.Event] = [
        ev.Woke(), ready(model), exited(model, chance.choice(list(EngineFault))), ev.EngineStarted(model=model, pid=1),
        ev.EngineProgressed(model=model, share=0.5), ev.EngineHung(model=model, message="x"),
        ev.EngineDrained(model=model), ev.ModelWanted(model=model), ev.IntentReceived(intent=intent),
        ev.InventoryChanged(models=tuple(a_spec(name, size_bytes=5 * GIB) for name in NAMES if chance.random() < 0.8)),
        ev.ResourcesMeasured(resources=a_machine(free_bytes=chance.choice([1, 8, 16]) * GIB)),
        ev.DownloadProgressed(model=model, done_bytes=1, total_bytes=2),
        ev.DownloadFinished(model=model, path="/x"), ev.DownloadFailed(model=model, code="network", message="x"),
        ev.TrafficMeasured(finished=((model, 3),)),
    ]  # fmt: skip
    return chance.choice(events)


def played(seed: int, steps: int) -> tuple[list[MeshView], list[tuple[Effect, ...]], MeshCore]:
    """Return the views and effects of a random life."""
    chance, story = random.Random(seed), a_story(*(a_spec(name, size_bytes=5 * GIB) for name in NAMES))
    views, effects = [], []
    for number in range(steps):
        story.now_s += chance.random() * 5
        effects.append(story.core.handle(a_random_event(chance, number), story.now_s))
        views.append(story.core.view)
    return views, effects, story.core


@given(st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
def test_any_life_keeps_the_invariants(seed: int) -> None:
    """No order of events, however wrong, brings the node into an impossible state."""
    views, effects, _ = played(seed, 120)

    for view in views:
        for model in view.local.values():
            assert (model.endpoint is not None) == (model.state in (EngineState.READY, EngineState.DRAINING))
            assert (model.plan is not None) == (model.state in HAS_PROCESS)
            assert (model.retry_at_s is not None) <= (model.state is EngineState.BACKING_OFF)
        taken = sum(model.plan.memory.total_bytes for model in view.local.values() if model.plan is not None)
        assert taken <= 16 * GIB
    started = [effect for step in effects for effect in step if isinstance(effect, StartEngine)]
    assert all(effect.plan.model.size_bytes == 5 * GIB for effect in started)


@given(st.integers(0, 10**9))
@settings(max_examples=10, deadline=None)
def test_the_same_events_give_the_same_effects_and_views(seed: int) -> None:
    """Any decision can be replayed from the journal."""
    first_views, first_effects, _ = played(seed, 60)
    second_views, second_effects, _ = played(seed, 60)

    assert first_effects == second_effects
    assert [(view.epoch, view.local) for view in first_views] == [(view.epoch, view.local) for view in second_views]


@given(st.integers(0, 10**9))
@settings(max_examples=20, deadline=None)
def test_the_core_never_asks_to_be_woken_in_the_past(seed: int) -> None:
    """A wake-up that is due and changes nothing would spin the loop."""
    _, _, core = played(seed, 80)

    core.handle(ev.Woke(), 1e9)
    core.handle(ev.Woke(), 1e9)

    due_s = core.next_wakeup_s()
    assert due_s is None or due_s > 1e9


def test_effects_carry_the_id_of_their_event() -> None:
    """A line in the log leads back to its cause."""
    story = a_story(a_spec("other"), a_spec(), requested=("other",))

    effects = story.core.handle(ev.ModelWanted(model=ModelId("tiny"), id=EventId("e42")), 1.0)

    assert effects
    assert {effect.cause for effect in effects} == {"e42"}


def test_the_view_stays_the_same_object_while_nothing_changes() -> None:
    """Readers compare epochs; a new epoch for nothing would wake them all."""
    story = a_story(a_spec(), requested=("tiny",))
    view = story.core.view

    story.tell(ev.Woke(), ev.ModelWanted(model=ModelId("nonsense")))

    assert story.core.view is view


def test_every_change_raises_the_epoch_and_what_the_node_says_of_itself() -> None:
    """Announcements are ordered by version."""
    story = a_story(a_spec(), requested=("tiny",))
    before = story.core.view

    story.tell(ready("tiny"))

    after = story.core.view
    assert after.epoch > before.epoch
    assert after.me.supersedes(before.me)
    assert after.members[after.me.node].announcement is after.me


def test_a_node_that_leaves_says_goodbye_before_its_daemon_ends() -> None:
    """Whoever routes to it has to know a moment earlier."""
    core = a_core()

    effects = core.handle(ev.LeaveRequested(reason="SIGTERM"), 2.0)

    kinds = [type(effect) for effect in effects]
    said = [effect.message for effect in effects if isinstance(effect, Send)]
    assert kinds.index(Send) < kinds.index(Leave)
    assert [type(message) for message in said] == [Leaving]
    assert core.view.me.left


def test_the_wake_ups_of_members_do_not_touch_models() -> None:
    """A large mesh has many; each must stay cheap."""
    story = a_story(a_spec(), requested=("tiny",))
    local = story.core.view.local

    story.core.handle(ev.AddressFound(peer=NodeId("x"), addresses=(Address(host="x", port=1),), source="lan"), 200.0)
    story.core.handle(ev.Woke(), 300.0)

    assert story.core.view.local is local


@pytest.mark.rows("HLT-6")
def test_the_hosts_of_a_model_are_asked_how_it_is() -> None:
    """Those of that model alone, or all; nobody who serves nothing."""
    story = Neighbourhood(policy=ServingPolicy())
    story.meet(a_node(PEER, a_served("m")))

    def asked(model: str | None) -> list[NodeId]:
        effects = story.tell(ev.HealthAsked(model=ModelId(model) if model is not None else None))
        return [one.peer for one in effects if isinstance(one, Send) and isinstance(one.message, HealthQuestion)]

    assert (asked("m"), asked(None), asked("other")) == ([PEER], [PEER], [])


@pytest.mark.rows("HLT-6")
def test_who_is_asked_looks_and_says_what_it_found() -> None:
    """In a statement of its own, although nothing is new; with the measurements."""
    story = Neighbourhood(a_spec("tiny"), policy=ServingPolicy(requested=("tiny",)))
    story.tell(ready("tiny"))
    story.meet()
    before = story.core.view.me

    story.tell(ev.MessageReceived(peer=PEER, connection=ConnectionId(1), message=HealthQuestion(model=NO_MODEL)))

    now = story.core.view.me
    assert now.supersedes(before)
    assert (now.serving[0].file_integrity, now.serving[0].memory) == ("ok", "ok")
    assert story.core.view.local[ModelId("tiny")].checks.checked_s == story.now_s  # type: ignore[union-attr]


def test_a_node_that_lends_nothing_says_so() -> None:
    """It keeps the right, and others do not count on it; also when it gets its rights later."""
    config = CoreConfig(node=NodeId("a" * 52), name="a", lends=False)
    core = MeshCore(config, 100.0, random.Random(1))
    at_once = core.view.me.rights

    core.handle(ev.RightsGranted(rights=OWN_MACHINE), 101.0)

    assert at_once == core.view.me.rights == Rights.INFER | Rights.HOST | Rights.ADMIN


def test_quotas_are_chosen_heard_and_written_down() -> None:
    """Here, by another node that may, and for the next start; what was used is said to others."""
    here, use = Neighbourhood(), QuotaUse(model=ModelId("a"), hour=Spent(0, 5, 1), day=Spent(0, 5, 1))
    here.meet()

    here.tell(ev.QuotaChangeAsked(request_id="q", model=ModelId("a"), document={"hourly_token_limit": 9}))
    answers = [effect.outcome.is_done for effect in here.effects if isinstance(effect, Answer)]
    theirs = QuotaChoice(model=ModelId("b"), quotas=Quotas(max_ram_mb=1), version=1, author=PEER)
    here.hear(replace(a_node(PEER), quotas=(theirs,)))
    here.tell(ev.QuotaUsed(uses=(use,)))

    view = here.core.view
    assert answers == [True]
    assert [one.model for one in view.quotas.chosen] == ["a", "b"]
    assert [one.model for one in view.me.quotas] == ["a"]
    kept = [effect.kept for effect in here.effects if isinstance(effect, KeepOrders)][-1]
    assert kept.quotas == view.quotas.chosen
    here.wait(60)
    assert here.core.view.me.quota_uses == (use,)
