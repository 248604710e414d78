"""Which peers get lines, how many, and where they are dialled. Pure.

Owns these rules. Decides nothing about a tunnel that finds no line: it takes a stream of the connection. Doesn't know
what a line is: `transport.lines` keeps them.
"""

from meshllm.core import line_limits as limits
from meshllm.core.announcement import Address, Announcement


def is_near(least_round_trip_s: float) -> bool:
    """Tell whether tunnels to a peer may go on lines: a line does not survive a change of the way there.

    By the shortest round trip that was measured: what passes on a busy machine says little of the way.
    """
    return least_round_trip_s <= limits.LINE_ROUND_TRIP_S


def may_dial(now_s: float, *, is_dialling: bool, dialled: int, failed_s: float | None) -> bool:
    """Tell whether another line to a peer is dialled, where a tunnel has found none to rest.

    `dialled` counts those that there are, `failed_s` is when a dial failed last.
    """
    rests = failed_s is not None and now_s < failed_s + limits.LINE_AGAIN_S
    return not is_dialling and not rests and dialled < limits.LINES_PER_PEER


def may_take(*, of_peer: int, of_all: int) -> bool:
    """Tell whether a line that a peer has dialled is kept, beside so many of its own and of all peers."""
    return of_peer < limits.LINES_TAKEN_PER_PEER and of_all < limits.LINES_TAKEN


def line_addresses(announcement: Announcement, seen: str | None) -> tuple[Address, ...]:
    """Return where a member takes lines, best first: at the host from which it speaks, then where it says."""
    if not announcement.bulk_port:
        return ()
    known = () if seen is None else (Address(seen, announcement.bulk_port),)
    return tuple(dict.fromkeys((*known, *announcement.bulk_addresses)))
