"""The newest view, for everybody who only reads, and a way to wait for the next one.

Owns one reference and the waiters on it. The loop is the only writer. Readers never block it.
"""

import asyncio

from meshllm.core.view import MeshView


class CurrentView:
    """Holds the newest `MeshView`."""

    def __init__(self, view: MeshView) -> None:
        """Start with a first view."""
        self.newest = view
        self._changed = asyncio.Event()

    def publish(self, view: MeshView) -> None:
        """Replace the view and wake whoever waits for a change. Does nothing if it is the same."""
        if view is self.newest:
            return
        self.newest = view
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self, epoch: int) -> MeshView:
        """Return the newest view as soon as its epoch differs from the given one."""
        while self.newest.epoch == epoch:
            await self._changed.wait()
        return self.newest
