"""What other members serve, in the order in which requests should try it.

Owns the reading of announcements for routing: who counts, who comes first. Decides nothing about names
or local models; `routing` does. Doesn't know how members were found.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from meshllm.core.announcement import ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import Rights
from meshllm.core.standing import LIVE, MemberState
from meshllm.core.view import Member, Replica

_DIGEST_CHARS = 12


def replicas_of(members: Iterable[Member], me: NodeId) -> Mapping[ModelId, tuple[Replica, ...]]:
    """Return the models of other members that live and may host, by name, each sorted by node."""
    found: dict[ModelId, list[Replica]] = {}
    for member in sorted(members, key=lambda member: member.announcement.node):
        said = member.announcement
        if said.node == me or member.state not in LIVE or Rights.HOST not in said.rights:
            continue
        for served in said.serving:
            replica = Replica(
                node=said.node,
                name=said.name,
                served=served,
                is_suspect=member.state is MemberState.SUSPECT,
                rtt_s=member.rtt_s,
            )
            found.setdefault(served.model, []).append(replica)
    return MappingProxyType({model: tuple(replicas) for model, replicas in sorted(found.items())})


def in_order(replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    """Return ready replicas, best first: not suspected, least busy for its size, near, then by id."""
    ready = (replica for replica in replicas if replica.served.state is ServingState.READY)
    return tuple(sorted(ready, key=_cost))


def _cost(replica: Replica) -> tuple[bool, float, float, NodeId]:
    served = replica.served
    crowding = (served.busy + served.queued) / max(served.slots, 1)
    return (replica.is_suspect, crowding, float("inf") if replica.rtt_s is None else replica.rtt_s, replica.node)


def digests(replicas: Sequence[Replica]) -> tuple[str, ...]:
    """Return the different files that replicas of one name have. A digest that is not known yet is none."""
    return tuple(sorted({replica.served.digest for replica in replicas if replica.served.digest}))


def pinned(model: ModelId, digest: str) -> str:
    """Return the name that means a model and one file of it: `tiny@sha256:0123456789ab`."""
    kind, _, digits = digest.rpartition(":")
    return f"{model}@{kind or 'sha256'}:{digits[:_DIGEST_CHARS]}"


def of_digest(replicas: Iterable[Replica], digest: str) -> tuple[Replica, ...]:
    """Return the replicas of exactly this file: another file under the same name is another model."""
    return tuple(replica for replica in replicas if digest and replica.served.digest == digest)
