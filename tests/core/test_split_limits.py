"""Limits about shared models are shown with all others."""

from meshllm.core import limits, split_limits


def test_limits_of_shared_models_are_listed_with_all_others() -> None:
    """Whoever prints limits need not know that some stand elsewhere."""
    own = {name: value for name, value in vars(split_limits).items() if name.isupper()}

    assert own
    assert own.items() <= limits.all_limits().items()
