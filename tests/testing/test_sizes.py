"""How many bytes messages take."""

from meshllm.core.ids import NodeId
from meshllm.core.messages import KINDS, Delta, Digest, DigestEntry, Ping, Push
from meshllm.testing.sizes import message_bytes, packets_bytes
from tests.core.members.builders import a_record


def test_a_message_is_as_large_as_what_it_carries() -> None:
    """Ten records are about ten times one."""
    one, ten = (message_bytes(Push(records=(a_record("a"),) * count)) for count in (1, 10))

    assert 9 * one < ten < 10 * one


def test_summaries_are_small_and_lists_are_not() -> None:
    """Which is why they are compared first."""
    entry = DigestEntry(node=NodeId("a" * 52), incarnation=1, version=1)
    small, hashes = message_bytes(Digest(summary=b"x")), message_bytes(Digest(summary=b"x", buckets=(b"",) * 64))
    entries = message_bytes(Digest(summary=b"x", entries=(entry,) * 64))

    assert small < 100 < hashes < entries


def test_packets_add_their_headers() -> None:
    """A ping is mostly header."""
    ping, delta = Ping(seq=1), Delta(records=(a_record("a"),) * 20)

    assert packets_bytes(ping) > 2 * message_bytes(ping)
    assert packets_bytes(delta) < 1.1 * message_bytes(delta)
    assert len(KINDS) > 10
