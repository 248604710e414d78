"""Files come, grow and go while the watcher runs, and it tells every difference once."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshllm.inventory.digests import DigestStore
from meshllm.inventory.model_files import Inventory
from meshllm.inventory.model_watcher import ModelWatcher
from tests.inventory.gguf_builder import llama, write

WAIT_S = 30.0


class Told:
    """Collects inventories and waits for one that is as wanted."""

    def __init__(self) -> None:
        self.inventories: list[Inventory] = []
        self._changed = asyncio.Event()

    def __call__(self, inventory: Inventory) -> None:
        """Take an inventory from the watcher."""
        self.inventories.append(inventory)
        self._changed.set()

    async def until(self, *ids: str, hashed: bool = False, name: str = "Test Model") -> Inventory:
        """Wait until the newest inventory has exactly these models of that name, with digests if `hashed`."""
        async with asyncio.timeout(WAIT_S):
            while True:
                newest = self.inventories[-1] if self.inventories else None
                if (
                    newest is not None
                    and tuple(spec.id for spec in newest.models) == ids
                    and all(spec.display_name == name and (spec.digest or not hashed) for spec in newest.models)
                ):
                    return newest
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def watching(folder: Path, told: Told, interval_s: float = 0.02) -> AsyncIterator[ModelWatcher]:
    """Run a watcher for the length of a block."""
    store = DigestStore(folder.parent / f"{folder.name}.digests.json")
    watcher = ModelWatcher((folder,), store, told, interval_s=interval_s)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watcher.run(), name="watcher")
        try:
            yield watcher
        finally:
            running.cancel()


async def test_an_empty_folder_is_told_too(tmp_path: Path) -> None:
    """The first inventory means that the node has looked."""
    told = Told()

    async with watching(tmp_path / "absent", told):
        inventory = await told.until()

    assert inventory == Inventory()


async def test_a_model_is_told_at_once_and_again_with_its_digest(tmp_path: Path) -> None:
    """Serving does not wait for the hash."""
    path = write(tmp_path / "models" / "A.gguf")
    told = Told()

    async with watching(path.parent, told):
        inventory = await told.until("A", hashed=True)

    assert told.inventories[0].models[0].digest == ""
    assert inventory.models[0].digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(told.inventories) == 2


@pytest.mark.rows("REG-5")
async def test_files_that_come_and_go_are_noticed_without_a_restart(tmp_path: Path) -> None:
    """REG-5."""
    folder = tmp_path / "models"
    write(folder / "A.gguf")
    told = Told()

    async with watching(folder, told):
        await told.until("A")
        write(folder / "B.gguf")
        await told.until("A", "B")
        (folder / "A.gguf").unlink()
        await told.until("B")
        write(folder / "next", llama(general__name="Replaced")).replace(folder / "B.gguf")
        inventory = await told.until("B", hashed=True, name="Replaced")

    assert inventory.models[0].digest == "sha256:" + hashlib.sha256((folder / "B.gguf").read_bytes()).hexdigest()


@pytest.mark.rows("REG-5")
async def test_a_rescan_does_not_wait_for_the_interval(tmp_path: Path) -> None:
    """`POST /v1/models/rescan`."""
    folder = tmp_path / "models"
    told = Told()

    async with watching(folder, told, interval_s=3600.0) as watcher:
        await told.until()
        write(folder / "A.gguf")
        watcher.rescan()
        inventory = await told.until("A")

    assert inventory.models[0].id == "A"


@pytest.mark.rows("REG-5")
async def test_whoever_asks_for_a_look_hears_when_it_was_told(tmp_path: Path) -> None:
    """Not before, and without waiting for the interval."""
    folder = tmp_path / "models"
    told = Told()

    async with watching(folder, told, interval_s=3600.0) as watcher:
        await told.until()
        write(folder / "A.gguf")
        await watcher.look()

    assert [spec.id for spec in told.inventories[-1].models] == ["A"]


@pytest.mark.rows("REG-17")
async def test_a_damaged_file_is_told_when_it_is_verified(tmp_path: Path) -> None:
    """Its digest was remembered from an earlier run, and its time is the same."""
    path = write(tmp_path / "models" / "A.gguf")
    told = Told()
    async with watching(path.parent, told):
        await told.until("A", hashed=True)
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    again = Told()

    async with watching(path.parent, again) as watcher, asyncio.timeout(WAIT_S):
        before = (await again.until("A", hashed=True)).models[0]
        watcher.verify(before)
        while not again.inventories[-1].models[0].damage:
            await watcher.look()

    assert not before.damage
    assert again.inventories[-1].models[0].inode == status.st_ino
