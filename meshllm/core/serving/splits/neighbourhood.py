"""What the two sides of a split ask about other nodes: who is there, what they say and may, who is connected.

Owns the questions. Decides nothing. Doesn't know how members are kept: `mesh` answers from its other half.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshllm.core.announcement import Announcement
from meshllm.core.ids import NodeId
from meshllm.core.rights import Rights
from meshllm.core.serving.splits.lenders import Lender


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhood:
    """Other nodes, as they are at the moment of asking."""

    lenders: Callable[[], Sequence[Lender]]
    """Every live node with its newest statement, this one left out."""
    said: Callable[[NodeId], Announcement | None]
    """The newest statement of a live node; None for one that is dead, gone or unknown."""
    rights_of: Callable[[NodeId], Rights | None]
    """What a connected peer proved that it may do; None without a connection."""
    reach: Callable[[NodeId, float], None]
    """Have a node dialled that is not connected, and stay connected for so many seconds."""


def alone() -> Neighbourhood:
    """Return the neighbourhood of a node that knows nobody."""
    return Neighbourhood(lenders=tuple, said=lambda _: None, rights_of=lambda _: None, reach=lambda *_: None)
