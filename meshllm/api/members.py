"""The members of the mesh as JSON, for people, the console and `mesh-llm nodes`. Pure.

Owns the shape of a member's document and the words for its state. Decides who sees addresses: members that may
manage others, and everybody for itself. Doesn't know HTTP.
"""

from collections.abc import Mapping

from meshllm.api.deps import MeshFacts
from meshllm.core.announcement import Announcement, Role, SharedModel
from meshllm.core.ids import NodeId, short
from meshllm.core.resources import Resources
from meshllm.core.rights import Rights, rights_meaning, rights_names
from meshllm.core.view import Member, MeshView

STATES = ("alive", "suspect", "dead", "left")
"""In the order in which members are listed."""


def member_documents(view: MeshView, now_s: float, lines: Mapping[NodeId, int]) -> list[dict[str, object]]:
    """Return every member, this node first, then by state and name. Times are seconds, round trips milliseconds.

    `lines` is how many there are with each peer that has any.
    """
    return [member_document(view, view.members[node], now_s, lines.get(node, 0)) for node in members_in_order(view)]


def members_in_order(view: MeshView) -> list[NodeId]:
    """Return every member: this node first, then by state and name."""
    return sorted(view.members, key=lambda node: (node != view.me.node, _rank(view.members[node]), node))


def mesh_document(mesh: MeshFacts | None) -> dict[str, object] | None:
    """Return what the status document says of the mesh."""
    if mesh is None:
        return None
    return {"id": mesh.id, "name": mesh.name, "is_founder": mesh.is_founder, "rights": list(rights_names(mesh.rights))}


def rights_facts(rights: Rights) -> dict[str, object]:
    """Return rights as names and as a sentence."""
    return {"rights": list(rights_names(rights)), "meaning": rights_meaning(rights)}


def _rank(member: Member) -> tuple[int, str]:
    state = str(member.state)
    return (STATES.index(state) if state in STATES else len(STATES), member.announcement.name)


def shows_addresses(view: MeshView, member: Member) -> bool:
    """Tell whether this node is told where a member is: itself, and everybody where it may manage others."""
    return member.announcement.node == view.me.node or Rights.ADMIN in view.me.rights


def member_document(view: MeshView, member: Member, now_s: float, lines: int) -> dict[str, object]:
    """Return one member as the status document has it; there are so many lines with it."""
    said = member.announcement
    is_me = said.node == view.me.node
    return {
        "id": said.node,
        "short": short(said.node),
        "name": said.name,
        "is_me": is_me,
        "state": str(member.state),
        "for_s": round(max(now_s - member.since_s, 0.0), 1),
        "role": str(said.role),
        "rights": list(rights_names(said.rights)),
        "connected": member.connected,
        "rtt_ms": None if member.rtt_s is None else round(member.rtt_s * 1000, 2),
        "lines": lines,
        "heard_s": None if member.last_heard_s is None else round(max(now_s - member.last_heard_s, 0.0), 1),
        "vouched_by": member.vouched_by,
        "why": member.why,
        "addresses": [str(address) for address in said.addresses] if shows_addresses(view, member) else [],
        "load": round(said.load, 3),
        "memory": _memory(said),
        "hardware": _hardware(said),
        "engine_build": said.engine_build,
        "protocol": said.protocol,
        "models": [
            {
                "id": model.model, "digest": model.digest, "state": str(model.state), "slots": model.slots,
                "busy": model.busy, "queued": model.queued, "context_tokens": model.context_tokens,
                "split": _split(model.shared),
            }
            for model in said.serving
        ],
        "lends": [{"model": lent.model, "host": lent.host, "memory_bytes": lent.memory_bytes} for lent in said.lends],
    }  # fmt: skip


def _split(shared: SharedModel | None) -> dict[str, object] | None:
    """Return who holds which part of a model, in the order of its layers, its host last; null for one held alone."""
    if shared is None:
        return None
    shares = [{"node": one.node, "layers": one.layers, "memory_bytes": one.memory_bytes} for one in shared.parts]
    return {"epoch": shared.epoch, "shares": shares}


def _memory(said: Announcement) -> dict[str, object]:
    """Return what a node has for models: zeros for a client, which lends nothing, and before it has measured."""
    measured = said.resources if said.role is not Role.CLIENT else None
    resources = measured or Resources(cores=0, memory_total_bytes=0, memory_free_bytes=0)
    return {
        "total_bytes": resources.memory_total_bytes,
        "free_bytes": resources.memory_free_bytes,
        "gpu_total_bytes": sum(gpu.total_bytes for gpu in resources.gpus),
        "gpu_free_bytes": sum(gpu.free_bytes for gpu in resources.gpus),
        "gpus": len(resources.gpus),
    }


def _hardware(said: Announcement) -> dict[str, object]:
    """Return what a node computes with: nothing for a client, and before it has measured."""
    measured = said.resources if said.role is not Role.CLIENT else None
    return {
        "cores": measured.cores if measured is not None else 0,
        "gpus": [gpu.name for gpu in measured.gpus] if measured is not None else [],
    }
