"""What a node looks after while it serves: the files of its models, and whether they are what they were.

Owns the moments at which that is done. Decides nothing: the inventory finds out, the core judges.
"""

import asyncio
from collections.abc import Callable

from meshllm.core.catalog import ModelSpec
from meshllm.core.engines import EngineState
from meshllm.core.events import Event, HealthAsked
from meshllm.core.limits import HEALTH_CHECK_TIMEOUT_S
from meshllm.daemon.current_view import CurrentView
from meshllm.inventory.model_watcher import ModelWatcher


async def verify_loaded(views: CurrentView, verify: Callable[[ModelSpec], None]) -> None:
    """Have each file hashed again when an engine has just read it for the first time: it is in memory then anyway."""
    verified: set[tuple[str, int, float]] = set()
    view = views.newest
    while True:
        for model in view.local.values():
            spec = model.on_disk
            if model.state is EngineState.READY and spec is not None and spec.digest and spec.version not in verified:
                verified.add(spec.version)
                verify(spec)
        view = await views.changed(view.epoch)


async def check_health(views: CurrentView, watcher: ModelWatcher | None, post: Callable[[Event], None]) -> None:
    """Look at files and engines; return when the view shows it, or when that takes too long."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(HEALTH_CHECK_TIMEOUT_S):
            if watcher is not None:
                await watcher.look()
            asked_s = loop.time()
            post(HealthAsked())
            view = views.newest
            while any(model.checks is None or model.checks.checked_s < asked_s for model in view.local.values()):
                view = await views.changed(view.epoch)
    except TimeoutError:
        return  # what is known is told, with its time
