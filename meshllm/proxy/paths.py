"""Which door a path leads to: an engine, the list of models, or the management app.

Owns the table of inference paths with what each needs of a model and how its body is shaped. Decides
by exact path. Doesn't know how a request is carried out.
"""

import re
from dataclasses import dataclass

from meshllm.core.routing.routes import Capability
from meshllm.proxy import shapes


@dataclass(frozen=True, slots=True)
class InferenceDoor:
    """One inference path: what the engine calls it, what it needs and how its body looks."""

    path: bytes
    shape: type[shapes.Common]
    needs: Capability | None
    is_anthropic: bool = False
    prompt_field: str = "messages"
    """The field that holds what the model is to read."""


_TEXT, _VECTOR, _ORDER = Capability.COMPLETION, Capability.EMBEDDING, Capability.RERANK
_CHAT = InferenceDoor(b"/v1/chat/completions", shapes.Chat, _TEXT)
_COMPLETION = InferenceDoor(b"/v1/completions", shapes.Completion, _TEXT, prompt_field="prompt")
_EMBEDDINGS = InferenceDoor(b"/v1/embeddings", shapes.Embeddings, _VECTOR, prompt_field="input")
_RERANK = InferenceDoor(b"/v1/rerank", shapes.Rerank, _ORDER, prompt_field="documents")

INFERENCE: dict[str, InferenceDoor] = {
    "/v1/chat/completions": _CHAT, "/chat/completions": _CHAT,
    "/v1/completions": _COMPLETION, "/completions": _COMPLETION,
    "/v1/embeddings": _EMBEDDINGS, "/embeddings": _EMBEDDINGS,
    "/v1/rerank": _RERANK, "/rerank": _RERANK, "/v1/reranking": _RERANK, "/reranking": _RERANK,
    "/v1/responses": InferenceDoor(b"/v1/responses", shapes.Responses, _TEXT, prompt_field="input"),
    "/v1/messages": InferenceDoor(b"/v1/messages", shapes.AnthropicMessages, _TEXT, is_anthropic=True),
    "/v1/messages/count_tokens": InferenceDoor(
        b"/v1/messages/count_tokens", shapes.AnthropicCount, None, is_anthropic=True
    ),
    "/infill": InferenceDoor(b"/infill", shapes.Infill, _TEXT, prompt_field="input_prefix"),
    "/tokenize": InferenceDoor(b"/tokenize", shapes.Tokenize, None, prompt_field="content"),
    "/detokenize": InferenceDoor(b"/detokenize", shapes.Detokenize, None, prompt_field="tokens"),
    "/apply-template": InferenceDoor(b"/apply-template", shapes.Chat, None),
}  # fmt: skip
"""Every path that an engine answers. All take POST only."""

MODELS = "/v1/models"
_MODELS_TOO = "/models"
_VERBS = frozenset({"load", "reload", "register", "rescan", "status", "unload"})
_SUFFIXES = ("/health", "/versions")
OPEN_PATHS = frozenset({"/health", "/healthz", "/readyz"})
"""Paths that need no key: whoever watches a node need not be able to use it."""
_REFERENCE = frozenset({"/docs", "/openapi.json"})
_CONSOLE = re.compile(
    r"/(?:index\.html|favicon\.(?:ico|png|svg)|apple-touch-icon\.png|manifest\.webmanifest|robots\.txt)?"
    r"|/assets/[A-Za-z0-9_-][A-Za-z0-9._-]*"
)
"""The web console: its page, what browsers ask for beside a page, and the one folder that a build writes."""


def is_open(method: str, path: str) -> bool:
    """Tell whether a request needs no key: probes, the console's files and the reference, the same for everybody.

    A browser asks for those before anybody could type a key; the page has the form for it.
    """
    if path in OPEN_PATHS:
        return True
    return method in {"GET", "HEAD"} and (path in _REFERENCE or _CONSOLE.fullmatch(path) is not None)


def is_about_models(path: str) -> bool:
    """Tell whether a path leads to models, or to the list of them, and administers nothing."""
    return path in INFERENCE or asked_model(path) is not None


def asked_model(path: str) -> str | None:
    """Return what follows `/v1/models/`, still escaped: "" for the list itself, None for other paths.

    Verbs of the management app (`/v1/models/unload`) and its suffixes are not models; a model of such
    a name is reached with an escaped slash.
    """
    for root in (MODELS, _MODELS_TOO):
        if path in {root, f"{root}/"}:
            return ""
        if path.startswith(f"{root}/"):
            name = path[len(root) + 1 :]
            return None if name in _VERBS or name.endswith(_SUFFIXES) else name
    return None
