"""One front door: where requests go, and what is learnt from them."""

import random
import time
from collections import Counter

import pytest

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.explain import Decision
from meshllm.core.routing.prefix_index import Prompt
from meshllm.core.routing.ratings import Candidate
from meshllm.core.routing.route_memory import Ask, Report, Reservation, RouteMemory
from meshllm.core.routing_config import DEFAULT, RoutingConfig, Strategy, patched
from tests.core.routing.routed import MODEL, a_candidate, a_prompt, candidates

THREE = tuple(candidates("a", "b", "c"))
CACHED = Report(prompt_tokens=2000, cached_tokens=2000, read_s=0.1)
READ = Report(prompt_tokens=2000, cached_tokens=0, read_s=2.0)


class Door:
    """A front door with a clock."""

    def __init__(self, config: RoutingConfig = DEFAULT, seed: int = 1) -> None:
        """Remember nothing yet."""
        self.memory = RouteMemory(random.Random(seed))
        self.config = config
        self.now_s = 0.0

    def choose(self, ask: Ask, among: tuple[Candidate, ...] = THREE) -> Decision:
        """Return a decision."""
        return self.memory.choose(among, ask, self.config, self.now_s)

    def send(self, ask: Ask, among: tuple[Candidate, ...] = THREE) -> tuple[str, Reservation]:
        """Let a request go where it should; return where, and its reservation."""
        decision = self.choose(ask, among)
        return decision.picked, self.memory.sent(decision.ratings[0], ask, self.config, self.now_s)

    def ask(
        self, ask: Ask, among: tuple[Candidate, ...] = THREE, *, takes_s: float = 0.5, report: Report | None = READ
    ) -> str:
        """Let a request go where it should and be answered; return where."""
        picked, reservation = self.send(ask, among)
        self.now_s += takes_s
        self.memory.begun(reservation, self.now_s)
        self.memory.ended(reservation, report, self.now_s)
        return picked


def test_round_robin_is_exactly_even() -> None:
    """Three hundred requests on three hosts are a hundred each, in whatever order they are listed."""
    door = Door(patched(DEFAULT, {"strategy": "round_robin"}))
    rng = random.Random(1)

    counts = Counter(door.ask(Ask(), tuple(rng.sample(THREE, 3))) for _ in range(300))

    assert counts == {"a": 100, "b": 100, "c": 100}


def test_turns_of_different_sets_are_their_own_and_bounded() -> None:
    """A host that comes or goes begins a round; a thousand sets are remembered."""
    door = Door(patched(DEFAULT, {"strategy": "round_robin"}))
    for number in range(1100):
        door.choose(Ask(), tuple(candidates("a", f"n{number}")))

    assert len(door.memory._turns) == 1024


def test_a_conversation_goes_on_where_its_prompt_is() -> None:
    """Without any session named."""
    door = Door()
    first = door.ask(Ask(prompt=a_prompt(size=8000)))

    later = {door.ask(Ask(prompt=a_prompt(size=8000 + 100 * turn), is_first=False), report=CACHED) for turn in range(6)}

    assert later == {first}


def test_with_the_index_off_nothing_is_remembered_of_prompts() -> None:
    """Load alone decides."""
    door = Door(patched(DEFAULT, {"enable_cache_optimization": False}))

    picked = {door.ask(Ask(prompt=a_prompt(), is_first=False)) for _ in range(3)}

    assert picked == {"a", "b", "c"}
    assert len(door.memory.index) == 0


def test_a_burst_spreads_although_nothing_is_announced_meanwhile() -> None:
    """Twelve requests at the same moment on three hosts with four slots each."""
    door = Door()

    counts = Counter(door.send(Ask(prompt=a_prompt()))[0] for _ in range(12))

    assert counts == {"a": 4, "b": 4, "c": 4}


def test_what_went_there_is_taken_off_when_it_ended_and_only_once() -> None:
    """However often its end is told, and whether or not an answer began."""
    door = Door()
    _, first = door.send(Ask(prompt=a_prompt()), THREE[:1])
    _, second = door.send(Ask(prompt=a_prompt()), THREE[:1])
    load = door.memory.loads.of((NodeId("a"), MODEL))
    assert load is not None
    assert load.sent == 2
    assert load.reading_tokens > 0

    door.memory.begun(first, 1.0)
    for _ in range(2):
        door.memory.ended(first, READ, 2.0)
        door.memory.ended(second, None, 2.0)
    door.memory.begun(second, 3.0)

    assert (load.sent, load.reading_tokens) == (0, 0)


def test_what_ends_after_an_announcement_came_is_taken_off_it() -> None:
    """Also when nobody decided anything in between: the announcement still says that the request runs."""
    door = Door()
    _, reservation = door.send(Ask(), THREE[:1])
    busy = a_candidate("a", busy=1, mark=2)

    door.memory.heard(lambda _: 2)
    door.memory.ended(reservation, READ, 1.0)

    assert door.choose(Ask(), (busy,)).ratings[0].load == 0.0


def test_answers_teach_speed_and_spelling() -> None:
    """2,000 tokens in two seconds, of 8,000 bytes."""
    door = Door()
    door.ask(Ask(prompt=a_prompt(size=8000)), THREE[:1], takes_s=3.0)

    load = door.memory.loads.of((NodeId("a"), MODEL))

    assert load is not None
    assert load.prefill_tokens_per_s == pytest.approx(1000.0)
    assert load.bytes_per_token == pytest.approx(4.0, rel=0.01)
    assert (load.service_s, load.first_byte_s) == (3.0, 3.0)


def test_an_answer_without_numbers_teaches_only_its_time() -> None:
    """Not every engine reports."""
    door = Door()
    door.ask(Ask(prompt=a_prompt()), THREE[:1], report=Report())

    load = door.memory.loads.of((NodeId("a"), MODEL))

    assert load is not None
    assert (load.prefill_tokens_per_s, load.bytes_per_token, load.service_s) == (0.0, 0.0, 0.5)


def test_cached_tokens_that_answers_report_correct_what_was_thought() -> None:
    """A host that forgot its prompt is no better than others any more."""
    door = Door()
    prompt = a_prompt()
    first = door.ask(Ask(prompt=prompt))
    for _ in range(8):
        door.ask(Ask(prompt=prompt, is_first=False), (a_candidate(first),), report=READ)

    [rating] = [one for one in door.choose(Ask(prompt=prompt)).ratings if one.name == first]

    assert rating.hit_share < 0.1


@pytest.mark.rows("RTE-9", "T11")
def test_latency_based_finds_the_quick_host_by_itself() -> None:
    """Two hundred milliseconds more at one of two: nine of ten requests go to the other."""
    door = Door(patched(DEFAULT, {"strategy": "latency_based"}))
    counts: Counter[str] = Counter()
    for _ in range(1000):
        picked, reservation = door.send(Ask(), tuple(candidates("slow", "quick")))
        door.now_s += 0.25 if picked == "slow" else 0.05
        door.memory.begun(reservation, door.now_s)
        door.memory.ended(reservation, Report(), door.now_s)
        counts[picked] += 1

    assert 0.9 <= counts["quick"] / 1000 < 1.0


def test_a_session_stays_put_for_twenty_minutes_and_after_a_death_moves_once() -> None:
    """A use every minute, under every strategy; the host that died comes back and does not get it back."""
    for strategy in Strategy:
        door = Door(patched(DEFAULT, {"strategy": strategy.value}))
        ask = Ask(session="user-abc-123", prompt=a_prompt())
        stays = {door.ask(ask, takes_s=60.0) for _ in range(20)}
        [home] = stays

        left = tuple(one for one in THREE if one.node != home)
        decision = door.choose(ask, left)
        moved = {door.ask(ask, left, takes_s=60.0) for _ in range(10)} | {
            door.ask(ask, takes_s=60.0) for _ in range(10)
        }

        assert decision.is_rebound
        assert len(moved) == 1
        assert moved != stays


def test_entry_nodes_pick_the_same_host_for_a_session_whatever_they_sent_before() -> None:
    """They share nothing but the view."""
    doors = [Door(seed=seed) for seed in range(3)]
    for number, door in enumerate(doors):
        for _ in range(5 * number):
            door.ask(Ask(prompt=a_prompt("xyz"[number])))

    for number in range(30):
        assert len({door.ask(Ask(session=f"s{number}", prompt=a_prompt())) for door in doors}) == 1


def test_after_its_time_a_session_is_free() -> None:
    """Where it moved to because of a death is forgotten then."""
    door = Door()
    ask = Ask(session="s")
    home = door.ask(ask)
    away = door.ask(ask, tuple(one for one in THREE if one.node != home))
    assert away != home

    door.now_s += 301.0

    assert door.ask(ask) == home


def test_a_session_keeps_its_model_where_that_is_open() -> None:
    """`auto` is one model for all of a conversation, although another has less to do by now."""
    door = Door()
    ask = Ask(session="user-abc-123")
    idle = {ModelId(name): (a_candidate("a", model=ModelId(name)),) for name in ("m1", "m2", "m3")}
    picked = ModelId(door.memory.choose_model(idle, ask, DEFAULT, 0.0).picked)
    door.memory.chose_model(picked, ask, DEFAULT, 0.0)

    busy = {**idle, picked: (a_candidate("a", model=picked, busy=9),)}

    assert door.memory.choose_model(busy, ask, DEFAULT, 200.0).picked == picked
    assert door.memory.choose_model(busy, Ask(), DEFAULT, 200.0).picked != picked


def test_where_the_model_is_open_the_least_loaded_one_is_chosen() -> None:
    """By all its hosts together, those that are well; what was sent since counts too."""
    door = Door()
    models = {
        ModelId("m1"): (a_candidate("a", model=ModelId("m1"), busy=3), a_candidate("b", model=ModelId("m1"))),
        ModelId("m2"): (
            a_candidate("a", model=ModelId("m2"), busy=2),
            a_candidate("x", model=ModelId("m2"), health="unhealthy"),
        ),
        ModelId("m3"): (),
    }

    decision = door.memory.choose_model(models, Ask(), DEFAULT, 0.0)
    for _ in range(2):
        door.send(Ask(), models[ModelId("m1")])

    assert decision.model == ""
    assert [(one.name, one.load) for one in decision.ratings] == [("m1", 0.375), ("m2", 0.5)]
    assert door.memory.choose_model(models, Ask(), DEFAULT, 0.0).picked == "m2"


def test_where_the_model_is_open_prompts_can_decide_too() -> None:
    """The model that has read this before."""
    door = Door(patched(DEFAULT, {"model_strategy": "cache_aware"}))
    models = {ModelId(name): (a_candidate("a", model=ModelId(name)),) for name in ("m1", "m2", "m3")}
    for _ in range(2):
        door.ask(Ask(prompt=a_prompt()), models[ModelId("m2")], report=CACHED)

    decision = door.memory.choose_model(models, Ask(prompt=a_prompt(), is_first=False), door.config, door.now_s)

    assert decision.picked == "m2"


def test_a_request_may_name_its_own_strategy() -> None:
    """The configured one counts for all others."""
    door = Door()

    decision = door.choose(Ask(strategy=Strategy.RANDOM))

    assert (decision.strategy, decision.reason) == (Strategy.RANDOM, "random")
    assert door.choose(Ask()).strategy is Strategy.CACHE_AWARE


@pytest.mark.parametrize("strategy", list(Strategy))
def test_what_is_foretold_is_what_happens_and_is_not_remembered(strategy: Strategy) -> None:
    """Somebody who looks changes nothing; where chance decides, one of its draws is shown."""
    config = RoutingConfig(strategy=strategy)
    looked, plain = RouteMemory(random.Random(1)), RouteMemory(random.Random(1))
    for memory in (looked, plain):
        memory.choose(THREE, Ask(), config, 1.0)
    before = [one.name for one in looked.choose(THREE, Ask(), config, 2.0).ratings]
    plain.choose(THREE, Ask(), config, 2.0)

    foretold = looked.foretold(THREE, config, 3.0)
    happened = looked.choose(THREE, Ask(), config, 3.0)

    assert happened == plain.choose(THREE, Ask(), config, 3.0)
    assert {one.name for one in foretold.ratings} == set(before)
    if strategy not in (Strategy.RANDOM, Strategy.WEIGHTED_RANDOM, Strategy.LATENCY_BASED):
        assert [one.name for one in foretold.ratings] == [one.name for one in happened.ratings]
    assert looked.foretold((), config, 3.0).picked == ""


def test_a_model_with_unhealthy_hosts_only_has_nobody_to_choose() -> None:
    """They are named with the reason."""
    decision = Door().choose(Ask(), (a_candidate("a", health="unhealthy"),))

    assert (decision.picked, decision.ratings) == ("", ())
    assert [(one.name, one.why) for one in decision.rejected] == [("a", "unhealthy")]
    assert Door().choose(Ask(), ()).picked == ""


def test_what_belongs_to_engines_that_are_gone_is_forgotten() -> None:
    """Loads, prompts and sums."""
    door = Door()
    door.ask(Ask(prompt=a_prompt()), THREE[:1])
    door.memory.choose_model({MODEL: THREE}, Ask(), DEFAULT, 0.0)

    door.memory.keep([(NodeId("b"), MODEL)])
    assert len(door.memory.index) == 0
    assert door.memory.loads.of((NodeId("a"), MODEL)) is None
    door.memory.keep([])

    assert len(door.memory.loads) == 0
    assert door.memory._summaries == {}


def fifty_models_on_twenty_hosts() -> dict[ModelId, tuple[Candidate, ...]]:
    """Return the mesh that decisions are measured on."""
    models = [ModelId(f"m{number}") for number in range(50)]
    return {
        model: tuple(a_candidate(f"n{host:02}", model=model, busy=host % 3, rtt_s=host / 1000) for host in range(20))
        for model in models
    }


@pytest.mark.rows("RTE-20")
def test_a_decision_takes_less_than_a_millisecond() -> None:
    """Fifty models on twenty hosts, with prompts that are known; processor time, because others use the machine too."""
    door, models, rng = Door(), fifty_models_on_twenty_hosts(), random.Random(1)
    prompts: list[Prompt] = [a_prompt(letter) for letter in "abcdefgh"]
    for _ in range(500):
        door.ask(Ask(prompt=rng.choice(prompts)), models[rng.choice(list(models))], takes_s=0.02)
    took_us = []
    for number in range(600):
        ask, among = Ask(prompt=prompts[number % 8]), models[ModelId(f"m{number % 50}")]
        began = time.thread_time_ns()
        door.choose(ask, among)
        took_us.append((time.thread_time_ns() - began) / 1000)

    took_us.sort()

    assert took_us[300] < 400
    assert took_us[594] < 1000
