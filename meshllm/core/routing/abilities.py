"""What models can do: as their files show it, host by host, and as people say it, model by model.

Owns the union of both and its comparison with what a request wants. Decides that nobody is refused for what is merely
not known of a file; a tag that nobody gave is not there. Doesn't know names, nor which model a request gets. Pure.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from meshllm.core import limits
from meshllm.core.announcement import ServedModel
from meshllm.core.ids import ModelId
from meshllm.core.policy import ModelPolicy
from meshllm.core.registration import Registration
from meshllm.core.routing.routes import Capability, Refusal, RefusalCode, Route
from meshllm.core.view import LocalModel, MeshView, Replica

SHOWN = frozenset({"chat", "tools", *map(str, Capability)})
"""What a file shows of itself. A projector beside it counts, so two hosts of one file may differ. All else is a tag."""


class Able(NamedTuple):
    """Who of a model's hosts can do what is wanted."""

    is_here: bool
    elsewhere: tuple[Replica, ...]


def tags_here(view: MeshView, model: ModelId) -> frozenset[str]:
    """Return what people said on this node that a model can do."""
    return tags_of(model, view.policies.get(model), view.registered)


def tags_of(model: ModelId, policy: ModelPolicy | None, registered: Iterable[Registration]) -> frozenset[str]:
    """Return what people said that a model can do: in a configuration, and with registered versions of it."""
    said = frozenset(policy.tags) if policy is not None else frozenset()
    return said.union(*(one.notes.tags for one in registered if one.model == model))


def able(view: MeshView, wanted: Sequence[str], local: LocalModel | None, replicas: tuple[Replica, ...]) -> Able:
    """Return which hosts of one file can do all that is wanted. What is unknown of a file does not exclude it.

    A tag that one of them gives counts for all: it is said of the model.
    """
    if not wanted:
        return Able(local is not None, replicas)
    needed = frozenset(wanted)
    if not needed <= SHOWN:
        needed -= _tags(view, local, replicas)
    is_here = local is not None and needed <= _here(view, local)
    return Able(is_here, tuple(replica for replica in replicas if needed <= _there(replica.served)))


def known_abilities(view: MeshView, model: ModelId) -> tuple[str, ...]:
    """Return what a model is known to be able to do at any of its hosts, sorted; empty where nobody knows."""
    local = view.local.get(model)
    known = set(tags_here(view, model))
    if local is not None and local.spec is not None:
        known |= local.spec.capabilities
    for replica in view.replicas.get(model, ()):
        known.update(replica.served.capabilities)
    return tuple(sorted(known))


def not_able(view: MeshView, model: ModelId, wanted: Sequence[str], *, is_wish: bool) -> Refusal:
    """Return the refusal of a request for a model that cannot do what is wanted. `is_wish`: the body asked for it."""
    known = known_abilities(view, model)
    lacking = [one for one in wanted if one not in known] or wanted
    message = f"the model {model!r} cannot do {_listed(lacking)}; it can do: {', '.join(known)}"
    return Refusal(
        code=RefusalCode.CAPABILITY_NOT_SUPPORTED, message=message, model=model,
        param="capabilities" if is_wish else "",
    )  # fmt: skip


def none_able(view: MeshView, wanted: Sequence[str], models: Iterable[ModelId], *, is_wish: bool) -> Refusal:
    """Return the refusal of a request that leaves its model open and that none of these can serve, naming them."""
    said = [f"{model} ({', '.join(known_abilities(view, model)) or 'unknown'})" for model in sorted(models)]
    more = len(said) - limits.MODELS_NAMED
    there = "; ".join(said[: limits.MODELS_NAMED]) + (f"; and {more} more" if more > 0 else "")
    message = f"no model can do {_listed(wanted)}; there is: {there}"
    return Refusal(code=RefusalCode.NO_CAPABLE_MODEL, message=message, param="capabilities" if is_wish else "model")


def largest_context(view: MeshView, local: LocalModel) -> int:
    """Return the context that an engine of a model here would have at most, in tokens; 0 when unknown."""
    policy = view.policies.get(local.id)
    if policy is not None and policy.context_tokens:
        return policy.context_tokens
    return local.spec.architecture.context_tokens if local.spec is not None else 0


def large_enough(routes: tuple[Route, ...], min_context: int) -> tuple[Route, ...]:
    """Return the ways to engines that take so many tokens, or of which that is not known."""
    if not min_context:
        return routes
    return tuple(
        route for route in routes if not route.target.context_tokens or route.target.context_tokens >= min_context
    )


def too_small(what: str, min_context: int, largest: int) -> Refusal:
    """Return the refusal of a request that wants a larger context than there is. `what` has the largest."""
    message = f"a context of at least {min_context} tokens is wanted; the largest of {what} is {largest}"
    return Refusal(code=RefusalCode.CONTEXT_TOO_LONG, message=message, param="min_context")


def _tags(view: MeshView, local: LocalModel | None, replicas: tuple[Replica, ...]) -> frozenset[str]:
    """Return the tags that any host gives a file."""
    found = set() if local is None else set(tags_here(view, local.id))
    for replica in replicas:
        found.update(replica.served.capabilities)
    return frozenset(found - SHOWN)


def _here(view: MeshView, local: LocalModel) -> frozenset[str]:
    """Return what this node's own file may be able to do."""
    shown = local.spec.capabilities if local.spec is not None else frozenset()
    return (shown or SHOWN) | tags_here(view, local.id)


def _there(served: ServedModel) -> frozenset[str]:
    """Return what the file of another node may be able to do."""
    said = frozenset(served.capabilities)
    return said if said & SHOWN else said | SHOWN


def _listed(words: Sequence[str]) -> str:
    return " and ".join(map(str, words))
