"""How many bytes a message takes on the wire, near enough for simulations.

Owns the estimate. Decides nothing. Doesn't encode: a simulated mesh passes objects around, and encoding
each would cost more than everything else. `tests/testing/test_sizes.py` holds it against the real codec.
"""

from meshllm.core.announcement import Record
from meshllm.core.messages import Delta, Digest, Leaving, Message, PingReply, PingRequest, Push, TrustDigest, Verdict

PACKET_BYTES = 61
"""IP and UDP headers, QUIC's short header, its frame header and its authentication tag."""
ACK_PACKET_BYTES = 66
HANDSHAKE_BYTES = 4_600
"""Both ends of one dial: padded initial packets, two certificates, four messages of ours."""
DIAL_BYTES = 1_260
"""One attempt that nobody answers."""
_MESSAGE_BYTES = 20
_RECORD_BYTES = 800
"""Of a node that serves nothing: its statement, signature, key and certificate."""
_SERVED_BYTES = 300
_DISK_BYTES = 120
_ENTRY_BYTES = 90
_HASH_BYTES = 10
_BATCH_BYTES = 1_100
"""Payload of one packet."""


def record_bytes(record: Record) -> int:
    """Return the size of one signed statement."""
    said = record.announcement
    return _RECORD_BYTES + _SERVED_BYTES * len(said.serving) + _DISK_BYTES * len(said.models_on_disk)


def message_bytes(message: Message) -> int:
    """Return the size of a message without its packets."""
    match message:
        case Push() | Delta():
            wanted = len(message.wanted) if isinstance(message, Delta) else 0
            return _MESSAGE_BYTES + sum(record_bytes(record) for record in message.records) + 54 * wanted
        case Digest():
            entries = _ENTRY_BYTES * len(message.entries) + 2 * len(message.of_buckets)
            return _MESSAGE_BYTES + 30 + _HASH_BYTES * len(message.buckets) + entries
        case Leaving():
            return _MESSAGE_BYTES + record_bytes(message.record)
        case Verdict():
            return _MESSAGE_BYTES + 80
        case PingRequest() | PingReply():
            return _MESSAGE_BYTES + 66
        case TrustDigest():
            return _MESSAGE_BYTES + 90
        case _:
            return _MESSAGE_BYTES + 10


def packets_bytes(message: Message) -> int:
    """Return the size of a message with everything around it, acknowledgement by the other side left out."""
    size_bytes = message_bytes(message)
    return size_bytes + PACKET_BYTES * (1 + size_bytes // _BATCH_BYTES)
