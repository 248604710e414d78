"""Who says a choice of somebody's to the mesh: its author, and when that one is gone, somebody else.

Owns the rule. Decides for one choice at a time. Doesn't know what was chosen. Pure.
"""

from collections.abc import Collection

from meshllm.core.ids import NodeId


def carries(
    me: NodeId, author: NodeId, carriers: Collection[NodeId], admins: Collection[NodeId], *, is_carried: bool
) -> bool:
    """Tell whether this node says a choice to others. `carriers` are the other `admins` that do; all of them live.

    `is_carried`: it does so far. Whoever carries a choice for a gone author stops when the author is back, or when one
    of smaller id carries it: so there always is one, and soon only one.
    """
    if author == me:
        return True
    if author in carriers:
        return False
    if is_carried:
        return not carriers or me < min(carriers)
    return not carriers and all(me < node for node in admins)
