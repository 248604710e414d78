"""What has changed in the status document since a follower last looked. Pure.

Owns the revision at which each part of the document changed last, and the document of changes. Decides what counts as
a change: durations that only grow with time do not. Doesn't know HTTP, nor who follows.
"""

from collections.abc import Callable, Mapping
from typing import Final

from meshllm.api.members import member_document, members_in_order, shows_addresses
from meshllm.api.mesh_models import mesh_model_document, mesh_model_inputs, phases_of
from meshllm.api.status import NodeFacts, facts_document, is_pinned, model_document, phase_of
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.view import MeshView

SECTIONS: Final = ("members", "models", "mesh_models")
"""The lists of the document whose entries change one by one; each entry has an `id`."""
AGES: Final = frozenset({"uptime_s", "for_s", "heard_s", "ready_for_s"})
"""Fields that grow with time by themselves: an entry that is not sent again grows older at its reader."""
COUNTDOWNS: Final = frozenset({"retry_in_s"})
"""Fields that shrink with time by themselves."""

Document = dict[str, object]
_Inputs = tuple[object, ...]


class _Section:
    """One list of the document: its entries in their order, and when each changed last."""

    def __init__(self) -> None:
        self.order: tuple[str, ...] = ()
        self.order_changed = 0
        self.changed: dict[str, int] = {}
        self.build: Callable[[str, float], Document] = _nothing
        self._inputs: Mapping[str, _Inputs] = {}
        self._known: dict[str, Document] = {}

    def take(self, inputs: Mapping[str, _Inputs], fixed_s: float, revision: int) -> bool:
        """Compare with what was known; tell whether anything differs. Entries of equal inputs are not built."""
        order, differs = tuple(inputs), False
        if order != self.order:
            for gone in self._known.keys() - inputs.keys():
                del self._known[gone], self.changed[gone]
            self.order, self.order_changed, differs = order, revision, True
        for key, now in inputs.items():
            if key in self._known and self._inputs[key] == now:
                continue
            document = self.build(key, fixed_s)
            if self._known.get(key) != document:
                self._known[key], self.changed[key], differs = document, revision, True
        self._inputs = inputs
        return differs

    def since(self, revision: int, now_s: float) -> list[Document]:
        """Return the entries that changed later than a revision, with their durations as of now."""
        return [self.build(key, now_s) for key in self.order if self.changed[key] > revision]


class StatusLedger:
    """The status document with its history in one number for each part: any follower may be served from it."""

    def __init__(self, fixed_s: float) -> None:
        """Know nothing. Documents are compared as they would be at `fixed_s`, so that time alone changes none."""
        self.revision = 0
        self._fixed_s = fixed_s
        self._sections = {name: _Section() for name in SECTIONS}
        self._facts: Document = {}
        self._facts_changed: dict[str, int] = {}
        self._facts_at: Callable[[float], Document] = lambda _: {}
        self._mesh_inputs: _Inputs = ()

    def take(self, view: MeshView, facts: NodeFacts, in_flight: Mapping[ModelId, int]) -> None:
        """Take the newest view. The revision is a new one if that changes anything but ages."""
        revision = self.revision + 1
        found = [
            self._take_facts(view, facts, revision),
            self._take_members(view, facts.lines, revision),
            self._take_models(view, in_flight, revision),
            self._take_mesh_models(view, revision),
        ]
        if any(found):
            self.revision = revision

    def changes(self, revision: int, now_s: float) -> Document:
        """Return what changed later than a revision: facts, entries, and whole orders where one differs, else null."""
        facts = self._facts_at(now_s)
        return {
            "facts": {name: facts[name] for name, changed in self._facts_changed.items() if changed > revision},
            "entries": {name: section.since(revision, now_s) for name, section in self._sections.items()},
            "order": {
                name: list(section.order) if section.order_changed > revision else None
                for name, section in self._sections.items()
            },
        }

    def _take_facts(self, view: MeshView, facts: NodeFacts, revision: int) -> bool:
        self._facts_at = lambda now_s: facts_document(view, now_s, facts)
        now = self._facts_at(self._fixed_s) | {"epoch": 0}  # which says nothing by itself
        changed = [name for name, value in now.items() if name not in self._facts or self._facts[name] != value]
        self._facts = now
        self._facts_changed.update(dict.fromkeys(changed, revision))
        if changed:
            self._facts_changed["epoch"] = revision
        return bool(changed)

    def _take_members(self, view: MeshView, lines: Mapping[NodeId, int], revision: int) -> bool:
        section = self._sections["members"]
        section.build = lambda node, now_s: member_document(
            view, view.members[NodeId(node)], now_s, lines.get(NodeId(node), 0)
        )
        inputs: dict[str, _Inputs] = {
            node: (view.members[node], shows_addresses(view, view.members[node]), lines.get(node, 0))
            for node in members_in_order(view)
        }
        return section.take(inputs, self._fixed_s, revision)

    def _take_models(self, view: MeshView, in_flight: Mapping[ModelId, int], revision: int) -> bool:
        section = self._sections["models"]
        section.build = lambda model, now_s: model_document(
            view, view.local[ModelId(model)], now_s, in_flight.get(ModelId(model), 0)
        )
        inputs: dict[str, _Inputs] = {
            model: (view.local[model], in_flight.get(model, 0), view.names, view.registered, is_pinned(view, model))
            for model in sorted(view.local)
        }
        return section.take(inputs, self._fixed_s, revision)

    def _take_mesh_models(self, view: MeshView, revision: int) -> bool:
        inputs = (view.members, view.replicas, view.cold, view.local, view.orders, view.demand)
        if self._mesh_inputs and all(old is new for old, new in zip(self._mesh_inputs, inputs, strict=True)):
            return False
        self._mesh_inputs = inputs
        phases, section = phases_of(view, phase_of), self._sections["mesh_models"]
        section.build = lambda model, _: mesh_model_document(view, ModelId(model), phases[ModelId(model)])
        return section.take(
            {model: mesh_model_inputs(view, model, phases[model]) for model in sorted(phases)}, self._fixed_s, revision
        )


def _nothing(_: str, __: float) -> Document:
    return {}
