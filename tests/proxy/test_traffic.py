"""Counters: what is in flight, what ended, and who waits for an end."""

import asyncio

import pytest

from meshllm.core import limits
from meshllm.core.events import TrafficMeasured
from meshllm.core.health import first_token_step
from meshllm.core.ids import ModelId
from meshllm.core.routing.fair_turns import Waiting
from meshllm.core.routing.priorities import Priority
from meshllm.proxy.traffic import Traffic, admitted


@pytest.mark.parametrize("slots", [1, 2, 4, 100])
def test_an_engine_may_queue_what_people_do_at_once(slots: int) -> None:
    """34 requests on 2 slots, 50 on a model that is being loaded: all of them are answered."""
    assert admitted(slots) >= max(50, slots * (1 + limits.HOST_QUEUE_PER_SLOT))


def test_requests_that_ended_are_reported_once() -> None:
    """The core counts differences."""
    traffic = Traffic()
    tiny = traffic.of(ModelId("tiny"))
    for is_failure in (False, False, True):
        tiny.begin()
        tiny.end(is_failure=is_failure)

    assert traffic.measured() == TrafficMeasured(finished=(("tiny", 2),), failed=(("tiny", 1),))
    assert traffic.measured() is None
    assert traffic.in_flight == 0


def test_the_first_request_after_a_rest_counts_as_progress() -> None:
    """Otherwise an engine that rested would look hung as soon as it is asked."""
    tiny = Traffic().of(ModelId("tiny"))

    tiny.begin()

    assert tiny.last_progress_s > 0


def test_the_time_of_the_last_byte_is_that_of_the_next_look() -> None:
    """The clock is read a few times a second, not for every byte; without another byte the time stays."""
    traffic = Traffic()
    tiny = traffic.of(ModelId("tiny"))
    tiny.has_moved = True

    traffic.look()

    looked_s = tiny.last_progress_s
    assert looked_s > 0
    assert not tiny.has_moved
    traffic.look()
    assert tiny.last_progress_s == looked_s


async def test_whoever_waits_for_an_end_is_woken() -> None:
    """Draining waits for exactly this."""
    tiny = Traffic().of(ModelId("tiny"))
    tiny.begin()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(tiny.one_ended())
        await asyncio.sleep(0)
        tiny.end(is_failure=False)

    assert tiny.waiters == []


def test_counters_only_grow_and_have_names() -> None:
    """Metrics are made of them."""
    traffic = Traffic()
    traffic.by_status[2] += 3
    traffic.of(ModelId("tiny")).finished_since += 2  # on the straight lane
    traffic.measured()

    assert traffic.counters()["requests"] == 5
    assert traffic.counters()["answers_2xx"] == 5
    assert all(value >= 0 for value in traffic.counters().values())
    answers = sorted(name for name in traffic.counters() if name.startswith("answers_"))
    assert answers == [f"answers_{digit}xx" for digit in range(1, 6)]


def test_what_other_nodes_answered_is_counted_by_model() -> None:
    """Two nodes, one model: demand is what came in here."""
    traffic = Traffic()
    for end in ("b", "c"):
        through = traffic.through(end, ModelId("tiny"))
        through.begin()
        through.end(is_failure=False)
    traffic.from_peers[ModelId("other")] += 1

    assert traffic.measured() == TrafficMeasured(
        finished=(), from_peers=((ModelId("other"), 1),), elsewhere=((ModelId("tiny"), 2),)
    )
    assert traffic.measured() is None


def test_tunnels_that_lead_nowhere_any_more_are_forgotten_when_all_is_told() -> None:
    """Requests in flight end first, and are reported."""
    traffic = Traffic()
    through = traffic.through("b", ModelId("tiny"))
    through.begin()

    traffic.keep_tunnels(set())
    assert list(traffic.tunnels.values()) == [through]
    assert traffic.in_flight == 1
    through.end(is_failure=False)
    traffic.keep_tunnels(set())
    assert traffic.tunnels
    traffic.measured()
    traffic.keep_tunnels({"b"})
    assert traffic.tunnels
    traffic.keep_tunnels(set())

    assert traffic.tunnels == {}


def test_how_long_streams_took_to_begin_is_reported_in_steps_once() -> None:
    """A few numbers, however many requests."""
    traffic = Traffic()
    tiny = traffic.of(ModelId("tiny"))
    for took_s in (0.2, 0.2, 9.0):
        tiny.first_token(took_s)

    steps = ((first_token_step(0.2), 2), (first_token_step(9.0), 1))
    assert traffic.measured() == TrafficMeasured(finished=(), first_tokens=(("tiny", steps),))
    assert traffic.measured() is None


async def test_whose_turn_it_is_wakes_first() -> None:
    """Whoever waits for the drain of a model has the first turn of all."""
    tiny, woken = Traffic().of(ModelId("tiny")), []
    low, normal, high = (Priority.LOW, 1.0), (Priority.NORMAL, 2.0), (Priority.HIGH, 3.0)

    async def wait(waiting: Waiting | None) -> None:
        await tiny.one_ended(waiting)
        woken.append(waiting)

    tiny.begin()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for waiting in (low, normal, None, high):
            group.create_task(wait(waiting))
        await asyncio.sleep(0)
        tiny.end(is_failure=False)

    assert woken == [None, high, normal, low]


def test_beginnings_of_streams_are_kept_when_they_were_reported_and_when_a_tunnel_is_gone() -> None:
    """What scrapers read only ever grows."""
    traffic = Traffic()
    here, there = traffic.of(ModelId("m")), traffic.through("end", ModelId("m"))
    for one in (here, there):
        one.first_token(0.01)
    before = traffic.first_tokens()

    traffic.measured()
    traffic.keep_tunnels(set())
    here.first_token(0.01)

    assert before == {"m": {first_token_step(0.01): 2}}
    assert traffic.first_tokens() == {"m": {first_token_step(0.01): 3}}
    assert not traffic.tunnels


async def test_priorities_are_minded_once_they_meet_and_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives up waiting is before nobody any more; a normal one alone changes nothing."""
    tiny, now_s = Traffic().of(ModelId("tiny")), 100.0
    monkeypatch.setattr("meshllm.proxy.traffic.monotonic", lambda: now_s)
    tiny.mind(Priority.NORMAL)
    tiny.in_flight = 2
    alone = tiny.is_minding

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(tiny.one_ended((one, 1.0))) for one in (Priority.LOW, Priority.NORMAL)]
        await asyncio.sleep(0)
        meeting, waiting = tiny.is_minding, [tiny.before(one) for one in (Priority.LOW, Priority.NORMAL, Priority.HIGH)]
        for task in tasks:
            task.cancel()
    left = tiny.before(Priority.LOW)
    now_s += limits.PRIORITY_MINDED_S

    assert (alone, meeting, tiny.is_minding) == (False, True, False)
    assert (waiting, left) == ([4, 3, 2], 2)
