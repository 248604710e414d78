"""Orders that came before the node knows what they mean: kept until it does, or until that takes too long.

Owns the orders that wait. Decides which of them are too early, by what the view says that this node has yet to find
out, and when they have waited long enough. Doesn't know what becomes of them: `remote_orders` carries them out.
"""

from dataclasses import dataclass

from meshllm.core.ids import ModelId
from meshllm.core.intents import Intent, Outcome, OutcomeCode, Verb
from meshllm.core.limits import FIRST_LOOK_WAIT_S
from meshllm.core.names import Unknown
from meshllm.core.routing.meaning import is_known
from meshllm.core.serving import scopes
from meshllm.core.view import MeshView

_MAY_FETCH = frozenset({Verb.LOAD, Verb.PULL})
"""What is loaded or fetched depends on the files here, and which file of a known model is fetched on the machine."""


@dataclass(frozen=True, slots=True)
class _Early:
    intent: Intent
    until_s: float


class EarlyOrders:
    """Orders that wait for the node to know itself."""

    def __init__(self) -> None:
        """Keep none."""
        self._kept: list[_Early] = []

    @property
    def is_empty(self) -> bool:
        """Tell whether no order waits."""
        return not self._kept

    def next_s(self) -> float | None:
        """Return when an order has waited long enough."""
        return min((early.until_s for early in self._kept), default=None)

    def keep(self, intent: Intent, now_s: float) -> None:
        """Keep an order until it means something."""
        self._kept.append(_Early(intent, now_s + FIRST_LOOK_WAIT_S))

    def ripe(self, view: MeshView) -> list[Intent]:
        """Return the orders whose time has come, in the order in which they were given; they are no longer kept."""
        found = [early.intent for early in self._kept if not unknown_yet(view, early.intent)]
        if found:
            self._kept = [early for early in self._kept if unknown_yet(view, early.intent)]
        return found

    def expired(self, view: MeshView, now_s: float) -> list[tuple[Intent, Outcome]]:
        """Return the orders that have waited long enough, with what they are told; they are no longer kept."""
        late = [early.intent for early in self._kept if early.until_s <= now_s]
        if late:
            self._kept = [early for early in self._kept if early.until_s > now_s]
        return [(intent, _too_early(unknown_yet(view, intent))) for intent in late]

    def given_up(self) -> list[Intent]:
        """Return all orders: the node leaves. None is kept."""
        kept, self._kept = self._kept, []
        return [early.intent for early in kept]


def unknown_yet(view: MeshView, intent: Intent) -> str:
    """Return what this node has to find out before it can tell what an order means; empty where it can."""
    is_for_mesh = intent.scope == scopes.MESH
    if not intent.model or (is_for_mesh and intent.verb not in _MAY_FETCH and is_known(view, ModelId(intent.model))):
        return ""
    if view.unread:
        return view.unread
    if view.resources is None and intent.verb in _MAY_FETCH:
        return "it is measuring its machine"
    if view.joining and is_for_mesh and intent.verb is not Verb.PULL and _is_unknown(view, intent.model):
        return "it is joining its mesh"
    return ""


def _is_unknown(view: MeshView, asked: str) -> bool:
    return isinstance(view.names.resolve(asked), Unknown) and not is_known(view, ModelId(asked))


def _too_early(reason: str) -> Outcome:
    message = f"this node has just started and cannot tell yet which models there are: {reason}; try again in a moment"
    return Outcome(code=OutcomeCode.STARTING, message=message)
