"""How many bytes messages take."""

import pytest

from meshllm.core.announcement import Announcement
from meshllm.core.ids import NodeId
from meshllm.core.messages import (
    Delta,
    Digest,
    DigestEntry,
    Message,
    Ping,
    PingRequest,
    Push,
    TrustDigest,
    Verdict,
)
from meshllm.testing.sizes import message_bytes, packets_bytes
from meshllm.wire.announcements import encode_announcement
from meshllm.wire.codec import encode_message
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


NODE = NodeId("abcdefgh" * 6 + "abcd")
PROOF_BYTES = 430
"""Around a statement: the key, the signature, and a certificate that the root issued."""


def sealed(said: Announcement) -> bytes:
    """Return bytes of the length that a signed statement has."""
    return b"x" * (len(encode_announcement(said)) + PROOF_BYTES)


@pytest.mark.parametrize("message", [
    Ping(seq=100), PingRequest(seq=100, target=NODE), Digest(summary=b"x" * 12),
    Digest(summary=b"x" * 12, buckets=(b"x" * 8,) * 64, is_answer=True),
    Digest(summary=b"x" * 12, entries=(DigestEntry(node=NODE, incarnation=3, version=12),) * 20, of_buckets=(1, 2)),
    Verdict(node=NODE, incarnation=3, is_dead=True), Delta(wanted=(NODE,) * 10),
    TrustDigest(revocations=b"x" * 32, tokens=b"x" * 32), Push(records=(a_record(NODE),) * 3),
], ids=lambda message: type(message).__name__)  # fmt: skip
def test_estimates_are_near_what_the_codec_writes(message: Message) -> None:
    """With its frame, within a fifth or a few bytes; a simulation that flatters itself is worth nothing."""
    real_bytes = len(encode_message(message, sealed)) + 4

    assert abs(message_bytes(message) - real_bytes) <= max(15, 0.2 * real_bytes)


def test_packets_add_their_headers() -> None:
    """A ping is mostly header."""
    ping, delta = Ping(seq=1), Delta(records=(a_record("a"),) * 20)

    assert packets_bytes(ping) > 2 * message_bytes(ping)
    assert packets_bytes(delta) < 1.1 * message_bytes(delta)
