"""The documents about models that are answered from memory, made once for each view.

Owns what is remembered of `GET /v1/models` and of one model. Decides when it is forgotten: with the view that it was
made from. Doesn't know connections nor heads; the front door answers with what it gets here.
"""

from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from meshllm.core import limits
from meshllm.core.known_models import CATALOG
from meshllm.core.routing.routes import Refusal
from meshllm.core.view import MeshView
from meshllm.proxy import openai
from meshllm.proxy.detail import model_detail
from meshllm.proxy.intake import Intake
from meshllm.proxy.listing import ListOptions, model_list

_REMEMBERED = 256


class ModelLists:
    """Lists of models, and single ones, as JSON."""

    def __init__(self, retry_after_s: Callable[[], int]) -> None:
        """Remember nothing yet; `retry_after_s` says when whoever is refused should come back."""
        self._retry_after_s = retry_after_s
        self._known: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._epoch = -1

    def document(self, view: MeshView, intake: Intake) -> tuple[int, bytes]:
        """Return (status, JSON) of a list or of one model."""
        key = (intake.asked_model, intake.head.query)
        if view.epoch != self._epoch or len(self._known) >= _REMEMBERED:
            self._known.clear()
            self._epoch = view.epoch
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._new(view, intake)
        return known

    def _new(self, view: MeshView, intake: Intake) -> tuple[int, bytes]:
        if not intake.asked_model:
            return 200, msgspec.json.encode(model_list(view, ListOptions.parse(intake.head.query), CATALOG))
        asked = unquote(intake.asked_model)[: limits.MODEL_NAME_BYTES]
        found = model_detail(view, asked, CATALOG)
        if isinstance(found, Refusal):
            problem = openai.refused(found, self._retry_after_s())
            return problem.status, openai.error_document(problem)
        return 200, msgspec.json.encode(found)
