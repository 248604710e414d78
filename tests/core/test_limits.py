"""The limits are complete and sane."""

from meshllm.core import limits


def test_every_limit_is_listed_and_positive() -> None:
    """`doctor` prints this list; a limit of zero would be no limit."""
    listed = limits.all_limits()

    assert listed["HTTP_BODY_BYTES"] == 50 * limits.MIB
    assert "GIB" not in listed
    assert all(value > 0 for value in listed.values())
