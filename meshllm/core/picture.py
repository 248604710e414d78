"""How the parts become a view: what changed is made anew, the rest stays the same objects.

Owns the newest `MeshView`. Decides nothing about models or members. Doesn't see events: `mesh` says
which half may have changed, and a view is made only where it differs from the last one.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeGuard

from meshllm.core.announcement import Announcement
from meshllm.core.catalog import ModelProblem
from meshllm.core.ids import NodeId
from meshllm.core.members.members import Members
from meshllm.core.names import NameIndex
from meshllm.core.rights import Rights
from meshllm.core.serving.gap_filling import GapFilling
from meshllm.core.serving.lifecycle import Lifecycle
from meshllm.core.serving.naming import Naming
from meshllm.core.serving.order_book import OrderBook
from meshllm.core.serving.records import Record
from meshllm.core.serving.roll import Roll
from meshllm.core.standing import LIVE, MemberState
from meshllm.core.view import LocalModel, Member, MeshView


class Picture:
    """The newest view, and how it is renewed."""

    def __init__(self, me: Announcement, requested: tuple[str, ...], now_s: float, *, joining: bool) -> None:
        """Show a node that knows nothing yet."""
        self._since_s = now_s
        self._naming = Naming()
        self._roll = Roll(me.node)
        alone = Member(announcement=me, state=MemberState.ALIVE, since_s=now_s)
        self._members = {me.node: alone}
        """What the view shows of members: never changed, only replaced."""
        self.view = MeshView(
            epoch=1, at_s=now_s, me=me, members=MappingProxyType(self._members), groups=MappingProxyType({}),
            local=MappingProxyType({}), names=NameIndex(()), default_model=None, requested=requested, joining=joining,
        )  # fmt: skip

    def renew(self, changes: Mapping[str, object], now_s: float) -> None:
        """Take new values of the view's fields; equal ones change nothing."""
        old = self.view
        differing = {
            name: value for name, value in changes.items()
            if (shown := getattr(old, name)) is not value and shown != value
        }  # fmt: skip
        if differing:
            self.view = replace(old, **differing, epoch=old.epoch + 1, at_s=now_s)  # type: ignore[arg-type]

    def of_serving(self, serving: Lifecycle, problems: tuple[ModelProblem, ...], now_s: float) -> dict[str, object]:
        """Return the fields that this node's own models fill."""
        held, old = serving.held, self.view
        local = {model: _shown(record, held.book) for model, record in held.records.items()} | serving.adopted.models
        same = {model: (old.local[model] if old.local.get(model) == entry else entry) for model, entry in local.items()}
        return {
            "local": MappingProxyType(same), "resources": held.resources, "problems": problems,
            "registered": held.registered, "caches": held.caches.picture(now_s),
            "remotes": serving.adopted.states,
            "engine_build": held.build, "engine_failure": held.build_failure, "leaving": serving.leaving is not None,
            "has_inventory": serving.has_inventory, "unresolved": MappingProxyType(dict(serving.fetching.unresolved)),
            "policies": MappingProxyType(held.policies),
        }  # fmt: skip

    @staticmethod
    def of_gap_filling(gaps: GapFilling) -> dict[str, object]:
        """Return the fields about models that nobody serves, or that this node is about to."""
        return {"cold": gaps.cold.newest, "demand": gaps.demand, "assignment": gaps.assignment}

    def of_members(self, members: Members, me: Announcement, local_names: NameIndex) -> dict[str, object]:
        """Return the fields that members fill; empties the table's list of changes."""
        old, table = self._members, members.table
        if not table.changed and me is self.view.me:
            return {"names": self._naming.index(local_names)}
        found = old.copy()
        changed = sorted(table.changed)
        for node in changed:
            member = _member(members, node)
            self._naming.hear(node, member.announcement if _may_name(member) else None)
            if member is None:
                found.pop(node, None)
            else:
                found[node] = member
        table.changed.clear()
        if old[me.node].announcement is not me:
            changed.append(me.node)
            state = MemberState.LEFT if me.left else MemberState.ALIVE
            found[me.node] = Member(announcement=me, state=state, since_s=self._since_s)
            self._naming.hear(me.node, me)
        self._members = found
        fields: dict[str, object] = {"me": me, "members": MappingProxyType(found)}
        if self._roll.take((node, found.get(node)) for node in changed):
            fields |= {"groups": self._roll.groups, "replicas": self._roll.replicas}
        fields["names"] = self._naming.index(local_names)
        return fields


def _shown(record: Record, book: OrderBook) -> LocalModel:
    """Return a model as everybody may see it: held here, or by an order for the whole mesh."""
    model = record.snapshot()
    return replace(model, held=True) if book.holds(record.id, record.order) else model


def _may_name(member: Member | None) -> TypeGuard[Member]:
    """Tell whether the names that a member gives to models count."""
    return member is not None and member.state in LIVE and Rights.HOST in member.announcement.rights


def _member(members: Members, node: NodeId) -> Member | None:
    entry = members.table.entries.get(node)
    if entry is None:
        return None
    link = members.circle.links.get(node)
    return Member(
        announcement=entry.announcement, state=entry.state, since_s=entry.since_s, connected=link is not None,
        rtt_s=link.rtt_s if link is not None else None, vouched_by=entry.vouched_by, last_heard_s=entry.heard_s,
        why=entry.why or ("" if link is not None else members.problem(node)),
    )  # fmt: skip
