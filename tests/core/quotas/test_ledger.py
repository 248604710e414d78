"""Who is let in by quotas: the order of objections, throttling, what the log hears, and that no limit is passed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshllm.core.effects import Level
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.quota_config import NO_QUOTAS
from meshllm.core.quota_use import QuotaUse, Spent
from meshllm.core.quotas.kinds import Admitted, Charge, Kind, Mode, Refused, Wanted
from meshllm.core.quotas.lease import Hosts
from meshllm.core.quotas.ledger import QuotaLedger
from meshllm.core.routing.priorities import Priority

MODEL, ME = ModelId("tiny"), NodeId("me")
NOW_S = 1800.0
"""Half past midnight."""
ONE = Wanted(prompt_tokens=4, answer_tokens=6)


def a_ledger(me: NodeId = ME, others: tuple[NodeId, ...] = (), **limits: object) -> QuotaLedger:
    """Return a ledger with quotas of one model."""
    ledger = QuotaLedger()
    register = NO_QUOTAS.changed(MODEL, limits, me)
    ledger.know(register, {}, {MODEL: Hosts(me=me, others=dict.fromkeys(others, True))}, NOW_S)
    return ledger


def admitted(verdict: Admitted | Refused) -> Admitted:
    """Return a verdict that is good."""
    assert isinstance(verdict, Admitted), verdict
    return verdict


def refused(verdict: Admitted | Refused | None) -> Refused:
    """Return a verdict that is not."""
    assert isinstance(verdict, Refused), verdict
    return verdict


def use(ledger: QuotaLedger, tokens: int, now_s: float = NOW_S) -> Admitted:
    """Let a request use so many tokens."""
    verdict = admitted(ledger.ask(MODEL, Wanted(prompt_tokens=1, answer_tokens=0), now_s))
    ledger.settle(verdict.charge, tokens, now_s)
    return verdict


@pytest.mark.rows("QTA-1")
@pytest.mark.parametrize(
    ("limits", "kind", "retry_after_s"),
    [
        ({"hourly_token_limit": 15}, Kind.HOURLY_TOKENS, 1801), ({"daily_token_limit": 15}, Kind.DAILY_TOKENS, 84_601),
        ({"hourly_request_limit": 1}, Kind.HOURLY_REQUESTS, 1801),
        ({"daily_request_limit": 1}, Kind.DAILY_REQUESTS, 84_601),
    ],
)  # fmt: skip
def test_each_window_refuses_what_is_above_its_limit(
    limits: dict[str, object], kind: Kind, retry_after_s: int
) -> None:  # fmt: skip
    """And says when it begins anew."""
    ledger = a_ledger(**limits)
    use(ledger, 10)

    verdict = refused(ledger.ask(MODEL, ONE, NOW_S))

    assert (verdict.kind, verdict.retry_after_s) == (kind, retry_after_s)
    assert ledger.retry_after_s(MODEL, NOW_S) in {1, retry_after_s}
    assert refused(ledger.foresee(MODEL, ONE, NOW_S)).kind is kind
    assert isinstance(ledger.ask(MODEL, ONE, NOW_S + 86_400), Admitted)


def test_what_running_requests_have_reserved_may_come_back_soon() -> None:
    """So whoever is refused need not wait for the next hour."""
    ledger = a_ledger(hourly_token_limit=15)
    first = admitted(ledger.ask(MODEL, ONE, NOW_S))

    assert refused(ledger.ask(MODEL, ONE, NOW_S)).retry_after_s == 1
    ledger.refund(first.charge, NOW_S)
    assert isinstance(ledger.ask(MODEL, ONE, NOW_S), Admitted)
    assert ledger.taken_notices() == []


def test_a_request_that_is_too_large_is_never_let_in() -> None:
    """Also where limits only warn."""
    ledger = a_ledger(burst_token_limit=9, on_limit="warn")

    verdict = refused(ledger.ask(MODEL, ONE, NOW_S))

    assert (verdict.kind, verdict.retry_after_s) == (Kind.BURST, 0)


@pytest.mark.parametrize(
    ("limits", "choices", "expected"),
    [
        ({"hourly_token_limit": 30}, 1, 20), ({"hourly_token_limit": 30}, 2, 10), ({"burst_token_limit": 14}, 1, 4),
        ({"hourly_token_limit": 3000}, 1, 100), ({"hourly_request_limit": 3}, 1, None),
        ({"hourly_token_limit": 30, "on_limit": "warn"}, 1, None),
    ],
)  # fmt: skip
def test_an_answer_without_a_limit_gets_what_is_left(
    limits: dict[str, object], choices: int, expected: int | None
) -> None:  # fmt: skip
    """But no more than its engine would say, and only where tokens are limited."""
    ledger = a_ledger(**limits)

    wanted = Wanted(prompt_tokens=10, answer_tokens=None, most_answer_tokens=100, choices=choices)

    assert admitted(ledger.ask(MODEL, wanted, NOW_S)).answer_tokens == expected


@pytest.mark.rows("QTA-6")
def test_each_level_is_told_once_and_requests_wait_longer() -> None:
    """In each window: noted, warned of, throttled, throttled hard, refused."""
    ledger = a_ledger(hourly_token_limit=100, max_concurrent_requests=4)
    told, delays = [], []
    for tokens in (79, 1, 1, 4, 5, 5):
        delays.append(use(ledger, tokens).delay_s)
        told.append([(one.level, one.message) for one in ledger.taken_notices()])

    assert told == [
        [], [(Level.INFO, "Quota nearly used")], [], [(Level.WARNING, "Quota nearly used")],
        [(Level.WARNING, "Quota nearly used")], [(Level.ERROR, "Quota nearly used")],
    ]  # fmt: skip
    assert delays[:5] == [0.0] * 5
    assert 0 < delays[5] <= 2.0
    hard = admitted(ledger.ask(MODEL, Wanted(prompt_tokens=1), NOW_S))
    assert delays[5] < hard.delay_s <= 10.0
    admitted(ledger.ask(MODEL, Wanted(prompt_tokens=1), NOW_S))
    assert refused(ledger.ask(MODEL, Wanted(prompt_tokens=1), NOW_S)).kind is Kind.CONCURRENT
    urgent = Wanted(prompt_tokens=1, priority=Priority.HIGH)
    assert refused(ledger.ask(MODEL, urgent, NOW_S)).kind is Kind.CONCURRENT


@pytest.mark.rows("QTA-12")
def test_the_log_hears_of_a_limit_once_in_a_window() -> None:
    """In these words."""
    ledger = a_ledger(hourly_request_limit=1, soft_limits=[100, 100, 100, 100])
    use(ledger, 1)
    ledger.taken_notices()

    for _ in range(3):
        refused(ledger.ask(MODEL, ONE, NOW_S))
    first = ledger.taken_notices()
    use(ledger, 1, NOW_S + 3600)
    ledger.taken_notices()
    refused(ledger.ask(MODEL, ONE, NOW_S + 3600))

    assert [(one.level, one.message) for one in first] == [(Level.ERROR, "Quota exceeded")]
    assert [one.message for one in ledger.taken_notices()] == ["Quota exceeded"]
    assert ledger.account(MODEL, NOW_S + 3600).violations == {Kind.HOURLY_REQUESTS: 4}


def test_a_limit_that_only_warns_lets_everybody_in() -> None:
    """And the log says so."""
    ledger = a_ledger(hourly_request_limit=1, on_limit="warn")

    for _ in range(3):
        assert use(ledger, 5).delay_s == 0.0

    assert "Quota exceeded" in [one.message for one in ledger.taken_notices()]
    assert ledger.foresee(MODEL, ONE, NOW_S) is None


@pytest.mark.parametrize("way", ["operator", "pressure", "crowd"])
def test_in_an_emergency_only_urgent_requests_come_in(way: str) -> None:
    """Whoever declares it: people, the machine, the queue."""
    ledger = a_ledger(hourly_request_limit=100, emergency=way == "operator")
    if way == "pressure":
        ledger.emergencies = frozenset({MODEL})
    wanted = Wanted(prompt_tokens=1, is_crowded=way == "crowd")

    assert refused(ledger.ask(MODEL, wanted, NOW_S)).kind is Kind.EMERGENCY
    assert isinstance(ledger.ask(MODEL, Wanted(priority=Priority.HIGH), NOW_S), Admitted)
    assert (ledger.mode(MODEL, NOW_S) is Mode.EMERGENCY) is (way != "crowd")


def test_what_is_left_is_that_of_the_tightest_limit() -> None:
    """A model without limits has everything left."""
    ledger = a_ledger(hourly_token_limit=100, daily_token_limit=50)
    use(ledger, 40)

    assert ledger.left(MODEL, NOW_S) == pytest.approx(0.2)
    assert ledger.left(ModelId("other"), NOW_S) == 1.0
    assert ledger.mode(MODEL, NOW_S) is Mode.SOFT_LIMIT


def test_without_quotas_nothing_is_kept_but_what_was_used() -> None:
    """Limits that come back find it again."""
    ledger = a_ledger(hourly_token_limit=100)
    use(ledger, 40)
    limited = ledger.register

    ledger.know(limited.changed(MODEL, {"hourly_token_limit": 0}, ME), {}, {}, NOW_S)
    assert ledger.uses() == ()

    ledger.know(limited, {}, {}, NOW_S)
    assert ledger.account(MODEL, NOW_S).use() == QuotaUse(model=MODEL, hour=Spent(0, 40, 1), day=Spent(0, 40, 1))


@pytest.mark.parametrize(("action", "second"), [("reject", None), ("queue", None), ("throttle", 1.0), ("warn", 0.0)])
def test_a_request_that_comes_too_early_is_dealt_with_as_people_say(action: str, second: float | None) -> None:
    """Refused with when its time is, queued, delayed until then, or served with a line for the log."""
    ledger = a_ledger(max_requests_per_second=1, action=action)
    assert use(ledger, 5).delay_s == 0.0

    verdict = ledger.ask(MODEL, ONE, NOW_S)

    if second is None:
        found = refused(verdict)
        assert (found.kind, found.retry_after_s, found.may_queue) == (Kind.RATE, 2, action == "queue")
        assert isinstance(ledger.ask(MODEL, ONE, NOW_S + 1.01), Admitted)
    else:
        assert admitted(verdict).delay_s == pytest.approx(second)
    told = [one.message for one in ledger.taken_notices()]
    assert told == ([] if action == "throttle" else ["Quota exceeded"])


def test_a_request_that_would_be_delayed_for_too_long_is_refused() -> None:
    """Its client had better come back."""
    ledger = a_ledger(max_tokens_per_second=1, action="throttle")
    use(ledger, 500)

    assert refused(ledger.ask(MODEL, ONE, NOW_S)).retry_after_s > 400


def test_the_first_excess_is_forgiven_for_the_time_of_grace() -> None:
    """Then the action counts."""
    ledger = a_ledger(max_requests_per_second=1, grace_period_sec=5)
    for _ in range(10):
        use(ledger, 1)

    assert refused(ledger.ask(MODEL, ONE, NOW_S + 5)).kind is Kind.RATE


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 30), st.one_of(st.none(), st.integers(0, 60))),
        st.tuples(st.just("end"), st.integers(0, 20), st.integers(0, 100)),
        st.tuples(st.just("wait"), st.integers(0, 5000), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS, st.integers(0, 150), st.integers(0, 8))
@settings(max_examples=150, deadline=None)
def test_no_interleaving_passes_a_limit_at_one_host(
    steps: list[tuple[str, int, int | None]], tokens: int, requests: int
) -> None:
    """As long as no answer is longer than it may be; and what is over begins anew with the hour."""
    ledger, now_s, running = a_ledger(hourly_token_limit=tokens, hourly_request_limit=requests), NOW_S, list[Charge]()
    by_window: dict[int, tuple[int, int]] = {}
    for what, number, more in steps:
        if what == "wait":
            now_s += number
        elif what == "ask":
            verdict = ledger.ask(MODEL, Wanted(prompt_tokens=number, answer_tokens=more), now_s)
            running += [verdict.charge] if isinstance(verdict, Admitted) else []
        elif running:
            charge = running.pop(number % len(running))
            used = charge.tokens * (more or 0) // 100
            spent = by_window.get(charge.hour_unix_s, (0, 0))
            by_window[charge.hour_unix_s] = (spent[0] + used, spent[1] + 1)
            ledger.settle(charge, used, now_s)

    for spent_tokens, spent_requests in by_window.values():
        assert not tokens or spent_tokens <= tokens
        assert not requests or spent_requests <= requests


@pytest.mark.rows("QTA-15")
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40)), max_size=60), st.integers(1, 200), st.booleans())
@settings(max_examples=60, deadline=None)
def test_hosts_that_are_cut_off_use_their_leases_and_no_more(
    requests: list[tuple[int, int]], limit: int, is_cut: bool
) -> None:  # fmt: skip
    """Together no more than the limit, whatever comes in where."""
    nodes = [NodeId(letter) for letter in "abc"]
    register = NO_QUOTAS.changed(MODEL, {"hourly_token_limit": limit}, ME)
    ledgers = {node: QuotaLedger() for node in nodes}

    def gossip(now_s: float) -> None:
        said = {node: {use.model: use for use in ledger.uses()} for node, ledger in ledgers.items()}
        for node, ledger in ledgers.items():
            others = {one: not is_cut or now_s == NOW_S for one in nodes if one != node}
            heard = {one: uses for one, uses in said.items() if one != node and others[one]}
            ledger.know(register, heard, {MODEL: Hosts(me=node, others=others)}, now_s)

    gossip(NOW_S)
    for ledger in ledgers.values():
        ledger.account(MODEL, NOW_S)
    used = 0
    for number, (host, tokens) in enumerate(requests):
        ledger = ledgers[nodes[host]]
        verdict = ledger.ask(MODEL, Wanted(prompt_tokens=tokens), NOW_S)
        if isinstance(verdict, Admitted):
            used += tokens
            ledger.settle(verdict.charge, tokens, NOW_S)
        if number % 7 == 6:
            gossip(NOW_S + number * 10)

    assert used <= limit
