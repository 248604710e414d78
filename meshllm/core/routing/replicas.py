"""What other members serve, in the order in which requests should try it.

Owns the reading of announcements for routing: who counts, who comes first. Decides nothing about names
or local models; `routing` does. Doesn't know how members were found.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from meshllm.core.announcement import ServedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.remotes import ADOPTED_KIND
from meshllm.core.rights import Rights
from meshllm.core.standing import LIVE, MemberState
from meshllm.core.view import LocalModel, Member, Replica

_DIGEST_CHARS = 12
_HEALTHY = "healthy"
_UNHEALTHY = "unhealthy"


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


def in_order(replicas: Iterable[Replica], *, checks_health: bool = True) -> tuple[Replica, ...]:
    """Return usable replicas, best first: not suspected, healthy, least busy for its size, near, then by id."""
    usable = (replica for replica in replicas if is_usable(replica.served, checks_health=checks_health))
    return tuple(sorted(usable, key=_cost))


def is_usable(served: ServedModel, *, checks_health: bool = True) -> bool:
    """Tell whether requests may go to a served model: it is ready, and its own checks do not say that it fails.

    Without `checks_health` the checks do not count: for measurements.
    """
    return served.state is ServingState.READY and not (checks_health and served.health == _UNHEALTHY)


def in_use(replicas: Sequence[Replica]) -> Sequence[Replica]:
    """Return the replicas that have not failed, or all where all have: what failed is in nobody's way."""
    return [replica for replica in replicas if replica.served.state is not ServingState.FAILED] or replicas


def _cost(replica: Replica) -> tuple[bool, bool, float, float, NodeId]:
    served = replica.served
    crowding = (served.busy + served.queued) / max(served.slots, 1)
    rtt_s = float("inf") if replica.rtt_s is None else replica.rtt_s
    return (replica.is_suspect, served.health != _HEALTHY, crowding, rtt_s, replica.node)


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


def of_same_file(local: LocalModel, elsewhere: tuple[Replica, ...]) -> tuple[Replica, ...]:
    """Return the replicas that stand in for a model of this node; while it has no file yet, those of the only one."""
    if not local.digest and len(files := digests(elsewhere)) == 1 and not files[0].startswith(ADOPTED_KIND):
        return elsewhere
    return of_digest(elsewhere, local.digest)
