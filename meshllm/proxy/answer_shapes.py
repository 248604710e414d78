"""What comes back from inference and from the lists of models, as types for the reference.

Owns the fields that clients rely on; engines add others of their own, which pass through. Decides nothing: nothing is
checked against these types but by tests. Doesn't know HTTP.
"""

from typing import Literal, TypedDict

Json = object


class Usage(TypedDict, total=False):
    """How much an answer was."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class SaidMessage(TypedDict, total=False):
    """What a model said; of a stream, a piece of it."""

    role: str
    content: str | None
    tool_calls: list[Json]
    reasoning_content: str


class ChatChoice(TypedDict, total=False):
    """One answer, `message` whole or `delta` of a stream."""

    index: int
    message: SaidMessage
    delta: SaidMessage
    finish_reason: str | None


class ChatAnswer(TypedDict, total=False):
    """A chat completion, or with `stream` one event of it; the last event is `[DONE]`."""

    id: str
    object: Literal["chat.completion", "chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage | None


class TextChoice(TypedDict, total=False):
    """One completion, or a piece of it."""

    index: int
    text: str
    finish_reason: str | None


class CompletionAnswer(TypedDict, total=False):
    """A completion, or with `stream` one event of it."""

    id: str
    object: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None


class EmbeddingEntry(TypedDict, total=False):
    """The vector of one input."""

    object: str
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(TypedDict, total=False):
    """Vectors in the order of their inputs."""

    object: str
    model: str
    data: list[EmbeddingEntry]
    usage: Usage


class RankedDocument(TypedDict, total=False):
    """How much a document has to do with the query."""

    index: int
    relevance_score: float


class RerankAnswer(TypedDict, total=False):
    """The documents in the order of their relevance."""

    model: str
    results: list[RankedDocument]
    usage: Usage


class NodeOfModel(TypedDict, total=False):
    """A node that serves a model, or has its file."""

    node_id: str
    name: str
    status: Literal["loaded", "unloaded", "reloading"]
    slots: int
    digest: str | None
    context_length: int
    health_status: str


class ModelEntry(TypedDict, total=False):
    """A model of the list; `default` and `auto` have the first four fields alone."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    status: Literal["loaded", "unloaded", "reloading"]
    phase: str
    health_status: str
    warm: bool
    enabled: bool
    preload: bool
    display_name: str
    path: str | None
    version: str
    use_count: int
    size_bytes: int
    architecture: str
    parameter_count: str
    context_length: int
    capabilities: list[str]
    input_modalities: list[str]
    tools_available: bool
    tags: list[str]
    meta: dict[str, Json]
    nodes: list[NodeOfModel]
    kind: str
    server: str
    progress: dict[str, Json]
    error: str
    reason: str
    waiting: str


class ModelVersion(TypedDict, total=False):
    """One version of a model."""

    version: str
    model: str
    digest: str | None
    size_bytes: int
    registered_at: str | None
    nodes: list[str]
    aliases: list[str]


class ModelInDetail(ModelEntry, total=False):
    """One model, with what the list does not tell."""

    default_model_id: str | None
    versions: list[ModelVersion]
    quota: Json
    aliases: list[str]
    digest: str | None
    health: dict[str, Json] | None
    files: list[str]
    memory: dict[str, int]


class ModelList(TypedDict):
    """All that can be asked for: `default` first, then ids sorted."""

    object: Literal["list"]
    data: list[ModelEntry]
    default_model: str | None
