"""Which peers get lines, how many, and where they are dialled."""

import pytest

from meshllm.core import line_limits as limits
from meshllm.core.announcement import Address
from meshllm.core.lines import is_near, line_addresses, may_dial, may_take
from tests.core.members.builders import an_announcement


@pytest.mark.parametrize(
    ("round_trip_s", "near"), [(0.0, True), (limits.LINE_ROUND_TRIP_S, True), (limits.LINE_ROUND_TRIP_S + 0.001, False)]
)
def test_lines_are_for_near_peers(round_trip_s: float, near: bool) -> None:
    """A way through the world may change, and a line with it."""
    assert is_near(round_trip_s) is near


def test_one_line_is_dialled_at_a_time() -> None:
    """A hundred tunnels that find none do not dial a hundred."""
    assert may_dial(0.0, is_dialling=False, dialled=0, failed_s=None)
    assert not may_dial(0.0, is_dialling=True, dialled=0, failed_s=None)


def test_so_many_lines_are_dialled_and_no_more() -> None:
    """Tunnels beyond them take a stream of the connection."""
    assert may_dial(0.0, is_dialling=False, dialled=limits.LINES_PER_PEER - 1, failed_s=None)
    assert not may_dial(0.0, is_dialling=False, dialled=limits.LINES_PER_PEER, failed_s=None)


def test_a_dial_that_failed_is_tried_again_later() -> None:
    """Also at the very beginning of time."""
    assert not may_dial(limits.LINE_AGAIN_S - 0.1, is_dialling=False, dialled=0, failed_s=0.0)
    assert may_dial(limits.LINE_AGAIN_S, is_dialling=False, dialled=0, failed_s=0.0)


def test_one_peer_has_only_so_many_lines_here_and_all_together_so_many() -> None:
    """Whatever limits the others keep."""
    assert may_take(of_peer=0, of_all=0)
    assert not may_take(of_peer=limits.LINES_TAKEN_PER_PEER, of_all=limits.LINES_TAKEN_PER_PEER)
    assert not may_take(of_peer=0, of_all=limits.LINES_TAKEN)


def test_a_line_is_dialled_first_where_the_peer_speaks_from_then_where_it_says() -> None:
    """What it says of itself may be behind a NAT; what is known is not told twice."""
    said = an_announcement("beta", bulk_port=9340, addresses=(Address("10.0.0.1", 4000), Address("192.0.2.7", 4001)))

    assert line_addresses(said, "10.0.0.2") == (
        Address("10.0.0.2", 9340), Address("10.0.0.1", 9340), Address("192.0.2.7", 9340),
    )  # fmt: skip
    assert line_addresses(said, "10.0.0.1") == (Address("10.0.0.1", 9340), Address("192.0.2.7", 9340))
    assert line_addresses(said, None) == (Address("10.0.0.1", 9340), Address("192.0.2.7", 9340))


def test_a_peer_without_the_plane_takes_no_lines() -> None:
    """Clients and older nodes."""
    assert line_addresses(an_announcement("beta", bulk_port=0), "10.0.0.2") == ()
