"""Conversations of engines on this node's disk: saved when an engine ends, read back when its model is loaded again.

Owns the folder and the files in it; engines write and read them. Decides nothing about which: `core.caches.slot_files`
does. Doesn't know when an engine ends.

Invariants: nothing here keeps an engine from ending or from being ready; a file is read once, so that one on which an
engine breaks is not there for the next.
"""

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path

from meshllm.core.cache_limits import SLOTS_RESTORE_S, SLOTS_SAVE_S
from meshllm.core.caches.slot_files import HeldSlot, SlotFile, going, slots_key, token_bytes, worth_saving
from meshllm.core.engines import EngineBuild, EngineEndpoint, EnginePlan
from meshllm.core.limits import disk_reserve_bytes
from meshllm.engine import health

log = logging.getLogger(__name__)

_SUFFIX, _READ_ONCE = ".slot", ".once"
_LEAST_S = 0.1
"""Of a deadline: with less left nothing is begun any more."""
NOTHING_RESTORED: Mapping[int, int] = {}


class SlotStore:
    """The saved conversations of a node."""

    def __init__(self, folder: Path) -> None:
        """Keep them in a folder, which is made with the first."""
        self.folder = folder
        self._most_bytes = 0
        self._reading: set[str] = set()

    def open_folder(self) -> str:
        """Return where an engine that is started now may save, with a slash; empty where nothing is saved."""
        if self._most_bytes <= 0:
            return ""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("conversations cannot be saved folder=%s reason=%s", self.folder, error)
            return ""
        return f"{self.folder}/"

    def keep(self, most_bytes: int) -> Coroutine[object, object, None]:
        """Take so many bytes of the disk from here on; return what removes all that is over."""
        self._most_bytes = most_bytes
        return self._tidied()

    async def save(
        self, endpoint: EngineEndpoint, plan: EnginePlan, build: EngineBuild, most_bytes: int,
        restored: Mapping[int, int] = NOTHING_RESTORED,
    ) -> int:  # fmt: skip
        """Save what an engine has of conversations, in so many bytes at most; return how many tokens that are.

        `restored` are the tokens of slots that were read back: an engine does not tell of them before they are used.
        """
        key, most_bytes = slots_key(plan, build), min(most_bytes, self._most_bytes)
        if not key or most_bytes <= 0:
            return 0
        ends_s, tokens = time.monotonic() + SLOTS_SAVE_S, 0
        try:
            held = worth_saving(await _held(endpoint, restored, _left(ends_s)), token_bytes(plan), most_bytes)
            need_bytes = int(sum(one.tokens for one in held) * token_bytes(plan))
            await asyncio.to_thread(self._make_room_for, key, need_bytes)
            for one in held:
                tokens += await self._saved(endpoint, one.slot, f"{key}-{one.slot}{_SUFFIX}", ends_s)
        except (health.ProbeError, OSError) as error:
            log.info("conversations were not saved model=%s reason=%s", plan.model.id, error)
        await self._tidied()
        if tokens:
            log.info("conversations saved model=%s tokens=%d", plan.model.id, tokens)
        return tokens

    async def restore(self, endpoint: EngineEndpoint, plan: EnginePlan, build: EngineBuild) -> Mapping[int, int]:
        """Have an engine read back what was saved of conversations; return the tokens of each slot that has some."""
        key = slots_key(plan, build)
        await self._tidied()
        if not key or self._most_bytes <= 0:
            return NOTHING_RESTORED
        ends_s, found = time.monotonic() + SLOTS_RESTORE_S, {}
        for slot in range(plan.slots):
            tokens = await self._restored(endpoint, key, slot, ends_s)
            if tokens:
                found[slot] = tokens
        if found:
            log.info("conversations read back model=%s tokens=%d", plan.model.id, sum(found.values()))
        return found

    # -- one file --------------------------------------------------------------------------------------

    async def _saved(self, endpoint: EngineEndpoint, slot: int, name: str, ends_s: float) -> int:
        """Save one slot; leave nothing of it where that fails. Raises ProbeError or OSError."""
        try:
            return await health.slot_action(endpoint, slot, "save", name, _left(ends_s))
        except (health.ProbeError, OSError, asyncio.CancelledError):
            await asyncio.to_thread(_remove, self.folder / name)
            raise

    async def _restored(self, endpoint: EngineEndpoint, key: str, slot: int, ends_s: float) -> int:
        """Read one slot back, if it was saved; return its tokens."""
        name = f"{key}-{slot}{_READ_ONCE}"
        self._reading.add(name)
        try:
            if not await asyncio.to_thread(_renamed, self.folder / f"{key}-{slot}{_SUFFIX}", self.folder / name):
                return 0
            return await health.slot_action(endpoint, slot, "restore", name, _left(ends_s))
        except (health.ProbeError, OSError) as error:
            log.info("a conversation was not read back slot=%d reason=%s", slot, error)
            return 0
        finally:
            self._reading.discard(name)
            await asyncio.to_thread(_remove, self.folder / name)

    # -- room ------------------------------------------------------------------------------------------

    async def _tidied(self) -> None:
        await asyncio.to_thread(self._make_room, 0)

    def _make_room_for(self, key: str, need_bytes: int) -> None:
        """Make room for what an engine saves in the place of what it saved before. Raises OSError where none is."""
        for file in self.folder.glob(f"{key}-*"):
            _remove(file)
        self._make_room(need_bytes)
        if shutil.disk_usage(self.folder).free < need_bytes + disk_reserve_bytes(need_bytes):
            raise OSError("the disk is nearly full")

    def _make_room(self, need_bytes: int) -> None:
        """Remove what is over; and what an engine broke on, or was ended while it read."""
        files = []
        with contextlib.suppress(OSError):  # no folder: nothing was ever saved
            for file in self.folder.iterdir():
                if file.suffix == _SUFFIX:
                    facts = file.stat()
                    files.append(SlotFile(name=file.name, size_bytes=facts.st_size, saved_s=facts.st_mtime))
                elif file.name not in self._reading:
                    _remove(file)
        for one in going(files, need_bytes, self._most_bytes):
            _remove(self.folder / one.name)


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("a saved conversation cannot be removed file=%s reason=%s", file, error)


def _renamed(saved: Path, name: Path) -> bool:
    """Rename a file, so that it is read once; tell whether it is there. Raises OSError."""
    try:
        saved.rename(name)
    except FileNotFoundError:
        return False
    return True


def _left(ends_s: float) -> float:
    """Return what is left of a deadline. Raises OSError where that is next to nothing."""
    left_s = ends_s - time.monotonic()
    if left_s < _LEAST_S:
        raise TimeoutError("it took too long")
    return left_s


async def _held(endpoint: EngineEndpoint, restored: Mapping[int, int], within_s: float) -> list[HeldSlot]:
    """Return what an engine's slots have. Raises ProbeError."""
    return [
        HeldSlot(slot=slot, tokens=tokens if task >= 0 else restored.get(slot, 0), task=task, is_busy=is_busy)
        for slot, tokens, task, is_busy in await health.conversations(endpoint, within_s)
    ]
