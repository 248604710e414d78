"""What people and programs are told of quotas: how much is used of what, when it begins anew, and which limit binds.

Owns the documents and the fields of answers. Decides which limit is the one to name: that of which least is left.
Doesn't count; the ledger does. Pure.
"""

from collections.abc import Mapping
from typing import Any

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.quotas.account import Account
from meshllm.core.quotas.kinds import FULL, OF_HOUR, OF_TOKENS, WINDOWED, Kind
from meshllm.core.quotas.ledger import QuotaLedger
from meshllm.core.quotas.windows import as_text


def report(
    ledger: QuotaLedger, model: ModelId, me: NodeId, now_unix_s: float, ram_mb: int = 0, ssd_gb: float = 0.0
) -> dict[str, object]:  # fmt: skip
    """Return how a model stands: the document of `GET /quotas/{model}/report`."""
    account, quotas = ledger.account(model, now_unix_s), ledger.register.of(model)
    windows = {str(kind): _window(account, kind) for kind in WINDOWED}
    most = quotas.max_concurrent_requests
    concurrent = {"used": account.in_flight, "limit": most or None}
    return {
        "model_id": model, "mode": str(ledger.mode(model, now_unix_s)), "binding": binding(ledger, model, now_unix_s),
        "windows": windows, "concurrent": concurrent,
        "burst": {"used": account.largest_tokens, "limit": quotas.burst_token_limit or None},
        "ram_mb": {"used": ram_mb, "limit": quotas.max_ram_mb or None},
        "ssd_gb": {"used": ssd_gb, "limit": quotas.max_ssd_gb or None},
        "violations": {
            "total": sum(account.violations.values()),
            "by_type": {str(kind): count for kind, count in sorted(account.violations.items())},
        },
        "nodes": _nodes(account, me),
    }  # fmt: skip


def binding(ledger: QuotaLedger, model: ModelId, now_unix_s: float) -> str | None:
    """Return the limit of which least is left; None where nothing is limited or nothing used."""
    account, quotas = ledger.account(model, now_unix_s), ledger.register.of(model)
    used = {kind: counter.percent for kind, counter in account.counters.items() if counter.limit}
    if quotas.max_concurrent_requests:
        used[Kind.CONCURRENT] = FULL * account.in_flight / quotas.max_concurrent_requests
    if not any(used.values()):
        return None
    return str(max(used, key=lambda kind: (used[kind], kind)))


def rate_limits(ledger: QuotaLedger, model: ModelId, now_unix_s: float) -> list[tuple[str, str]]:
    """Return the fields of an answer: of requests and of tokens, those of the window of which least is left."""
    if not ledger.register.of(model).is_limiting:
        return []
    account = ledger.account(model, now_unix_s)
    found: list[tuple[str, str]] = []
    for name, is_of_tokens in (("requests", False), ("tokens", True)):
        kinds = [kind for kind in WINDOWED if account.counters[kind].limit and (kind in OF_TOKENS) is is_of_tokens]
        if not kinds:
            continue
        kind = max(kinds, key=lambda one: account.counters[one].percent)
        counter, ends_unix_s = account.counters[kind], account.window(kind).ends_unix_s
        left = max(counter.limit - counter.used - counter.reserved, 0)
        found += [
            (f"x-ratelimit-limit-{name}", str(counter.limit)), (f"x-ratelimit-remaining-{name}", str(left)),
            (f"x-ratelimit-reset-{name}", f"{max(int(ends_unix_s - now_unix_s) + 1, 1)}s"),
        ]  # fmt: skip
    return found


def usage(report: Mapping[str, Any]) -> dict[str, float]:
    """Return how many percent are used, by type: the fuller limit of each window, and of requests that run."""
    found: dict[str, float] = {}
    for name in ("hourly", "daily"):
        windows = [report["windows"][f"{name}_{what}"] for what in ("tokens", "requests")]
        if said := [one["percent"] for one in windows if one["limit"]]:
            found[name] = max(said)
    for name in ("concurrent", "burst"):
        if (limit := report[name]["limit"]) is not None:
            found[name] = round(FULL * report[name]["used"] / limit, 2)
    return found


def remaining_tokens(report: Mapping[str, Any]) -> int | None:
    """Return how many tokens may still be used; None where they are not limited."""
    windows = [report["windows"][kind] for kind in (Kind.HOURLY_TOKENS, Kind.DAILY_TOKENS)]
    return min((one["remaining"] for one in windows if one["limit"]), default=None)


def _window(account: Account, kind: Kind) -> dict[str, object]:
    """Return one limit in its window; without a limit, nothing remains and nothing is missing."""
    counter, window = account.counters[kind], account.window(kind)
    return {
        "used": counter.used, "limit": counter.limit or None,
        "remaining": max(counter.limit - counter.used, 0) if counter.limit else None,
        "reserved": counter.reserved, "lease": counter.left if counter.limit else None,
        "percent": round(counter.percent, 2), "resets_at": as_text(window.ends_unix_s),
        "window": "hour" if kind in OF_HOUR else "day",
    }  # fmt: skip


def _nodes(account: Account, me: NodeId) -> list[dict[str, object]]:
    """Return who used how much of what."""
    found: dict[NodeId, dict[str, object]] = {}
    for kind in WINDOWED:
        for node, used in (*account.by_node(kind).items(), (me, account.counters[kind].spent)):
            found.setdefault(node, {"node_id": node})[str(kind)] = used
    return [found[node] for node in sorted(found)]
