"""Versions of models: what may be registered, what others are told, what is known of a name in the whole mesh.

Owns these decisions as pure functions over a view and this node's registrations. Decides who comes in whose way:
one version of a name is one file, wherever it lies. Doesn't know where registrations are kept.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from meshllm.core.announcement import Announcement, NamedModel
from meshllm.core.catalog import ModelSpec
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import ANNOUNCED_NAMES, MODEL_ID_CHARS
from meshllm.core.names import RESERVED_NAMES
from meshllm.core.policy import ModelPolicy
from meshllm.core.registration import FIRST_VERSION, Registration, parse_version
from meshllm.core.remotes import ADOPTED_KIND
from meshllm.core.standing import LIVE
from meshllm.core.view import MeshView

VERBS = frozenset({"load", "register", "reload", "rescan", "status", "unload"})
"""Words of the API below `/v1/models/`, which no model can have."""
_ALIAS_CHARS = 64


@dataclass(frozen=True, slots=True)
class Objection:
    """Why something cannot be registered; `param` is the part of the request at fault."""

    code: str
    message: str
    param: str


def check_name(name: str, version: str, alias: str) -> Objection | None:
    """Return what is wrong with the words of a registration, whatever the file."""
    if name.casefold() in RESERVED_NAMES | VERBS:
        return Objection("reserved_name", f"{name!r} is a word of the API and cannot be a model's name", "id")
    if not 0 < len(name) <= MODEL_ID_CHARS or not name.isprintable() or "@" in name or name.strip("/ ") != name:
        return Objection("invalid_value", f"{name!r:.80} cannot be a model's name", "id")
    if parse_version(version) is None:
        message = f"a version is three numbers, such as {FIRST_VERSION}, not {version!r:.80}"
        return Objection("invalid_version", message, "version")
    if alias and not (len(alias) <= _ALIAS_CHARS and alias.isidentifier() and alias.isascii()):
        return Objection("invalid_value", "an alias is a short word such as stable", "alias")
    if len(f"{name}@{max(alias, version, key=len)}") > MODEL_ID_CHARS:
        return Objection("invalid_value", "name and version together are too long", "id")
    return None


def conflict(view: MeshView, mine: Iterable[Registration], new: Registration) -> Objection | None:
    """Return why a version cannot be this file: it is another one already, here or elsewhere in the mesh."""
    known = {(one.digest, view.me.name) for one in mine if (one.name, one.version) == (new.name, new.version)}
    for said in _announcements(view):
        if said.node == view.me.node and known:
            continue  # what is kept here is newer than what was said of it
        known |= {(digest, said.name) for digest in _digests_of(said, new.name, new.version)}
    other = sorted((digest, node) for digest, node in known if digest and digest != new.digest)
    if not other:
        return None
    digest, node = other[0]
    message = (
        f"{new.name} {new.version} is another file already: {digest[:19]}… on {node}, and this one is "
        f"{new.digest[:19]}…; give it another version"
    )
    return Objection("version_conflict", message, "version")


def with_registration(mine: Iterable[Registration], new: Registration) -> tuple[Registration, ...]:
    """Return the registrations with one more; an alias that it takes leaves the versions that had it."""
    kept = []
    for one in mine:
        if one.name != new.name:
            kept.append(one)
        elif one.version != new.version:
            kept.append(_without(one, new.aliases))
        else:
            old = tuple(alias for alias in one.aliases if alias not in new.aliases)
            new = _with_aliases(new, (*old, *new.aliases))
    return tuple(sorted((*kept, new), key=lambda one: (one.name, parse_version(one.version) or ())))


def _without(one: Registration, aliases: tuple[str, ...]) -> Registration:
    return _with_aliases(one, tuple(alias for alias in one.aliases if alias not in aliases))


def _with_aliases(one: Registration, aliases: tuple[str, ...]) -> Registration:
    return one if one.aliases == aliases else replace(one, aliases=aliases)


def names_said(
    policies: Mapping[ModelId, ModelPolicy], mine: Iterable[Registration], on_disk: Mapping[ModelId, ModelSpec]
) -> tuple[NamedModel, ...]:
    """Return the names that a node tells of: configured aliases and versions of files that it has.

    A version whose file was replaced by another is not told: it would be another model under its name. One whose file
    was renamed is.
    """
    said = [
        NamedModel(name=alias, model=model)
        for model, policy in policies.items() if model in on_disk
        for alias in policy.aliases
    ]  # fmt: skip
    by_digest = {spec.digest: model for model, spec in on_disk.items() if spec.digest}
    for one in mine:
        spec = on_disk.get(one.model)
        is_unchanged = spec is not None and spec.digest in ("", one.digest)
        model = one.model if is_unchanged else by_digest.get(one.digest)
        if model is None:
            continue
        names = (one.name, *(f"{one.name}@{alias}" for alias in one.aliases))
        said += [
            NamedModel(name=name, model=model, version=one.version, registered_unix_s=one.registered_unix_s)
            for name in names
        ]
    return tuple(sorted(said, key=lambda named: (named.name, named.version, named.model)))[:ANNOUNCED_NAMES]


# -- what is known of a name -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownVersion:
    """One version of a name in the whole mesh. Two files that call themselves the same version are two of these."""

    version: str
    model: ModelId
    digest: str
    size_bytes: int
    registered_unix_s: float
    nodes: tuple[NodeId, ...]
    """Those that have its file, sorted."""
    aliases: tuple[str, ...] = ()
    mine: Registration | None = None
    """This node's own registration of it."""


@dataclass(slots=True)
class _Found:
    model: ModelId
    size_bytes: int = 0
    registered_unix_s: float = 0.0
    nodes: set[NodeId] = field(default_factory=set)
    aliases: set[str] = field(default_factory=set)


def versions_of(view: MeshView, name: str) -> tuple[KnownVersion, ...]:
    """Return the versions of a name, the newest first; of a file's id where nobody registered it, its only one.

    `name` is a registered name or a model's canonical id.
    """
    found: dict[tuple[str, str], _Found] = {}
    for said in _announcements(view):
        files = _files_of(said)
        registered = [named for named in said.names if named.version and named.name == name]
        if ModelId(name) in files:
            model = ModelId(name)
            is_named = any(named.model == model for named in registered)
            registered += [] if is_named else [NamedModel(name=name, model=model, version=FIRST_VERSION)]
        for named in registered:
            digest, size_bytes = files.get(named.model, ("", 0))
            entry = found.setdefault((named.version, digest or said.node), _Found(named.model))
            entry.nodes.add(said.node)
            entry.size_bytes = max(entry.size_bytes, size_bytes)
            entry.registered_unix_s = max(entry.registered_unix_s, named.registered_unix_s)
            entry.aliases |= set(_aliases_of(said, name, named))
    _add_silent_nodes(view, found)
    ordered = sorted(found.items(), key=lambda item: (parse_version(item[0][0]) or (), item[0][1]), reverse=True)
    return tuple(_known(view, name, version, key, entry) for (version, key), entry in ordered)


def _add_silent_nodes(view: MeshView, found: Mapping[tuple[str, str], _Found]) -> None:
    """Count the nodes in that have a version's file without saying so."""
    for said in _announcements(view):
        have = {digest for digest, _ in _files_of(said).values()}
        for (_, digest), entry in found.items():
            if digest in have:
                entry.nodes.add(said.node)


def _known(view: MeshView, name: str, version: str, key: str, entry: _Found) -> KnownVersion:
    mine = [one for one in view.registered if (one.name, one.version) == (name, version)]
    digest = key if key.startswith(("sha256:", ADOPTED_KIND)) else ""
    return KnownVersion(
        version=version, model=entry.model, digest=digest, size_bytes=entry.size_bytes,
        registered_unix_s=entry.registered_unix_s, nodes=tuple(sorted(entry.nodes)),
        aliases=tuple(sorted(entry.aliases)), mine=mine[0] if mine and mine[0].digest == digest else None,
    )  # fmt: skip


def registered_names(view: MeshView, model: ModelId) -> tuple[str, ...]:
    """Return the names under which a file is registered somewhere, sorted."""
    return tuple(sorted({
        named.name
        for said in _announcements(view)
        for named in said.names
        if named.version and named.model == model and "@" not in named.name
    }))  # fmt: skip


def _aliases_of(said: Announcement, name: str, version: NamedModel) -> Iterator[str]:
    for named in said.names:
        base, _, alias = named.name.partition("@")
        if alias and base == name and (named.model, named.version) == (version.model, version.version):
            yield alias


def _digests_of(said: Announcement, name: str, version: str) -> set[str]:
    """Return the files that a node calls this version of a name; a file of that very id is its first version."""
    files = _files_of(said)
    named = [one.model for one in said.names if (one.name, one.version) == (name, version)]
    if version == FIRST_VERSION and not named and name in files:
        named = [ModelId(name)]
    return {files[model][0] for model in named if model in files}


def _files_of(said: Announcement) -> dict[ModelId, tuple[str, int]]:
    """Return digest and size of the models that a node has on its disk or in memory."""
    served = {one.model: (one.digest, one.size_bytes) for one in said.serving}
    return served | {one.model: (one.digest, one.size_bytes) for one in said.models_on_disk}


def _announcements(view: MeshView) -> Iterator[Announcement]:
    """Return what this node and the living others say, this node first."""
    yield view.me
    for node, member in sorted(view.members.items()):
        if node != view.me.node and member.state in LIVE:
            yield member.announcement
