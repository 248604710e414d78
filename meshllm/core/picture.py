"""How the parts become a view: what changed is made anew, the rest stays the same objects.

Owns the newest `MeshView`. Decides nothing about models or members. Doesn't see events: `mesh` says
which half may have changed, and a view is made only where it differs from the last one.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeGuard

from meshllm.core.announcement import Announcement, DiskModel, Role, ServedModel, ServingState
from meshllm.core.catalog import ModelProblem, ModelSpec
from meshllm.core.engines import EngineState
from meshllm.core.ids import NodeId
from meshllm.core.members.members import Members
from meshllm.core.names import NameIndex
from meshllm.core.rights import Rights
from meshllm.core.serving.groups import groups_of
from meshllm.core.serving.health import local_health
from meshllm.core.serving.lifecycle import Lifecycle
from meshllm.core.serving.naming import Naming
from meshllm.core.serving.registry import names_said
from meshllm.core.serving.replicas import replicas_of
from meshllm.core.standing import LIVE, MemberState
from meshllm.core.statement import coarse
from meshllm.core.view import LocalModel, Member, MeshView


class Picture:
    """The newest view, and how it is renewed."""

    def __init__(self, me: Announcement, requested: tuple[str, ...], now_s: float, *, joining: bool) -> None:
        """Show a node that knows nothing yet."""
        self._since_s = now_s
        self._naming = Naming()
        alone = Member(announcement=me, state=MemberState.ALIVE, since_s=now_s)
        self.view = MeshView(
            epoch=1, at_s=now_s, me=me, members=MappingProxyType({me.node: alone}), groups=MappingProxyType({}),
            local=MappingProxyType({}), names=NameIndex(()), default_model=None, requested=requested, joining=joining,
        )  # fmt: skip

    def renew(self, changes: Mapping[str, object], now_s: float) -> None:
        """Take new values of the view's fields; equal ones change nothing."""
        old = self.view
        differing = {name: value for name, value in changes.items() if getattr(old, name) != value}
        if differing:
            self.view = replace(old, **differing, epoch=old.epoch + 1, at_s=now_s)  # type: ignore[arg-type]

    def of_serving(self, serving: Lifecycle, problems: tuple[ModelProblem, ...]) -> dict[str, object]:
        """Return the fields that this node's own models fill."""
        held, old = serving.held, self.view
        local = {model: record.snapshot() for model, record in held.records.items()}
        same = {model: (old.local[model] if old.local.get(model) == entry else entry) for model, entry in local.items()}
        return {
            "local": MappingProxyType(same), "resources": held.resources,
            "default_model": held.default_model, "problems": problems, "registered": held.registered,
            "engine_build": held.build, "engine_failure": held.build_failure, "leaving": serving.leaving is not None,
            "has_inventory": serving.has_inventory, "unresolved": MappingProxyType(dict(serving.fetching.unresolved)),
        }  # fmt: skip

    def of_members(self, members: Members, me: Announcement, local_names: NameIndex) -> dict[str, object]:
        """Return the fields that members fill; empties the table's list of changes."""
        old, table = self.view.members, members.table
        found = dict(old)
        is_routing = False
        for node in sorted(table.changed):
            member = _member(members, node)
            is_routing |= _matters(found.get(node)) or _matters(member)
            self._naming.hear(node, member.announcement if _may_name(member) else None)
            if member is None:
                found.pop(node, None)
            else:
                found[node] = member
        table.changed.clear()
        if old[me.node].announcement is not me:
            is_routing |= _matters(old[me.node]) or bool(me.serving)
            state = MemberState.LEFT if me.left else MemberState.ALIVE
            found[me.node] = Member(announcement=me, state=state, since_s=self._since_s)
            self._naming.hear(me.node, me)
        fields: dict[str, object] = {"me": me, "members": MappingProxyType(found)}
        if is_routing:
            fields["groups"] = groups_of(found.values())
            fields["replicas"] = replicas_of(found.values(), me.node)
        fields["names"] = self._naming.index(local_names)
        return fields


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


def _matters(member: Member | None) -> bool:
    """Tell whether requests may be routed to a member."""
    return member is not None and member.state in LIVE and bool(member.announcement.serving)


def _may_name(member: Member | None) -> TypeGuard[Member]:
    """Tell whether the names that a member gives to models count."""
    return member is not None and member.state in LIVE and Rights.HOST in member.announcement.rights


_SAID = {
    EngineState.READY: ServingState.READY,
    EngineState.STARTING: ServingState.LOADING,
    EngineState.BACKING_OFF: ServingState.LOADING,
}
"""What is announced of an engine. One that loads, or restarts after a crash, is worth waiting for at other nodes too;
one that was told to stop is not."""


def own_announcement(old: Announcement, serving: Lifecycle, *, is_client: bool) -> Announcement:
    """Return what this node's models make true of it; `old` gives the rest."""
    held = serving.held
    records = [record for _, record in sorted(held.records.items())]
    served = tuple(_served(record.snapshot()) for record in records if record.state in _SAID)
    role = Role.CLIENT if is_client else Role.HOST if any(_is_ready(one) for one in served) else Role.WORKER
    build = held.build
    on_disk = {record.id: record.spec for record in records if record.spec is not None}
    return replace(
        old, role=role, resources=coarse(held.resources), serving=served,
        models_on_disk=tuple(_on_disk(record.spec) for record in records if record.spec is not None),
        engine_build=f"{build.kind} {build.version}" if build is not None else "",
        names=names_said(held.policies, held.registered, on_disk),
    )  # fmt: skip


def _is_ready(served: ServedModel) -> bool:
    return served.state is ServingState.READY


def _on_disk(spec: ModelSpec) -> DiskModel:
    return DiskModel(model=spec.id, digest=spec.digest, size_bytes=spec.size_bytes)


def _served(model: LocalModel) -> ServedModel:
    """Return what is announced of a model in memory or on its way; what changes with every request is left out."""
    spec = model.spec
    state = _SAID[model.state]
    slots, context_tokens = (model.slots, model.context_tokens) if state is ServingState.READY else (0, 0)
    health = str(local_health(model)) if state is ServingState.READY else "healthy"
    said = ServedModel(
        model=model.id, digest="", state=state, slots=slots, context_tokens=context_tokens, health=health
    )
    if spec is None:
        return said
    return replace(
        said, digest=spec.digest, capabilities=tuple(sorted(spec.capabilities)), display_name=spec.display_name,
        architecture=spec.architecture.name, quantization=spec.quantization, parameters=spec.parameters,
        size_bytes=spec.size_bytes,
    )  # fmt: skip
