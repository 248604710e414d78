"""Who serves what, kept up as members change: the same as asking all of them again, without asking all of them.

Owns the newest groups and replicas of a view, and what they were made of. Decides nothing: `groups` and `replicas`
say what counts. Doesn't know how members were found.

In a mesh of two hundred nodes that start their models, making both anew for each statement took two thirds of all
the time that the core takes; a statement changes one or two models of many.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeVar

from meshllm.core.announcement import Announcement, ServedModel
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.routing.replicas import replicas_of
from meshllm.core.serving.groups import group_key, group_of, hosted_by
from meshllm.core.view import Group, Member, Replica

_Key = TypeVar("_Key", str, ModelId)
_Value = TypeVar("_Value")
_Place = tuple[NodeId, ModelId]
"""A model at a node; one file may have two names there."""


class Roll:
    """What live members serve."""

    def __init__(self, me: NodeId) -> None:
        """Know of nobody."""
        self._me = me
        self._known: dict[NodeId, Member] = {}
        """Members that serve anything, as they were when that last made a difference."""
        self._hosts: dict[str, dict[_Place, tuple[Announcement, ServedModel]]] = {}
        """What each group is made of."""
        self._groups: dict[str, Group] = {}
        self._replicas: dict[ModelId, tuple[Replica, ...]] = {}
        self.groups: Mapping[str, Group] = MappingProxyType(self._groups)
        self.replicas: Mapping[ModelId, tuple[Replica, ...]] = MappingProxyType(self._replicas)

    def take(self, changed: Iterable[tuple[NodeId, Member | None]]) -> bool:
        """Take members as they are; None for those that are gone. Tell whether that made a difference."""
        before: dict[NodeId, Member] = {}
        after: dict[NodeId, Member] = {}
        for node, member in changed:
            old, new = self._known.get(node), member if member is not None and member.announcement.serving else None
            if (old is None and new is None) or _facts(old) == _facts(new):
                continue
            if old is not None:
                before[node] = self._known.pop(node)
            if new is not None:
                after[node] = self._known[node] = new
        if not before and not after:
            return False
        self._regroup(before, after)
        self._replace(before, after)
        return True

    def _regroup(self, before: Mapping[NodeId, Member], after: Mapping[NodeId, Member]) -> None:
        """Make the groups anew that a member leaves, joins or is in."""
        was, now = dict(_places(before)), dict(_places(after))
        for key, place in was.keys() - now.keys():
            self._hosts[key].pop(place, None)
        for (key, place), said in now.items():
            self._hosts.setdefault(key, {})[place] = said
        resized = {node for node in before.keys() & after.keys() if _sizes(before[node]) != _sizes(after[node])}
        touched = {key for key, _ in was.keys() ^ now.keys()} | {key for key, (node, _) in now if node in resized}
        if not touched:
            return  # of most news: a model on its way, or more to do for one that is ready
        fresh: dict[str, Group | None] = {}
        for key in touched:
            hosts = self._hosts.get(key)
            fresh[key] = group_of([hosts[place] for place in sorted(hosts)]) if hosts else None
            if not hosts:
                self._hosts.pop(key, None)
        self._groups = _merged(self._groups, fresh)
        self.groups = MappingProxyType(self._groups)

    def _replace(self, before: Mapping[NodeId, Member], after: Mapping[NodeId, Member]) -> None:
        """Make the replicas anew of models that a member serves, or served."""
        found = replicas_of(after.values(), self._me)
        touched = {served.model for member in before.values() for served in member.announcement.serving} | set(found)
        fresh: dict[ModelId, tuple[Replica, ...] | None] = {}
        for model in touched:
            kept = [one for one in self._replicas.get(model, ()) if one.node not in before and one.node not in after]
            fresh[model] = tuple(sorted((*kept, *found.get(model, ())), key=lambda one: one.node)) or None
        self._replicas = _merged(self._replicas, fresh)
        self.replicas = MappingProxyType(self._replicas)


def _facts(member: Member | None) -> tuple[object, ...]:
    """Return what groups and replicas are made of; nearly all news of members is about the rest."""
    if member is None:
        return ()
    said = member.announcement
    return said.serving, member.state, member.rtt_s, said.name, said.rights, _sizes(member)


def _sizes(member: Member) -> tuple[int, int] | None:
    """Return what a host is elected by."""
    resources = member.announcement.resources
    return (resources.gpu_total_bytes, resources.memory_total_bytes) if resources is not None else None


def _places(members: Mapping[NodeId, Member]) -> Iterator[tuple[tuple[str, _Place], tuple[Announcement, ServedModel]]]:
    """Yield what members answer for, by group and place in it."""
    for node, member in members.items():
        for served in hosted_by(member):
            yield (group_key(node, served), (node, served.model)), (member.announcement, served)


def _merged(old: dict[_Key, _Value], fresh: Mapping[_Key, _Value | None]) -> dict[_Key, _Value]:
    """Return a mapping with fresh values, without those that are None; its keys stay sorted."""
    found = old.copy()
    has_new = False
    for key, value in fresh.items():
        if value is None:
            found.pop(key, None)
        else:
            has_new |= key not in found
            found[key] = value
    return dict(sorted(found.items(), key=lambda item: item[0])) if has_new else found
