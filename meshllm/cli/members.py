"""Members of the mesh as rows: what `nodes`, `status` and their `--json` show.

Owns the row's type, which stays as it is when the API grows, and its words for people. Doesn't talk to anybody.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from meshllm.cli.render import duration, size
from meshllm.cli.rows import Document, items, number, part, text

COLUMNS = ("NODE", "ID", "STATE", "ROLE", "RTT", "LINES", "MEMORY", "MODELS", "NOTE")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow:
    """A node of the mesh. Durations are seconds, round trips milliseconds, sizes bytes."""

    id: str
    name: str
    is_me: bool
    state: str
    """`alive`, `suspect`, `dead` or `left`, as this node sees it."""
    for_s: float | None
    role: str
    rights: list[str]
    connected: bool
    rtt_ms: float | None
    lines: int
    """Warm connections with it on which requests go."""
    heard_s: float | None
    memory_bytes: int
    """Of its GPUs, or of the machine where there is none; 0 for a client."""
    models: list[str]
    """What it serves."""
    loading: list[str]
    """What it is about to serve."""
    addresses: list[str]
    message: str
    """Why it is not reached; who told of it."""


def members_of(document: Document, key: str) -> list[MemberRow]:
    """Return the members in a list of a document, in its order."""
    entries = list(items(document, key))
    names = {text(entry, "id"): text(entry, "name") for entry in entries}
    return [_row(entry, names) for entry in entries]


def table(members: Sequence[MemberRow]) -> list[tuple[object, ...]]:
    """Return the cells under `COLUMNS`."""
    return [
        (
            f"{member.name} *" if member.is_me else member.name, member.id[:8], _state(member), member.role,
            "-" if member.rtt_ms is None else f"{member.rtt_ms:.1f} ms", member.lines or "-", size(member.memory_bytes),
            ", ".join([*member.models, *(f"{model} (loading)" for model in member.loading)]) or "-", member.message,
        )
        for member in members
    ]  # fmt: skip


def mesh_line(mesh: Document, members: Sequence[MemberRow]) -> str:
    """Return what a mesh is, in a line: its name, its size, and what this node may do in it."""
    if not mesh:
        return "none"
    alive = sum(member.state == "alive" for member in members)
    others = len(members) - alive
    missing = f", {others} not reached" if others else ""
    name = f"{text(mesh, 'name')} ({text(mesh, 'id')[:8]})" if text(mesh, "name") else text(mesh, "id")[:8]
    founder = ", founded here" if mesh.get("is_founder") else ""
    waiting = "; no member has let this node in yet, the log says why" if mesh.get("rights") == [] else ""
    return f"{name}: {alive} {'node' if alive == 1 else 'nodes'}{missing}{founder}{waiting}"


def _row(member: Document, names: dict[str, str]) -> MemberRow:
    memory = part(member, "memory")
    told_by = text(member, "vouched_by")
    via = f"told of by {names.get(told_by) or told_by[:8]}" if told_by else ""
    return MemberRow(
        id=text(member, "id"), name=text(member, "name"), is_me=member.get("is_me") is True,
        state=text(member, "state"), for_s=_number(member, "for_s"),
        role=text(member, "role"), rights=_texts(member, "rights"),
        connected=member.get("connected") is True, rtt_ms=_number(member, "rtt_ms"),
        lines=number(member, "lines"), heard_s=_number(member, "heard_s"),
        memory_bytes=number(memory, "gpu_total_bytes") or number(memory, "total_bytes"),
        models=_models(member, ready=True), loading=_models(member, ready=False), addresses=_texts(member, "addresses"),
        message="; ".join(words for words in (text(member, "why"), via) if words),
    )  # fmt: skip


def _models(member: Document, *, ready: bool) -> list[str]:
    """Return the models that a member answers for now, or those that it is about to."""
    return [text(model, "id") for model in items(member, "models") if (text(model, "state") == "ready") is ready]


def _state(member: MemberRow) -> str:
    """Return the state; for how long, where somebody is missed."""
    return member.state if member.state == "alive" else f"{member.state} {duration(member.for_s)}"


def _number(document: Document, key: str) -> float | None:
    value = document.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _texts(document: Document, key: str) -> list[str]:
    value = document.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
