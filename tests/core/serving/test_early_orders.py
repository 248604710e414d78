"""What a node that has just started makes of orders: it looks first, and then says what they mean."""

from dataclasses import replace

import pytest

from meshllm.core import events as ev
from meshllm.core.effects import Answer, Send, StartEngine
from meshllm.core.ids import ConnectionId, ModelId
from meshllm.core.intents import Intent, OutcomeCode, Verb
from meshllm.core.limits import FIRST_LOOK_WAIT_S, JOIN_WAIT_S
from meshllm.core.messages import Order, OrderResult
from meshllm.core.serving.early_orders import unknown_yet
from meshllm.core.serving.lifecycle import ServingPolicy
from tests.core.builders import A_BUILD, Story, a_machine, a_spec
from tests.core.serving.neighbours import FILLS, PEER, Neighbourhood, a_node, a_served
from tests.core.serving.test_adopted import OLLAMA, listed


def just_started(policy: ServingPolicy = FILLS) -> Neighbourhood:
    """Return the story of a node that knows nothing of its machine, its engine and its files yet."""
    return Neighbourhood(policy=policy, has_looked=False)


def looked(story: Story, *names: str) -> None:
    """Let the node find out all that it has: these models."""
    story.tell(ev.ResourcesMeasured(resources=a_machine()), ev.EngineProbed(build=A_BUILD))
    story.tell(ev.InventoryChanged(models=tuple(a_spec(name) for name in names)))


def ordered(story: Story, verb: Verb, model: str, scope: str) -> str:
    """Give an order; return its id."""
    intent = Intent(verb=verb, model=model, request_id=f"{verb} {model} {scope}", scope=scope)
    story.tell(ev.IntentReceived(intent=intent))
    return intent.request_id


@pytest.mark.parametrize("scope", ["node", "mesh"])
def test_an_order_to_load_waits_for_the_first_look_and_is_then_carried_out(scope: str) -> None:
    """No 404 that would be false a second later."""
    story = just_started()

    order = ordered(story, Verb.LOAD, "tiny", scope)
    early = story.outcome(order)
    looked(story, "tiny")

    assert early is None
    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["tiny"]


@pytest.mark.parametrize("scope", ["node", "mesh"])
@pytest.mark.parametrize("verb", [Verb.LOAD, Verb.UNLOAD, Verb.DROP, Verb.PULL, Verb.DEFAULT, Verb.PIN])
def test_what_is_still_unknown_after_the_first_look_is_refused_with_it(verb: Verb, scope: str) -> None:
    """And every later order by such a name at once."""
    story = just_started()
    order = ordered(story, verb, "nobody", scope)
    early = story.outcome(order)

    looked(story, "tiny")
    late = ordered(story, verb, "no-one", scope)

    answers = [story.outcome(one) for one in (order, late)]
    expected = OutcomeCode.INVALID_VALUE if (verb, scope) == (Verb.PIN, "mesh") else OutcomeCode.UNKNOWN_MODEL
    assert early is None
    assert [outcome.code for outcome in answers if outcome is not None] == [expected, expected]


def test_a_name_of_the_catalogue_waits_for_the_machine_to_be_measured() -> None:
    """Which of its files is fetched depends on the memory; without that no file of it could be named."""
    story = just_started()
    story.tell(ev.InventoryChanged(models=()))

    order = ordered(story, Verb.PULL, "smollm2-135m", "node")
    early = story.outcome(order)
    story.tell(ev.ResourcesMeasured(resources=a_machine()))

    assert early is None
    assert story.outcome(order) is None
    assert [model.id for model in story.core.view.local.values() if model.progress is not None]


def test_a_look_that_takes_too_long_ends_the_order_with_what_is_looked_for() -> None:
    """Not with a word about the model: of that nothing is known. The limit is one that the core wakes for."""
    story = just_started()
    order = ordered(story, Verb.LOAD, "tiny", "node")
    due_s = story.core.next_wakeup_s()

    story.tell(ev.Woke(), after_s=FIRST_LOOK_WAIT_S - 1)
    early = story.outcome(order)
    story.tell(ev.Woke(), after_s=1)

    outcome = story.outcome(order)
    assert due_s is not None
    assert due_s <= 100.0 + FIRST_LOOK_WAIT_S
    assert early is None
    assert outcome is not None
    assert outcome.code is OutcomeCode.STARTING
    assert "looking through its model folders" in outcome.message
    looked(story, "tiny")
    assert len([effect for effect in story.of(Answer) if effect.request_id == order]) == 1


def test_a_node_that_leaves_answers_what_waits() -> None:
    """Every order is answered."""
    story = just_started()
    order = ordered(story, Verb.LOAD, "tiny", "mesh")

    story.tell(ev.LeaveRequested(reason="SIGTERM"))

    outcome = story.outcome(order)
    assert outcome is not None
    assert outcome.code is OutcomeCode.LEAVING


def test_a_model_of_an_adopted_server_is_unknown_only_when_that_was_heard() -> None:
    """Its server may have any name; what it has is not fetched, nor called unknown."""
    story = just_started(ServingPolicy(remotes=(OLLAMA,)))
    looked(story)

    order = ordered(story, Verb.LOAD, "llama3", "node")
    early = story.outcome(order)
    story.tell(listed("llama3"))

    outcome = story.outcome(order)
    assert early is None
    assert outcome is not None
    assert outcome.code is OutcomeCode.NOT_LOADABLE


def test_a_name_that_only_others_could_know_waits_until_they_were_heard() -> None:
    """For the time that joining takes; who is alone after that hears that there is no such model."""
    told, alone = (Neighbourhood(is_joining=True) for _ in range(2))

    orders = [ordered(story, Verb.UNLOAD, "theirs", "mesh") for story in (told, alone)]
    early = [told.outcome(orders[0]), alone.outcome(orders[1])]
    told.meet(a_node(PEER, a_served("theirs")))
    alone.wait_alone(JOIN_WAIT_S + 0.2)

    assert early == [None, None]
    sent = [effect.message for effect in told.of(Send) if isinstance(effect.message, Order)]
    assert [message.intent.model for message in sent] == ["theirs"]
    outcome = alone.outcome(orders[1])
    assert outcome is not None
    assert outcome.code is OutcomeCode.UNKNOWN_MODEL


def test_a_peers_order_waits_as_well_and_is_answered_once() -> None:
    """Who orders a node about that has just started hears what it finds, also when the order comes twice."""
    story = just_started()
    story.meet()
    intent = Intent(verb=Verb.UNLOAD, model="tiny", request_id="1.1")
    order = ev.MessageReceived(peer=PEER, connection=ConnectionId(1), message=Order(intent=intent))

    story.tell(order, order)
    early = results(story)
    looked(story, "tiny")

    assert early == []
    assert [(result.request_id, result.outcome.code) for result in results(story)] == [("1.1", OutcomeCode.DONE)]


def test_a_peer_hears_that_the_node_leaves_before_it_has_looked() -> None:
    """Its order is a part of one that somebody waits for."""
    story = just_started()
    story.meet()
    intent = Intent(verb=Verb.UNLOAD, model="tiny", request_id="1.1")
    story.tell(ev.MessageReceived(peer=PEER, connection=ConnectionId(1), message=Order(intent=intent)))

    story.tell(ev.LeaveRequested(reason="SIGTERM"))

    assert [result.outcome.code for result in results(story)] == [OutcomeCode.LEAVING]


def results(story: Story) -> list[OrderResult]:
    """Return what the peer was answered."""
    return [effect.message for effect in story.of(Send) if isinstance(effect.message, OrderResult)]


def test_an_order_that_no_look_can_change_does_not_wait() -> None:
    """To end one's own choice of a default names no model, and a model that the mesh has is known by its id."""
    story = just_started()
    view = replace(story.core.view, cold={ModelId("theirs"): None})  # type: ignore[dict-item]

    def early(verb: Verb, model: str, scope: str) -> str:
        return unknown_yet(view, Intent(verb=verb, model=model, request_id="r", scope=scope))

    assert early(Verb.DEFAULT, "", "node") == ""
    assert early(Verb.UNLOAD, "theirs", "mesh") == ""
    assert early(Verb.UNLOAD, "theirs", "node") != ""
    assert early(Verb.LOAD, "theirs", "mesh") != ""
