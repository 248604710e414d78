"""Keeps the inventory current while files come, grow and go, without a restart.

Owns the rhythm: when folders are looked at and which file is hashed next. Decides when the inventory has
changed. Doesn't know what a change means; it tells the complete new inventory.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from meshllm.core import limits
from meshllm.core.catalog import ModelSpec
from meshllm.inventory.digests import DigestStore, FileVersion
from meshllm.inventory.model_files import Inventory, ModelScanner


class ModelWatcher:
    """Looks at model folders again and again, and hashes what is found. One `run` at a time."""

    def __init__(
        self,
        folders: Sequence[Path],
        digest_store: DigestStore,
        on_change: Callable[[Inventory], None],
        interval_s: float = limits.MODEL_FOLDER_SCAN_S,
    ) -> None:
        """Take what to look at and whom to tell; `on_change` is called in the event loop."""
        self._scanner = ModelScanner(folders, digest_store)
        self._digests = digest_store
        self._on_change = on_change
        self._interval_s = interval_s
        self._woken = asyncio.Event()
        self._unhashed: list[FileVersion] = []
        self._unhashable: set[FileVersion] = set()
        self._doubtful: list[FileVersion] = []
        self._onlookers: list[asyncio.Event] = []
        self._has_work = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled. The first scan always calls `on_change`, later ones if they differ."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._scan_forever(), name="inventory-scan")
            tasks.create_task(self._hash_forever(), name="inventory-hash")

    def rescan(self) -> None:
        """Look at the folders at once. To be called in the event loop."""
        self._woken.set()

    async def look(self) -> None:
        """Look at the folders and return when that was told. The caller sets the deadline."""
        done = asyncio.Event()
        self._onlookers.append(done)
        self._woken.set()
        await done.wait()

    def verify(self, spec: ModelSpec) -> None:
        """Hash a model's files again, unless that was done since the start. To be called in the event loop."""
        self._doubtful += [one for one in self._scanner.versions_of(spec) if one not in self._doubtful]
        self._has_work.set()

    async def _scan_forever(self) -> None:
        last: Inventory | None = None
        while True:
            self._woken.clear()
            onlookers, self._onlookers = self._onlookers, []
            # No deadline: a dead network disk holds up this thread and nothing else, and a second one would too.
            inventory = await asyncio.to_thread(self._scanner.scan)
            if inventory != last:
                last = inventory
                self._on_change(inventory)
            self._plan_hashing(inventory)
            for done in onlookers:
                done.set()
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def _plan_hashing(self, inventory: Inventory) -> None:
        """Queue the files of models whose digest is unknown, small models first."""
        models = sorted((spec for spec in inventory.models if not spec.digest), key=lambda spec: spec.size_bytes)
        versions = [version for spec in models for version in self._scanner.versions_of(spec)]
        self._unhashable.intersection_update(versions)
        self._unhashed = [
            version for version in versions if version not in self._unhashable and not self._digests.digest_of(version)
        ]
        if self._unhashed:
            self._has_work.set()

    async def _hash_forever(self) -> None:
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            while self._unhashed:
                version = self._unhashed.pop(0)
                if not await self._digests.hash_file(version):
                    self._unhashable.add(version)
                self._woken.set()
            while self._doubtful and not self._unhashed:
                if await self._digests.verify_file(self._doubtful.pop(0)):
                    self._woken.set()
            if self._unhashed:
                self._has_work.set()
