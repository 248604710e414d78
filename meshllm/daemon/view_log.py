"""What changed of this node's models from one view to the next, for who reads the log at DEBUG.

Owns two kinds of lines: how a model's health was found, and how far it is on its way into memory. Decides nothing.
Doesn't know requests; what these do is told where they pass (`proxy.tracing`).
"""

import logging

from meshllm.core.ids import ModelId
from meshllm.core.serving.health import local_health
from meshllm.core.view import LocalModel, MeshView

health_log = logging.getLogger("meshllm.health")
loading_log = logging.getLogger("meshllm.loading")


def tell_changes(before: MeshView, view: MeshView) -> None:
    """Write down what is new in a view."""
    if not health_log.isEnabledFor(logging.DEBUG):
        return
    for name, model in view.local.items():
        old = before.local.get(name)
        if model is not old:
            _tell(name, model, old)


def _tell(name: ModelId, model: LocalModel, old: LocalModel | None) -> None:
    checks = model.checks
    if checks is not None and (old is None or checks != old.checks):
        found = {"model_id": name, "health": str(local_health(model)), **checks.facts, "reason": checks.reason}
        health_log.debug("Checked model health", extra={"fields": found})
    progress = model.progress
    if progress is not None and (old is None or progress != old.progress):
        far: dict[str, object] = {
            "model_id": name, "stage": progress.stage, "share": round(progress.share, 4),
            "done_bytes": progress.done_bytes, "total_bytes": progress.total_bytes, "peers": list(progress.peers),
        }  # fmt: skip
        loading_log.debug("Model on its way into memory", extra={"fields": far})
