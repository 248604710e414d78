"""The front door in a process of its own, in front of one engine that is always ready.

Owns a view that never changes. Doesn't run a node: no core, no engines, no management app.
"""

import asyncio
import sys
from pathlib import Path
from types import MappingProxyType

import uvloop

from meshllm.core.announcement import Announcement, Role
from meshllm.core.engines import EngineEndpoint, EngineState
from meshllm.core.events import Event
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.names import NameIndex
from meshllm.core.view import LocalModel, MeshView
from meshllm.proxy.front_door import FrontDoor, FrontDoorConfig

_NODE = NodeId("b" * 64)
_MODEL = ModelId("bench")


class StaticViews:
    """One view for ever."""

    def __init__(self, socket_path: str, slots: int) -> None:
        """Know one ready model behind a socket."""
        model = LocalModel(
            id=_MODEL, spec=None, state=EngineState.READY, wanted=True, slots=slots, context_tokens=8192,
            endpoint=EngineEndpoint(socket_path=socket_path, key="bench-key"),
        )  # fmt: skip
        me = Announcement(node=_NODE, name="bench", incarnation=1, version=1, role=Role.HOST, resources=None)
        self.newest = MeshView(
            epoch=1, at_s=0.0, me=me, members=MappingProxyType({}), groups=MappingProxyType({}),
            local=MappingProxyType({_MODEL: model}), names=NameIndex([_MODEL]), default_model=_MODEL,
        )  # fmt: skip

    async def changed(self, epoch: int) -> MeshView:
        """Wait for a change that never comes."""
        while self.newest.epoch == epoch:
            await asyncio.Event().wait()
        return self.newest


def _ignore(event: Event) -> None:
    """Drop an event: there is no core."""


async def _serve(socket_path: str, port: int) -> None:
    config = FrontDoorConfig(host="127.0.0.1", port=port, node=_NODE)
    door = FrontDoor(config, StaticViews(socket_path, slots=64), _ignore, Path("/nonexistent"))
    await door.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
