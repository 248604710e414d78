"""Which model a request means: from the name that a client wrote to one model of a view.

Owns the order of the questions about names: reserved ones, digests, the index, and whether an unknown
name may become known in a moment. Decides which of several models of one file is meant. Doesn't know
whether the model answers; `routing` does. Pure.
"""

from collections.abc import Iterable

from meshllm.core.ids import ModelId
from meshllm.core.names import AUTO_NAME, DEFAULT_NAMES, Ambiguous, Unknown
from meshllm.core.remotes import ADOPTED_KIND
from meshllm.core.routing.open_model import open_meaning
from meshllm.core.routing.replicas import digests, in_order, pinned
from meshllm.core.routing.routes import Refusal, RefusalCode, RouteRequest, Wait
from meshllm.core.view import MeshView

_DIGEST_KINDS = ("sha256:", ADOPTED_KIND)
_DIGEST_CHARS = 12
"""Fewer digits could mean two files by chance."""


def meaning(view: MeshView, request: RouteRequest) -> tuple[ModelId, str] | Wait | Refusal:
    """Return the model that a request means and the digest that it insists on (empty for any).

    Otherwise why its name means none yet, or none at all.
    """
    asked = request.model or ""
    if asked in DEFAULT_NAMES:
        return _any_file(_default(view, asked))
    if asked == AUTO_NAME:
        return _any_file(open_meaning(view, request, _default(view, asked)))
    name, _, pin = asked.partition("@")
    if pin.startswith(_DIGEST_KINDS):
        return _pinned(view, name, pin, is_exact=request.is_forwarded)
    if request.is_forwarded and is_known(view, ModelId(asked)):
        return ModelId(asked), ""  # the entry node has chosen already, also among versions
    return _any_file(_named(view, asked))


def is_known(view: MeshView, model: ModelId) -> bool:
    """Tell whether somebody has this very model or wants it."""
    return model in view.local or model in view.replicas or model in view.cold


def ready_models(view: MeshView) -> list[ModelId]:
    """Return the models that answer somewhere, sorted."""
    here = {model.id for model in view.local.values() if model.is_ready}
    return sorted(here.union(model for model, replicas in view.replicas.items() if in_order(replicas)))


def one_file(view: MeshView, candidates: Iterable[ModelId]) -> ModelId | None:
    """Return the best of several models if all are the same file, else None: digests decide, never names."""
    known = {model: _digests_of(view, model) for model in candidates}
    if not known or len({digest for found in known.values() for digest in found}) != 1 or not all(known.values()):
        return None
    return min(known, key=lambda model: (*_distance(view, model), model))


def name_refused(view: MeshView, asked: str, found: Unknown | Ambiguous) -> Refusal:
    """Return the refusal of a name that leads to no model, with the names that were perhaps meant."""
    if isinstance(found, Ambiguous):
        return ambiguous(asked, list(found.candidates))
    return not_found(view, asked, found.near)


def ambiguous(asked: str, candidates: list[str] | list[ModelId]) -> Refusal:
    """Return the refusal of a name that several files have."""
    message = f"the model name {asked!r} could mean any of: {', '.join(candidates)}"
    return Refusal(code=RefusalCode.AMBIGUOUS_MODEL, message=message, model=asked)


def not_found(view: MeshView, asked: str, near: tuple[str, ...]) -> Refusal:
    """Return the refusal of a name that nothing has."""
    reason = ""
    if _is_path(asked):
        reason, near = ": models are asked for by name, not by path", _names_of_file(view, asked) or near
    if near:
        hint = f"; did you mean {' or '.join(near)}?"
    elif view.local or view.replicas or view.cold:
        hint = "; GET /v1/models lists what there is"
    else:
        hint = "; there are no models yet"
    message = f"the model {asked!r} does not exist{reason}{hint}"
    return Refusal(code=RefusalCode.MODEL_NOT_FOUND, message=message, model=asked, is_unknown=True)


def _any_file(found: ModelId | Wait | Refusal) -> tuple[ModelId, str] | Wait | Refusal:
    return found if isinstance(found, Wait | Refusal) else (found, "")


def _named(view: MeshView, asked: str) -> ModelId | Wait | Refusal:
    """Return the model that a name means in this view."""
    found = view.names.resolve(asked)
    if isinstance(found, Ambiguous):
        return one_file(view, found.candidates) or name_refused(view, asked, found)
    model = found if not isinstance(found, Unknown) and is_known(view, found) else ModelId(asked)
    if is_known(view, model) and not (asked in view.requested and _is_mere_wish(view, model)):
        return model
    if view.unread or (asked in view.requested and asked not in view.unresolved):
        return _looking(asked)
    if view.joining:
        return _joining(asked)
    return not_found(view, asked, found.near if isinstance(found, Unknown) else ())


def _is_mere_wish(view: MeshView, model: ModelId) -> bool:
    """Tell whether a model is only wanted: nobody has it or its file. What this node wants, it may still look for."""
    cold = view.cold.get(model)
    return cold is not None and not cold.nodes and model not in view.local and model not in view.replicas


def _pinned(view: MeshView, name: str, digest: str, *, is_exact: bool) -> tuple[ModelId, str] | Wait | Refusal:
    """Return the model of one file among all that a name may mean."""
    meant = (ModelId(name),) if is_exact else view.names.meant_by(name) or (ModelId(name),)
    found = {
        model: matching
        for model in meant
        if (matching := {one for one in _digests_of(view, model) if _is_meant(one, digest)})
    }
    if len({one for matching in found.values() for one in matching}) > 1:
        return ambiguous(
            f"{name}@{digest}", sorted(pinned(model, one) for model in found for one in found[model])
        )  # two files, and the digits that were given do not tell them apart
    if found:
        model = min(found, key=lambda model: (*_distance(view, model), model))
        return model, found[model].pop()
    if view.unread and not is_exact:
        return _looking(f"{name}@{digest}")
    if view.joining and not is_exact:
        return _joining(f"{name}@{digest}")
    message = f"no node has the file {digest!r} of the model {name!r}"
    if len(digest.partition(":")[2]) < _DIGEST_CHARS:
        message += "; a digest is given with at least 12 of its digits"
    return Refusal(code=RefusalCode.MODEL_NOT_FOUND, message=message, model=f"{name}@{digest}")


def _is_meant(digest: str, asked: str) -> bool:
    return digest == asked or (len(asked.partition(":")[2]) >= _DIGEST_CHARS and digest.startswith(asked))


def _looking(asked: str) -> Wait:
    return Wait(model=ModelId(asked), message=f"this node is looking for the model {asked!r}", is_asleep=False)


def _joining(asked: str) -> Wait:
    return Wait(model=ModelId(asked), message="this node is joining its mesh", is_asleep=False)


def _digests_of(view: MeshView, model: ModelId) -> set[str]:
    """Return the files that are known under an id, wherever they are."""
    local, cold = view.local.get(model), view.cold.get(model)
    found = set(digests(view.replicas.get(model, ())))
    if local is not None:
        found.add(local.digest)
    if cold is not None:
        found.add(cold.digest)
    return found - {""}


def _distance(view: MeshView, model: ModelId) -> tuple[bool, bool, bool]:
    """Return what orders models of one file: those that answer here, those that answer elsewhere, the others."""
    local = view.local.get(model)
    is_here = local is not None and local.is_ready
    return (not is_here, not in_order(view.replicas.get(model, ())), local is None)


def _is_path(asked: str) -> bool:
    """Tell whether a name is a file's path. `user/repo` is none."""
    return asked.startswith(("/", "~", "./", "../")) or (
        asked.lower().endswith(".gguf") and ("/" in asked or "\\" in asked)
    )


def _names_of_file(view: MeshView, path: str) -> tuple[str, ...]:
    """Return the names that a file's own name is like."""
    name = path.replace("\\", "/").rpartition("/")[2]
    found = view.names.resolve(name[:-5] if name.lower().endswith(".gguf") else name)
    if isinstance(found, Unknown):
        return found.near
    return found.candidates if isinstance(found, Ambiguous) else (found,)


def _default(view: MeshView, asked: str) -> ModelId | Wait | Refusal:
    """Return the model of the default register, wherever it is; without one, what others have ready.

    The register never moves by itself: a default that nobody has any more is told as that.
    """
    chosen = view.default_model
    if chosen is not None:
        found = view.names.resolve(chosen) if not is_known(view, chosen) else chosen
        if not isinstance(found, Unknown | Ambiguous) and is_known(view, found):
            return found
    if view.unread or any(name not in view.unresolved for name in view.requested):
        return Wait(model=ModelId(asked), message="this node is looking for its models", is_asleep=False)
    if chosen is None and (elsewhere := ready_models(view)):
        return elsewhere[0]
    if view.joining:
        return _joining(asked)
    message = "no model was named and there is no default model"
    if chosen is not None:
        message = f"no model was named, and the default model {chosen!r} is on no node of the mesh"
    return Refusal(code=RefusalCode.NO_DEFAULT_MODEL, message=message)
