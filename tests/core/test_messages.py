"""Messages between peers: the union and its names."""

from typing import get_args

from meshllm.core.messages import KINDS, Message


def test_every_message_has_exactly_one_name() -> None:
    """A message without a name could not be sent, one with two would be read as another."""
    assert sorted(kind.__name__ for kind in KINDS.values()) == sorted(kind.__name__ for kind in get_args(Message))
