"""Who renews this node's certificate: one admin among the members.

Owns that choice. Decides nothing else; when a certificate is due is `admission`'s. Doesn't dial.
"""

from collections.abc import Iterable

from meshllm.core.ids import NodeId
from meshllm.core.rights import Rights
from meshllm.core.standing import LIVE
from meshllm.core.view import Member


def renewer(members: Iterable[Member], me: NodeId) -> Member | None:
    """Return the admin to ask: one that lives and can be dialled, a connected one if there is one, then by id."""
    able = [
        member
        for member in members
        if member.announcement.node != me
        and member.state in LIVE
        and Rights.ADMIN in member.announcement.rights
        and member.announcement.addresses
    ]
    return min(able, key=lambda member: (not member.connected, member.announcement.node), default=None)
