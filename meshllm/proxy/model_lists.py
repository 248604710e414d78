"""The documents about models that are answered from memory, made once for each view.

Owns what is remembered of `GET /v1/models` and of one model. Decides when it is forgotten: with the view that it was
made from. Doesn't know connections nor heads; the front door answers with what it gets here.
"""

from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from meshllm.core import limits
from meshllm.core.known_models import CATALOG
from meshllm.core.routing.routes import Refusal, Wait
from meshllm.core.view import MeshView
from meshllm.proxy import openai
from meshllm.proxy.detail import model_detail
from meshllm.proxy.intake import Intake
from meshllm.proxy.listing import ListOptions, model_list

_REMEMBERED = 256
Answered = tuple[int, bytes, bytes]
"""Status, JSON, and further fields of the head, each with CR LF."""


class ModelLists:
    """Lists of models, and single ones, as JSON."""

    def __init__(self, retry_after_s: Callable[[], int]) -> None:
        """Remember nothing yet; `retry_after_s` says when whoever is refused should come back."""
        self._retry_after_s = retry_after_s
        self._known: dict[tuple[str, str], Answered] = {}
        self._epoch = -1

    def document(self, view: MeshView, intake: Intake) -> Answered:
        """Return (status, JSON, further fields of the head) of a list or of one model."""
        key = (intake.asked_model, intake.head.query)
        if view.epoch != self._epoch or len(self._known) >= _REMEMBERED:
            self._known.clear()
            self._epoch = view.epoch
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._new(view, intake)
        return known

    def _new(self, view: MeshView, intake: Intake) -> Answered:
        if not intake.asked_model:
            return 200, msgspec.json.encode(model_list(view, ListOptions.parse(intake.head.query), CATALOG)), b""
        asked = unquote(intake.asked_model)[: limits.MODEL_NAME_BYTES]
        found = model_detail(view, asked, CATALOG)
        if isinstance(found, Wait | Refusal):
            problem = _problem(found, self._retry_after_s())
            again_s = problem.retry_after_s
            lines = b"" if again_s is None else b"Retry-After: %d\r\n" % again_s
            return problem.status, openai.error_document(problem), lines
        return 200, msgspec.json.encode(found), b""


def _problem(found: Wait | Refusal, retry_after_s: int) -> openai.Problem:
    if isinstance(found, Refusal):
        return openai.refused(found, retry_after_s)
    return openai.Problem(
        status=503, code=openai.MODEL_LOADING, message=f"{found.message}; try again in a moment", param="model",
        retry_after_s=retry_after_s,
    )  # fmt: skip
