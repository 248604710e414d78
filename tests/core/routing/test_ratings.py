"""What speaks for and against each candidate."""

import pytest

from meshllm.core.routing.loads import Loads
from meshllm.core.routing.prefix_index import NO_PROMPT, PrefixIndex, Prompt
from meshllm.core.routing.ratings import Candidate, Rating, rate
from meshllm.core.routing_config import DEFAULT, RoutingConfig, ScoreWeights, patched
from tests.core.routing.routed import MODEL, a_candidate, a_prompt, candidates


class Known:
    """Loads and prompts as a test says."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.loads, self.index = Loads(), PrefixIndex()

    def rate(
        self, *of: Candidate, prompt: Prompt = NO_PROMPT, config: RoutingConfig = DEFAULT, now_s: float = 1.0
    ) -> list[Rating]:
        """Return the ratings of candidates."""
        return rate(of, prompt, config, loads=self.loads, index=self.index, now_s=now_s)

    def cached(self, name: str, prompt: Prompt) -> None:
        """Let an engine have read a prompt."""
        self.loads.opened((a_candidate(name).node, MODEL))
        self.index.answered(key := (a_candidate(name).node, MODEL), "", self.index.sent(key, "", prompt), None)

    def measured(self, name: str, tokens_per_s: float) -> None:
        """Let an engine have shown how quickly it reads."""
        self.loads.opened((a_candidate(name).node, MODEL)).read(int(tokens_per_s), 1.0, 0.0)


@pytest.mark.parametrize(
    ("said", "load"),
    [
        ({"busy": 0}, 0.0),
        ({"busy": 3}, 0.75),
        ({"busy": 4}, 1.0),
        ({"busy": 6}, 1.5),
        ({"busy": 1, "pressure": 0.9}, 0.9),
        ({"busy": 6, "pressure": 0.9}, 1.5),
        ({"slots": 0, "busy": 1}, 1.0),
    ],
)
def test_load_is_the_fuller_of_slots_and_memory_plus_the_queue(said: dict[str, object], load: float) -> None:
    """For each slot, so that large and small engines compare."""
    [rating] = Known().rate(a_candidate("a", **said))

    assert rating.load == pytest.approx(load)


def test_the_longest_beginning_that_is_cached_counts() -> None:
    """And nothing when the index is turned off, or the engine is another by now."""
    known, prompt = Known(), a_prompt(size=4096)
    known.cached("a", a_prompt(size=2048))

    [there, elsewhere] = known.rate(*candidates("a", "b"), prompt=prompt)
    [off] = known.rate(a_candidate("a"), prompt=prompt, config=patched(DEFAULT, {"enable_cache_optimization": False}))
    [restarted] = known.rate(a_candidate("a", life="2"), prompt=prompt)

    assert 0.4 < there.hit_share < 0.6
    assert there.new_tokens < 0.6 * elsewhere.new_tokens
    assert there.predicted_s < elsewhere.predicted_s
    assert (elsewhere.hit_share, off.hit_share, restarted.hit_share) == (0.0, 0.0, 0.0)


def test_hits_count_as_much_as_they_came_true_before() -> None:
    """An engine whose memory is short is believed less."""
    known, prompt = Known(), a_prompt()
    known.cached("a", prompt)
    known.loads.opened((a_candidate("a").node, MODEL)).hit(250, 1000, 0.0)

    [rating] = known.rate(a_candidate("a"), prompt=prompt)

    assert rating.hit_share == pytest.approx(0.25, abs=0.02)


def test_the_first_token_comes_after_the_way_the_queue_and_the_prompt() -> None:
    """8 KiB are 2,000 tokens and a bit: two seconds at a thousand a second."""
    known, prompt = Known(), a_prompt(size=8000)
    known.measured("a", 1000.0)
    known.loads.opened((a_candidate("a").node, MODEL)).served(8.0, 0.0)

    [idle] = known.rate(a_candidate("a", rtt_s=0.5), prompt=prompt)
    [full] = known.rate(a_candidate("a", busy=5), prompt=prompt)

    assert idle.predicted_s == pytest.approx(2.5, rel=0.01)
    assert full.wait_s == pytest.approx(4.0)
    assert full.predicted_s == pytest.approx(4.0 + 2 * 2.0, rel=0.01)


def test_prompts_that_are_being_read_come_before_the_next_one() -> None:
    """So a burst of long prompts spreads before any of them has shown up in an announcement."""
    known, prompt = Known(), a_prompt(size=8000)
    known.measured("a", 1000.0)
    known.measured("b", 1000.0)
    known.loads.opened((a_candidate("a").node, MODEL)).begin(3000, 1, 0.0)

    [a, b] = known.rate(*candidates("a", "b"), prompt=prompt)

    assert a.predicted_s > b.predicted_s + 3.0


def test_an_engine_that_nobody_measured_is_taken_for_an_average_one() -> None:
    """Neither avoided nor overrun."""
    known, prompt = Known(), a_prompt(size=8000)
    known.measured("a", 1000.0)
    known.measured("b", 3000.0)

    [a, b, c] = known.rate(*candidates("a", "b", "new"), prompt=prompt)

    assert b.predicted_s < c.predicted_s < a.predicted_s
    assert c.predicted_s == pytest.approx(1.0, rel=0.01)


def test_the_own_engine_says_itself_how_much_it_has() -> None:
    """Its number is of now; what was sent is in it already."""
    known = Known()
    for _ in range(3):
        known.loads.opened((a_candidate("a").node, MODEL)).begin(0, 1, 0.0)

    [here] = known.rate(a_candidate("a", is_here=True, busy=3, mark=5))
    known.loads.opened((a_candidate("a").node, MODEL)).begin(0, 1, 0.0)
    [later] = known.rate(a_candidate("a", is_here=True, busy=3, mark=5))

    assert (here.load, later.load) == (0.75, 1.0)


def test_who_had_more_than_its_share_lately_is_marked() -> None:
    """Shares are by slots: a large engine may have more."""
    known = Known()
    for name, sent in (("a", 20), ("b", 4), ("large", 20)):
        for _ in range(sent):
            known.loads.opened((a_candidate(name).node, MODEL)).begin(0, 1, 1.0)

    ratings = known.rate(a_candidate("a"), a_candidate("b"), a_candidate("large", slots=16))

    assert [rating.is_over for rating in ratings] == [True, False, False]
    assert [rating.is_over for rating in known.rate(*candidates("a", "b"), now_s=600.0)] == [False, False]


@pytest.mark.rows("RTE-11")
def test_the_composite_score_and_half_of_it_when_degraded() -> None:
    """0.4 for the cache, 0.4 for room, 0.2 for quota."""
    known, prompt = Known(), a_prompt(size=8192)
    known.cached("a", prompt)
    busy = a_candidate("a", busy=1, quota_left=0.5)

    [rating] = known.rate(busy, prompt=prompt)
    [sick] = known.rate(a_candidate("a", busy=1, quota_left=0.5, health="degraded"), prompt=prompt)
    [unchecked] = known.rate(busy, prompt=prompt, config=patched(DEFAULT, {"enable_quota_checks": False}))
    [otherwise] = known.rate(busy, config=RoutingConfig(score_weights=ScoreWeights(cache=0, load=2, quota=0)))

    expected = 0.4 * rating.hit_share + 0.4 * 0.75 + 0.2 * 0.5
    assert rating.score == pytest.approx(expected)
    assert sick.score == pytest.approx(expected / 2)
    assert unchecked.score == pytest.approx(expected + 0.1)
    assert otherwise.score == pytest.approx(1.5)
    assert known.rate(a_candidate("a", busy=9))[0].score == pytest.approx(0.2)
