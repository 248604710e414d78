"""Which requests go first where not all can: `X-Priority`, as the client wrote it or a tunnel brought it.

Owns what a priority is worth: room in an engine's queue, and a share of the places where requests wait for one. Decides
who may claim one, and that waiting makes up for having none. Doesn't know queues (`fair_turns`) nor HTTP. Pure, with
the time as an argument.
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
WEIGHTS = {Priority.LOW: 1, Priority.NORMAL: 2, Priority.HIGH: 4}
"""Shares of the places at an engine where requests of all priorities wait; those that do not wait leave theirs."""


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
    return Priority.NORMAL if priority is Priority.LOW and waited_s >= limits.PRIORITY_MINDED_S else priority


def engine_room(room: int, slots: int) -> int:
    """Return how many may be at an engine while priorities meet: few, so that the others wait where there are turns."""
    return min(room, 2 * slots)
