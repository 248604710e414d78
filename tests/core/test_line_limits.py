"""Limits about lines are shown with all others."""

from meshllm.core import limits, line_limits


def test_limits_of_lines_are_listed_with_all_others() -> None:
    """Whoever prints limits need not know that some stand elsewhere."""
    own = {name: value for name, value in vars(line_limits).items() if name.isupper()}

    assert own
    assert own.items() <= limits.all_limits().items()
