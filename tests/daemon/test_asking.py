"""Every intent gets its own answer."""

import asyncio

import pytest

from meshllm.core.events import CacheChangeAsked, Event, IntentReceived, QuotaChangeAsked, RoutingChangeAsked
from meshllm.core.ids import ModelId
from meshllm.core.intents import Intent, Outcome, OutcomeCode, Verb
from meshllm.daemon.asking import Asking

INTENT = Intent(verb=Verb.LOAD, model="m", request_id="")


async def test_two_askers_of_the_same_thing_get_their_own_outcomes() -> None:
    """Answers are matched by id, not by order."""
    events: list[Event] = []
    asking = Asking(events.append)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        askers = [group.create_task(asking.ask(INTENT)) for _ in range(2)]
        group.create_task(answer_in_reverse(asking, events))

    assert [asker.result().message for asker in askers] == ["first", "second"]


async def test_an_asker_that_goes_away_is_forgotten() -> None:
    """A late answer to nobody is no error."""
    events: list[Event] = []
    asking = Asking(events.append)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asking.ask(INTENT)

    asking.answer("i1", Outcome(code=OutcomeCode.DONE, message="late"))
    assert not asking._waiting


async def test_a_change_of_routing_is_answered_by_its_name_too() -> None:
    """It shares its names with intents."""
    events: list[Event] = []
    asking = Asking(events.append)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        asker = group.create_task(asking.change_routing({"max_retries": 1}))
        await asyncio.sleep(0)
        (asked,) = events
        assert isinstance(asked, RoutingChangeAsked)
        asking.answer(asked.request_id, Outcome(code=OutcomeCode.DONE, message="done"))

    assert asked.document == {"max_retries": 1}
    assert asker.result().is_done


async def test_a_change_of_quotas_is_answered_by_its_name_too() -> None:
    """With the model that it is about."""
    events: list[Event] = []
    asking = Asking(events.append)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        asker = group.create_task(asking.change_quotas(ModelId("m"), {"max_ram_mb": 1}))
        await asyncio.sleep(0)
        (asked,) = events
        assert isinstance(asked, QuotaChangeAsked)
        asking.answer(asked.request_id, Outcome(code=OutcomeCode.DONE, message="done"))

    assert (asked.model, asked.document) == ("m", {"max_ram_mb": 1})
    assert asker.result().is_done


async def answer_in_reverse(asking: Asking, events: list[Event]) -> None:
    """Answer the second intent before the first."""
    ids = [event.intent.request_id for event in events if isinstance(event, IntentReceived)]
    for request_id, message in reversed(list(zip(ids, ("first", "second"), strict=True))):
        asking.answer(request_id, Outcome(code=OutcomeCode.DONE, message=message))


async def test_a_change_of_caches_is_answered_by_its_name_too() -> None:
    """It is about this node as a whole."""
    events: list[Event] = []
    asking = Asking(events.append)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        asker = group.create_task(asking.change_caches({"min_ram_mb": 1}))
        await asyncio.sleep(0)
        (asked,) = events
        assert isinstance(asked, CacheChangeAsked)
        asking.answer(asked.request_id, Outcome(code=OutcomeCode.DONE, message="done"))

    assert asked.document == {"min_ram_mb": 1}
    assert asker.result().is_done
