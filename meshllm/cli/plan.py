"""`mesh-llm plan`: where a request for a model would go now and why, and the memory that the model takes here.

Owns the lines. Decides nothing: the node says what it would do, and does nothing of it.
"""

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote

import typer

from meshllm.cli.node import open_node
from meshllm.cli.options import ConfigFile, Json, Model, Port, StateDir
from meshllm.cli.render import clean, print_facts, print_json, print_table
from meshllm.cli.rows import Document, items, number, part, text
from meshllm.core.resources import format_bytes

_DECISIONS = "5"


def command(
    ctx: typer.Context,
    model: Model,
    tokens: Annotated[
        int, typer.Option("--tokens", min=0, max=10**9 - 1, metavar="N", help="Of context that the request needs.")
    ] = 0,
    as_json: Json = False,
    port: Port = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Show where a request for a model would go now, and why."""
    client = open_node(ctx, port=port, state_dir=state_dir, config=config)
    plan = client.get("/api/explain", model=model, tokens=str(tokens), count=_DECISIONS)
    memory = part(client.get(f"/api/models/{quote(text(plan, 'model_id'), safe='')}"), "memory")
    if as_json:
        print_json({**plan, "memory": dict(memory)})
        return
    print_facts([
        ("model", text(plan, "model_id")), ("request", _verdict(plan)),
        ("strategy", f"{text(plan, 'strategy')}, decided by {text(plan, 'reason')}"),
        *((f"memory: {name}", value) for name, value in memory.items()), *_split(part(plan, "split")),
    ])  # fmt: skip
    if candidates := list(items(plan, "candidates")):
        print()
        print_table(
            ("NODE", "LOAD", "FIRST TOKEN", "LATELY", "SCORE", "REMARKS"), [_candidate(one) for one in candidates]
        )
    if rejected := list(items(plan, "rejected")):
        print()
        print_table(("NOT", "BECAUSE"), [(_node(one), clean(text(one, "why"))) for one in rejected])
    _print_split(part(plan, "split"))
    if decisions := list(items(plan, "decisions")):
        print()
        names = {text(one, "candidate"): _node(one) for one in (*candidates, *rejected)}
        print_table(("LAST REQUESTS", "WENT TO", "STRATEGY", "REASON"), [_decision(one, names) for one in decisions])


def _verdict(plan: Document) -> str:
    """Return what becomes of a request, in a sentence."""
    if plan.get("waits"):
        return f"waits: {text(plan, 'message')}"
    if code := text(plan, "code"):
        return f"is refused, {code}: {text(plan, 'message')}"
    first = next(iter(items(plan, "candidates")), {})
    return f"goes to {_node(first)}{' (this node)' if first.get('here') else ''}"


def _split(split: Document) -> list[tuple[str, object]]:
    """Return what is said of sharing the model among nodes; nothing of one that needs that not."""
    if not split:
        return []
    lines: list[tuple[str, object]] = [("split", clean(text(split, "message")))]
    if supposed := text(split, "supposing"):
        lines.append(("split: below", f"what it would be if {supposed}"))
    if list(items(split, "shares")):
        lines.append(
            ("split: network", f"{_per_token(split)} a token, with {number(split, 'context_tokens')} of context")
        )
    return lines


def _per_token(split: Document) -> str:
    wait_ms = _real(split, "token_wait_s") * 1000
    return f"{format_bytes(number(split, 'token_bytes'))} and at least {wait_ms:.0f} ms"


def _print_split(split: Document) -> None:
    """Print who would take what of a shared model, and what keeps the others out."""
    if shares := list(items(split, "shares")):
        print()
        print_table(("WOULD SHARE", "LAYERS", "MEMORY", "ROUND TRIP"), [_share(one) for one in shares])
    if nodes := list(items(split, "nodes")):
        print()
        rows = [(_node(one), clean(text(one, "why")), clean(text(one, "help")) or "-") for one in nodes]
        print_table(("NO SPLIT WITH", "BECAUSE", "WOULD HELP"), rows)


def _share(one: Document) -> tuple[str, ...]:
    first, count = number(one, "first_layer"), number(one, "layers")
    layers = f"{first + 1} to {first + count}" if count else "none"
    if one.get("is_host"):
        return f"{_node(one)} (host)", f"{layers}, and the output", format_bytes(number(one, "memory_bytes")), "-"
    return _node(one), layers, format_bytes(number(one, "memory_bytes")), f"{_real(one, 'rtt_s') * 1000:.1f} ms"


def _node(entry: Document) -> str:
    return text(entry, "node") or text(entry, "candidate")[:8]


def _candidate(one: Document) -> tuple[str, ...]:
    remarks = [
        text(one, "health") if text(one, "health") != "healthy" else "", "suspect" if one.get("suspect") else "",
        "had more than its share lately" if one.get("over_share") else "",
    ]  # fmt: skip
    return (
        _node(one), f"{_real(one, 'load'):.0%}", f"{_real(one, 'predicted_first_token_s') * 1000:.0f} ms",
        f"{_real(one, 'recent'):.1f} a slot", f"{_real(one, 'score'):.2f}",
        ", ".join(remark for remark in remarks if remark) or "-",
    )  # fmt: skip


def _decision(one: Document, names: Mapping[str, str]) -> tuple[str, ...]:
    ended = {True: "answered", False: "failed"}.get(one.get("ok"), "under way")  # type: ignore[call-overload]
    went = text(one, "went") or text(one, "picked")
    return (
        text(one, "request_id") or "-",
        f"{names.get(went, went[:8])}, {ended}",
        text(one, "strategy"),
        text(one, "reason"),
    )


def _real(entry: Document, key: str) -> float:
    value = entry.get(key)
    return float(value) if isinstance(value, int | float) else float(number(entry, key))
