"""Who of several replicas answers for their group.

Owns the rule. Pure and short on purpose: every node applies it to its own view, and nodes with the same
view come to the same host without a word.
"""

from collections.abc import Iterable

from meshllm.core.ids import NodeId


def elect(members: Iterable[NodeId]) -> NodeId:
    """Return the host of a group. Raises ValueError for a group without members.

    The smallest id: it depends on nothing that flickers, so the host changes only when it leaves or a
    smaller id becomes ready. Suspicion does not count: it is one node's opinion and passes.
    """
    return min(members)
