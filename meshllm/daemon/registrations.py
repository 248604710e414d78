"""Versions that were registered on this node: kept in its state folder, told to the core.

Owns the entries and their file; one change after another. Decides only where a path may lead: to a model file inside
the model folders, links resolved. What may be called what is `core.serving.registry`'s.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from meshllm.api.deps import RegistrationWish, RegistryRefusalError
from meshllm.core.catalog import ModelSpec
from meshllm.core.events import Event, RegistryChanged
from meshllm.core.ids import ModelId
from meshllm.core.limits import HEALTH_CHECK_TIMEOUT_S, REGISTER_TIMEOUT_S, REGISTRATIONS
from meshllm.core.registration import Registration, RegistryNotes, parse_version
from meshllm.core.serving.registry import Objection, check_name, conflict, with_registration
from meshllm.core.view import MeshView
from meshllm.daemon import checked_file
from meshllm.daemon.current_view import CurrentView

log = logging.getLogger(__name__)

Entries = tuple[Registration, ...]
T = TypeVar("T")


class Registrations:
    """The registry of one node. All times are the loop's clock, except where they are written down."""

    def __init__(
        self, file: Path, places: Sequence[Path], views: CurrentView, look: Callable[[], Awaitable[None]],
        post: Callable[[Event], None], unix_s: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Keep entries in `file`, of models in `places`; `look` looks at those and returns when that was told."""
        self._file = file
        self._places = tuple(places)
        self._views = views
        self._look = look
        self._post = post
        self._unix_s = unix_s
        self._entries: Entries = ()
        self._changing = asyncio.Lock()

    def read(self) -> None:
        """Read what was registered before, and tell the core. Raises StartError; nothing else keeps a node down."""
        try:
            content = checked_file.read(self._file)
        except OSError as error:
            log.warning("registry not read path=%s error=%s", self._file, error)
            return
        rows = (content or {}).get("entries")
        found = [_entry(row) for row in rows] if isinstance(rows, list) else []
        self._entries = tuple(entry for entry in found if entry is not None)[:REGISTRATIONS]
        if len(self._entries) < len(found):
            log.warning("registry entries left out count=%d", len(found) - len(self._entries))
        if self._entries:
            self._post(RegistryChanged(entries=self._entries))

    async def register(self, wish: RegistrationWish) -> Registration:
        """Register a version when its file is known and hashed. Raises RegistryRefusalError."""
        _refuse(check_name(wish.name, wish.version, wish.alias))
        path = await asyncio.to_thread(_inside, wish.path, self._places)
        try:
            async with asyncio.timeout(REGISTER_TIMEOUT_S):
                spec = await self._hashed(await self._found(path))
        except TimeoutError:
            message = f"{path.name} is still being hashed; ask again"
            raise RegistryRefusalError("not_hashed_yet", message, "path") from None
        if wish.digest and wish.digest != spec.digest:
            message = f"the file is {spec.digest} and not {wish.digest}"
            raise RegistryRefusalError("digest_mismatch", message, "digest")
        new = Registration(
            name=wish.name, version=wish.version, model=spec.id, digest=spec.digest, path=spec.path,
            size_bytes=spec.size_bytes, registered_unix_s=self._unix_s(), notes=wish.notes,
            aliases=(wish.alias,) if wish.alias else (),
        )  # fmt: skip
        async with self._changing:
            _refuse(conflict(self._views.newest, self._entries, new))
            entries = with_registration(self._entries, new)
            if len(entries) > REGISTRATIONS:
                raise RegistryRefusalError("too_many", f"a node keeps at most {REGISTRATIONS} versions", "id")
            await self._change(entries)
        log.info("registered name=%s version=%s model=%s", new.name, new.version, new.model)
        return next(one for one in entries if (one.name, one.version) == (new.name, new.version))

    async def unregister(self, name: str, version: str) -> Registration:
        """Take a version back; its file stays. Raises RegistryRefusalError."""
        async with self._changing:
            gone = [one for one in self._entries if (one.name, one.version) == (name, version)]
            if not gone:
                message = f"no version {version!r:.80} of {name!r:.80} was registered on this node"
                raise RegistryRefusalError("version_not_found", message, "version")
            await self._change(tuple(one for one in self._entries if one is not gone[0]))
        log.info("unregistered name=%s version=%s", name, version)
        return gone[0]

    async def _change(self, entries: Entries) -> None:
        """Write entries down, then tell the core and wait until the view has them. Raises RegistryRefusalError."""
        rows = [asdict(entry) for entry in entries]
        try:
            await asyncio.to_thread(checked_file.write, self._file, {"entries": rows})
        except OSError as error:
            message = f"it cannot be written down: {error.strerror or error}"
            raise RegistryRefusalError("cannot_save", message) from error
        self._entries = entries
        self._post(RegistryChanged(entries=entries))
        await self._until(lambda view: view.registered == entries or None)

    async def _found(self, path: Path) -> ModelId:
        """Return the model whose file lies at a path, or alone in that folder. Raises RegistryRefusalError."""
        for _ in range(2):
            specs = [model.on_disk for model in self._views.newest.local.values() if model.on_disk is not None]
            found = await asyncio.to_thread(_at, path, specs)
            if len(found) > 1:
                names = ", ".join(found[:5])
                raise RegistryRefusalError("invalid_value", f"several models lie in {path.name}: {names}", "path")
            if found:
                return found[0]
            await self._look_now()
        raise RegistryRefusalError("invalid_model", _problem(self._views.newest, path), "path")

    async def _look_now(self) -> None:
        """Look at the model folders, and let the core hear of it."""
        before = self._views.newest.epoch
        try:
            async with asyncio.timeout(HEALTH_CHECK_TIMEOUT_S):
                await self._look()
                if self._views.newest.epoch == before:
                    async with asyncio.timeout(1.0):
                        await self._views.changed(before)
        except TimeoutError:
            return  # nothing new, most likely; a dead disk otherwise, which the caller finds no model on

    async def _hashed(self, model: ModelId) -> ModelSpec:
        """Return a model's file when its digest is known. Raises RegistryRefusalError."""

        def known(view: MeshView) -> ModelSpec | None:
            spec = _on_disk(model, view)
            if spec is None or spec.damage:
                why = spec.damage if spec is not None else "its file is gone"
                raise RegistryRefusalError("invalid_model", f"{model} cannot be registered: {why}", "path")
            return spec if spec.digest else None

        return await self._until(known)

    async def _until(self, of: Callable[[MeshView], T | None]) -> T:
        view = self._views.newest
        while (found := of(view)) is None:
            view = await self._views.changed(view.epoch)
        return found


def _on_disk(model: ModelId, view: MeshView) -> ModelSpec | None:
    known = view.local.get(model)
    return known.on_disk if known is not None else None


def _refuse(objection: Objection | None) -> None:
    if objection is not None:
        raise RegistryRefusalError(objection.code, objection.message, objection.param)


def _inside(written: str, places: Sequence[Path]) -> Path:
    """Return where a path leads, links resolved. Raises RegistryRefusalError unless that is in a model folder.

    What lies elsewhere is refused in the same words whether it is there or not.
    """
    try:
        path = Path(written).expanduser()
        roots = [place.expanduser().resolve() for place in places]
        tried = [path.resolve()]
        if not path.is_absolute():
            tried = [*((root / path).resolve() for root in roots), *tried]
        inside = [one for one in tried if any(one.is_relative_to(root) for root in roots)]
        if inside:
            return next((one for one in inside if one.exists()), inside[0])
    except (OSError, ValueError, RuntimeError):  # loops of links, zero bytes, nobody's home
        pass
    message = "the path has to lead to a model file in one of this node's model folders"
    raise RegistryRefusalError("path_not_allowed", message, "path")


def _at(path: Path, specs: Sequence[ModelSpec]) -> list[ModelId]:
    """Return the models that have a file there, or below it."""
    return sorted(spec.id for spec in specs if any(Path(file).resolve().is_relative_to(path) for file in spec.files))


def _problem(view: MeshView, path: Path) -> str:
    """Say why no model is at a path."""
    for problem in view.problems:
        if Path(problem.path).name == path.name:
            return f"{path.name} is no model that can be used: {problem.message}"
    return f"no model file is at {path.name}"


# -- on disk ---------------------------------------------------------------------------------------------


def _entry(row: object) -> Registration | None:
    """Return an entry as it was written down, or None where the row is none."""
    if not isinstance(row, dict):
        return None
    texts = [row.get(key) for key in ("name", "version", "model", "digest", "path")]
    size, since, aliases, notes = (row.get(key) for key in ("size_bytes", "registered_unix_s", "aliases", "notes"))
    if not all(isinstance(text, str) for text in texts) or not isinstance(size, int):
        return None
    if not isinstance(since, int | float) or not isinstance(aliases, list) or parse_version(str(texts[1])) is None:
        return None
    name, version, model, digest, path = map(str, texts)
    return Registration(
        name=name, version=version, model=ModelId(model), digest=digest, path=path, size_bytes=size,
        registered_unix_s=float(since), aliases=tuple(str(alias) for alias in aliases),
        notes=_notes(notes if isinstance(notes, dict) else {}),
    )  # fmt: skip


def _notes(row: Mapping[str, object]) -> RegistryNotes:
    def number(key: str) -> int | None:
        value = row.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(key: str) -> str:
        value = row.get(key)
        return value if isinstance(value, str) else ""

    temperature, tags = row.get("temperature"), row.get("tags")
    return RegistryNotes(
        max_workers=number("max_workers"), max_tokens=number("max_tokens"), context_length=number("context_length"),
        temperature=float(temperature) if isinstance(temperature, int | float) else None,
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (), source=text("source"),
        license=text("license"), format=text("format"), quantization=text("quantization"),
    )  # fmt: skip
