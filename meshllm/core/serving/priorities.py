"""Which requests go first where not all can: `X-Priority`, as the client wrote it or a tunnel brought it.

Owns what a priority is worth: room in an engine's queue, and a head start among those that wait for room. Decides who
may claim one, and that waiting makes up for having none. Doesn't know queues nor HTTP. Pure, with the time as an
argument.
"""

from enum import IntEnum

from meshllm.core import limits
from meshllm.core.rights import Rights


class Priority(IntEnum):
    """How urgent a request is, the least first. The numbers travel, so none is below 0; who knows none says 0."""

    LOW = 2
    NORMAL = 0
    HIGH = 1


NAMES = {priority.name.lower(): priority for priority in Priority}
"""The words of `X-Priority`."""
_BY_NUMBER = {int(priority): priority for priority in Priority}
_AHEAD = {priority: number for number, priority in enumerate(Priority, start=-1)}
"""Head starts before a normal one."""


def of_peer(number: int, rights: Rights) -> Priority:
    """Return the priority of a request that a peer sends with this number.

    High is for nodes that share the work or administer the mesh; from a mere client it is as good as none. So is what
    only newer nodes know.
    """
    priority = _BY_NUMBER.get(number, Priority.NORMAL)
    if priority is Priority.HIGH and not rights & (Rights.HOST | Rights.ADMIN):
        return Priority.NORMAL
    return priority


def room(priority: Priority, slots: int, admitted: int) -> int:
    """Return how many requests may be in flight at an engine for one more of this priority to come in.

    `admitted` is what counts for normal ones. High ones have a reserve beyond it; low ones come in while no more than
    one for each slot waits.
    """
    if priority is Priority.HIGH:
        return admitted + max(admitted // limits.PRIORITY_RESERVE_DIVISOR, 1)
    return min(admitted, 2 * slots) if priority is Priority.LOW else admitted


def aged(priority: Priority, waited_s: float) -> Priority:
    """Return what a priority counts for after so long: a low one is as good as a normal one in the end."""
    return Priority.NORMAL if priority is Priority.LOW and waited_s >= limits.PRIORITY_HEAD_START_S else priority


def turn_s(priority: Priority, since_s: float) -> float:
    """Return what those that wait for room are ordered by, the smallest first: when they came, but for a head start.

    Whoever has waited for longer than two head starts goes before any newcomer.
    """
    return since_s - _AHEAD[priority] * limits.PRIORITY_HEAD_START_S
