"""Which members serve the same file.

Owns the reading of announcements for groups. Decides nothing about names or routes. Doesn't know how
members were found.
"""

from collections import Counter
from collections.abc import Sequence

from meshllm.core.announcement import Announcement, ServedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import Rights
from meshllm.core.serving.election import elect
from meshllm.core.standing import LIVE
from meshllm.core.view import Group, Member


def group_key(node: NodeId, served: ServedModel) -> str:
    """Return what a replica is grouped by: its digest, or itself while that is not known."""
    return served.digest or f"{node}/{served.model}"


def hosted_by(member: Member) -> tuple[ServedModel, ...]:
    """Return what a member answers for: nothing where it does not live, or may not host."""
    if member.state not in LIVE or Rights.HOST not in member.announcement.rights:
        return ()
    return tuple(served for served in member.announcement.serving if served.state is ServingState.READY)


def group_of(replicas: Sequence[tuple[Announcement, ServedModel]]) -> Group:
    """Return the group of some replicas of one file, with what their nodes say of themselves."""
    nodes = tuple(sorted({said.node for said, _ in replicas}))
    host = elect(said for said, _ in replicas)
    return Group(model=_name(replicas), members=nodes, host=host, digest=replicas[0][1].digest)


def _name(replicas: Sequence[tuple[Announcement, ServedModel]]) -> ModelId:
    """Return what most call it, the first in the alphabet of those."""
    counts = Counter(served.model for _, served in replicas)
    return min(counts, key=lambda model: (-counts[model], model))
