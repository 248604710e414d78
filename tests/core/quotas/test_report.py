"""What people are told of quotas: the documents of the specification."""

import pytest

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.quota_config import NO_QUOTAS
from meshllm.core.quota_use import QuotaUse, Spent
from meshllm.core.quotas.kinds import Admitted, Wanted
from meshllm.core.quotas.lease import Hosts
from meshllm.core.quotas.ledger import QuotaLedger
from meshllm.core.quotas.report import binding, rate_limits, report

MODEL, ME, OTHER = ModelId("phi-4"), NodeId("n1"), NodeId("n2")
NOW_S = 1800.0


def a_ledger(**limits: object) -> QuotaLedger:
    """Return a ledger of one model, of which another node used something, too."""
    ledger = QuotaLedger()
    said = {OTHER: {MODEL: QuotaUse(model=MODEL, hour=Spent(0, 400_000, 40), day=Spent(0, 500_000, 50))}}
    register = NO_QUOTAS.changed(MODEL, limits, ME)
    ledger.know(register, said, {MODEL: Hosts(me=ME, others={OTHER: True})}, NOW_S)
    return ledger


def use(ledger: QuotaLedger, tokens: int) -> None:
    """Let a request use so many tokens."""
    verdict = ledger.ask(MODEL, Wanted(prompt_tokens=1), NOW_S)
    assert isinstance(verdict, Admitted)
    ledger.settle(verdict.charge, tokens, NOW_S)


@pytest.mark.rows("QTA-11", "OPS-3")
def test_a_report_says_what_is_used_of_what_by_whom_and_which_limit_binds() -> None:
    """For each window: used, limit, remaining, percent, when it begins anew; and node by node."""
    ledger = a_ledger(hourly_token_limit=1_000_000, daily_request_limit=200_000, max_concurrent_requests=50)
    use(ledger, 275_000)

    found = report(ledger, MODEL, ME, NOW_S, ram_mb=41_200, ssd_gb=4.0)

    assert (found["model_id"], found["mode"], found["binding"]) == ("phi-4", "normal", "hourly_tokens")
    windows: dict[str, dict[str, object]] = found["windows"]  # type: ignore[assignment]
    assert windows["hourly_tokens"].items() >= {
        "used": 675_000, "limit": 1_000_000, "remaining": 325_000, "percent": 67.5,
        "resets_at": "1970-01-01T01:00:00Z", "reserved": 0,
    }.items()  # fmt: skip
    assert windows["daily_requests"].items() >= {"used": 51, "remaining": 199_949}.items()
    assert windows["daily_tokens"].items() >= {"used": 775_000, "limit": None, "remaining": None}.items()
    assert found["concurrent"] == {"used": 0, "limit": 50}
    assert (found["ram_mb"], found["ssd_gb"]) == ({"used": 41_200, "limit": None}, {"used": 4.0, "limit": None})
    assert found["violations"] == {"total": 0, "by_type": {}}
    nodes: list[dict[str, object]] = found["nodes"]  # type: ignore[assignment]
    assert [(one["node_id"], one["hourly_tokens"]) for one in nodes] == [("n1", 275_000), ("n2", 400_000)]


def test_what_was_refused_is_counted_by_its_limit() -> None:
    """In total and one by one."""
    ledger = a_ledger(hourly_request_limit=41, burst_token_limit=10)
    use(ledger, 5)

    for _ in range(2):
        ledger.ask(MODEL, Wanted(), NOW_S)

    found = report(ledger, MODEL, ME, NOW_S)
    assert (found["mode"], found["violations"]) == ("hard_limit", {"total": 2, "by_type": {"hourly_requests": 2}})


def test_running_requests_may_be_what_binds() -> None:
    """And nothing does before anything is used."""
    ledger = a_ledger(max_concurrent_requests=2, burst_token_limit=5)
    assert binding(ledger, MODEL, NOW_S) is None

    ledger.ask(MODEL, Wanted(prompt_tokens=1), NOW_S)

    assert binding(ledger, MODEL, NOW_S) == "concurrent"


def test_answers_name_the_window_of_which_least_is_left() -> None:
    """Of tokens and of requests, where they are limited; what runs is taken off."""
    ledger = a_ledger(hourly_token_limit=1_000_000, daily_token_limit=600_000, hourly_request_limit=100)
    ledger.ask(MODEL, Wanted(prompt_tokens=1000), NOW_S)

    assert rate_limits(ledger, MODEL, NOW_S) == [
        ("x-ratelimit-limit-requests", "100"), ("x-ratelimit-remaining-requests", "59"),
        ("x-ratelimit-reset-requests", "1801s"), ("x-ratelimit-limit-tokens", "600000"),
        ("x-ratelimit-remaining-tokens", "99000"), ("x-ratelimit-reset-tokens", "84601s"),
    ]  # fmt: skip
    assert rate_limits(a_ledger(max_concurrent_requests=1), MODEL, NOW_S) == []
    assert rate_limits(ledger, ModelId("other"), NOW_S) == []
