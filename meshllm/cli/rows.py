"""What `--json` prints: the commands' own types, which stay as they are when the API grows.

Owns reading the node's status document, defensively: another version of the node may have written it. Doesn't
talk to anybody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshllm.core.catalog import ModelSpec
from meshllm.core.known_models import CATALOG_FILES

Document = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A model on this disk or in this node's memory. Sizes are bytes, contexts tokens."""

    id: str
    phase: str
    """As in the status document; `unloaded` when no node runs."""
    size_bytes: int
    quantization: str
    parameters: int
    architecture: str
    train_context_tokens: int
    capabilities: list[str]
    digest: str
    aliases: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    """Names and versions under which it is registered on this node, as `name@1.1.0`."""
    pinned: bool = False
    """It stays in this node's memory once it is there."""
    health: str = ""
    """`healthy`, `degraded`, `unhealthy`, `loading` or `unknown`."""
    context_tokens: int = 0
    slots: int = 0
    memory_bytes: int = 0
    requests: int = 0
    in_flight: int = 0
    pid: int | None = None
    ready_for_s: float | None = None
    progress: float | None = None
    """Share of the download or load that is done, 0 to 1."""
    message: str = ""
    """Why it is not ready: a failure, or what it waits for."""


def rows_of(document: Document) -> list[ModelRow]:
    """Return the models of a status document."""
    return [row_of(model) for model in _list(document, "models")]


def row_of_spec(spec: ModelSpec) -> ModelRow:
    """Return a model that was found on disk while no node runs."""
    return ModelRow(
        id=spec.id, phase="unloaded", size_bytes=spec.size_bytes, quantization=spec.quantization,
        parameters=spec.parameters, architecture=spec.architecture.name, digest=spec.digest,
        train_context_tokens=spec.architecture.context_tokens, capabilities=sorted(spec.capabilities),
        aliases=sorted(CATALOG_FILES.get(spec.id, ())),
    )  # fmt: skip


def row_of(model: Document) -> ModelRow:
    """Return one model of a status document."""
    failure, progress = part(model, "failure"), part(model, "progress")
    pid, ready_for, share = model.get("pid"), model.get("ready_for_s"), progress.get("share")
    return ModelRow(
        id=text(model, "id"), phase=text(model, "phase"), size_bytes=number(model, "size_bytes"),
        quantization=text(model, "quantization"), parameters=number(model, "parameters"),
        architecture=text(model, "architecture"), train_context_tokens=number(model, "train_context_tokens"),
        capabilities=texts(model, "capabilities"), digest=text(model, "digest"), aliases=texts(model, "aliases"),
        versions=texts(model, "versions"), health=text(model, "health_status"),
        pinned=model.get("pinned") is True,
        context_tokens=number(model, "context_tokens"), slots=number(model, "slots"),
        memory_bytes=number(model, "memory_bytes"), requests=number(model, "requests"),
        in_flight=number(model, "in_flight"), pid=pid if isinstance(pid, int) else None,
        ready_for_s=float(ready_for) if isinstance(ready_for, int | float) else None,
        progress=float(share) if isinstance(share, int | float) else None,
        message=text(failure, "message") or text(model, "waiting"),
    )  # fmt: skip


def problems_of(document: Document) -> list[tuple[str, str]]:
    """Return (path, message) of files that look like models and are none."""
    return [(text(problem, "path"), text(problem, "message")) for problem in _list(document, "problems")]


def part(document: Document, key: str) -> Document:
    """Return an object of a document; an empty one where there is none."""
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def text(document: Document, key: str) -> str:
    """Return a string of a document; an empty one where there is none."""
    value = document.get(key)
    return value if isinstance(value, str) else ""


def number(document: Document, key: str) -> int:
    """Return a whole number of a document; 0 where there is none."""
    value = document.get(key)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0


def items(document: Document, key: str) -> Iterable[Document]:
    """Return the objects of a list in a document."""
    return _list(document, key)


def texts(document: Document, key: str) -> list[str]:
    """Return the strings of a list in a document."""
    value = document.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _list(document: Document, key: str) -> list[Document]:
    value = document.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
