"""Several addresses, one answer for people."""

from meshllm.transport.dial_error import DialCode, DialError, most_telling


def test_weightiest_code_wins_and_every_address_is_told() -> None:
    """A rejection says more than an old address where nobody answers."""
    errors = [
        DialError(DialCode.UNREACHABLE, "10.0.0.1:1 does not answer"),
        DialError(DialCode.REJECTED, "10.0.0.2:1: revoked"),
        DialError(DialCode.UNREACHABLE, "10.0.0.1:1 does not answer"),
    ]

    error = most_telling(errors)

    assert error.code is DialCode.REJECTED
    assert error.message == "10.0.0.1:1 does not answer; 10.0.0.2:1: revoked"


def test_no_address_is_a_reason_too() -> None:
    """A peer that nobody can place is unreachable, in words."""
    assert (most_telling([]).code, most_telling([]).message) == (DialCode.UNREACHABLE, "no address is known")
