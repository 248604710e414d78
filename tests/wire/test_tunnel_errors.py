"""What a tunnel's end says to whoever reads logs."""

import pytest

from meshllm.wire.tunnel_errors import TunnelError, TunnelFailed, TunnelLost, TunnelRefused
from meshllm.wire.tunnel_frames import TunnelFailure, TunnelRefusal


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TunnelRefused(TunnelRefusal(code="busy", message="later")), "refused: busy later"),
        (TunnelRefused(TunnelRefusal(code="draining")), "refused: draining"),
        (TunnelFailed(TunnelFailure(code="engine_lost", message="gone")), "failed: engine_lost gone"),
        (TunnelLost("silent", "nothing was heard for 10 s"), "nothing was heard for 10 s"),
    ],
)
def test_ends_are_errors_of_one_family_with_words(error: TunnelError, words: str) -> None:
    """Who only wants to try elsewhere catches the family; who tells people has the words."""
    assert isinstance(error, ConnectionError)
    assert str(error) == words
