"""What the engines of this node count themselves, asked for when somebody wants it.

Owns asking all of them at the same time. Decides which are asked: those that run here and are ours; an adopted server
has metrics of its own. Doesn't read what they say.
"""

import asyncio
from collections.abc import Mapping

from meshllm.core.engines import EngineEndpoint
from meshllm.core.ids import ModelId
from meshllm.core.limits import ENGINE_PROBE_TIMEOUT_S
from meshllm.core.view import MeshView
from meshllm.engine import health


async def metrics_of(view: MeshView, within_s: float = ENGINE_PROBE_TIMEOUT_S) -> Mapping[ModelId, str | None]:
    """Return what each engine tells, as text; None of one that does not answer in time."""
    asked = {
        name: model.endpoint for name, model in view.local.items()
        if model.endpoint is not None and not model.endpoint.is_adopted
    }  # fmt: skip
    told = await asyncio.gather(*(_told(endpoint, within_s) for endpoint in asked.values()))
    return dict(zip(asked, told, strict=True))


async def _told(endpoint: EngineEndpoint, within_s: float) -> str | None:
    try:
        return await health.metrics(endpoint, within_s)
    except health.ProbeError:
        return None
