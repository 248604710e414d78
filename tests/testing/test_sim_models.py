"""Engines of a simulated mesh."""

from meshllm.core import events as ev
from meshllm.testing.sim_models import having


def test_a_mark_tells_files_of_one_name_apart() -> None:
    """And makes one file of two names."""
    found = [event for event in having("tiny", "tiny=b", "other=tiny") if isinstance(event, ev.InventoryChanged)]

    assert [(spec.id, spec.digest) for spec in found[0].models] == [
        ("tiny", "sha256:tiny"), ("tiny", "sha256:b"), ("other", "sha256:tiny"),
    ]  # fmt: skip
