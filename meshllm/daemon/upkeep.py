"""What a node looks after while it serves: the files of its models, and whether they are what they were.

Owns the moments at which that is done. Decides nothing: the inventory finds out, the core judges.
"""

import asyncio
from collections.abc import Callable, Mapping

from meshllm.core.announcement import Announcement
from meshllm.core.catalog import ModelSpec
from meshllm.core.engines import EngineState
from meshllm.core.events import Event, HealthAsked
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import HEALTH_CHECK_TIMEOUT_S
from meshllm.core.view import MeshView
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


async def check_health(
    views: CurrentView, watcher: ModelWatcher | None, post: Callable[[Event], None], model: ModelId | None = None
) -> None:
    """Look at files and engines, have the other hosts of a model, or of all, do so; return when the view shows it.

    When that takes too long, with what is known by then.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(HEALTH_CHECK_TIMEOUT_S):
            if watcher is not None:
                await watcher.look()
            asked_s = loop.time()
            view = views.newest
            said = _said_by_hosts(view, model)
            post(HealthAsked(model=model))
            while not _is_looked_at(view, asked_s, said):
                view = await views.changed(view.epoch)
    except TimeoutError:
        return  # what is known is told, with its time


def _said_by_hosts(view: MeshView, model: ModelId | None) -> dict[NodeId, Announcement]:
    """Return the newest statements of the other hosts that this node can ask."""
    hosts = view.replicas.values() if model is None else [view.replicas.get(model, ())]
    members = [view.members.get(replica.node) for replicas in hosts for replica in replicas]
    return {one.announcement.node: one.announcement for one in members if one is not None and one.connected}


def _is_looked_at(view: MeshView, asked_s: float, said: Mapping[NodeId, Announcement]) -> bool:
    """Tell whether this node's models were looked at since, and every host has said something new or is gone."""
    own = [model.checks for model in view.local.values() if not model.adopted_from]
    if any(checks is None or checks.checked_s < asked_s for checks in own):
        return False
    return all(
        member is None or not member.connected or member.announcement.supersedes(old)
        for node, old in said.items()
        for member in [view.members.get(node)]
    )
