"""The side of the bulk plane that dials: one connection to one peer for one use, from the first address that answers.

Owns the order of addresses. Decides when a peer cannot be had. Doesn't know what the connection is for. Blocks.

TLS proves the acceptor's key, which has to be that of the node that was wanted. The dialler proves itself by the same
four payloads as on QUIC (decision 0010), over this connection: there is nothing else to steal or to guess.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meshllm.core.announcement import Address
from meshllm.core.ids import NodeId
from meshllm.core.limits import BULK_DIAL_S, BULK_HANDSHAKE_S, HANDSHAKE_BYTES
from meshllm.core.members.bulk_admission import BULK_FEATURE
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError, dialler_context
from meshllm.transport.handshake import Credentials, DiallerHandshake, HandshakeError, Terms, Welcomed
from meshllm.wire.bulk_frames import Purpose, Ready, Refused

Opened = Callable[[BulkChannel], None]
"""Called with a connection before anything is said on it, so that it can be aborted."""


def dial_bulk(
    peer: NodeId, addresses: Sequence[Address], use: str, credentials: Credentials, terms: Terms,
    opened: Opened = lambda _: None,
) -> BulkChannel:  # fmt: skip
    """Return a connection on which a peer serves a use. Raises BulkError, with what the last address said."""
    error = BulkError(BulkCode.UNREACHABLE, "the peer announces no address")
    for address in addresses:
        try:
            raw = socket.create_connection((address.host, address.port), timeout=BULK_DIAL_S)
        except OSError as problem:
            error = BulkError(BulkCode.UNREACHABLE, f"{address} does not answer: {problem.strerror or problem}")
            continue
        channel = BulkChannel(raw, dialler_context(), is_dialled=True)
        try:
            opened(channel)
            _greet(channel, peer, use, credentials, terms)
        except BulkError as problem:
            channel.close()
            if problem.code in {BulkCode.REFUSED, BulkCode.REJECTED}:
                raise
            error = problem
        else:
            return channel
    raise error


def _greet(channel: BulkChannel, peer: NodeId, use: str, credentials: Credentials, terms: Terms) -> None:
    """Be let in, and say what for. Raises BulkError."""
    deadline_s = time.monotonic() + BULK_HANDSHAKE_S
    channel.shake_hands(deadline_s)
    mine, said = replace(credentials, token=None), replace(terms, features=(BULK_FEATURE,))
    try:
        handshake = DiallerHandshake(mine, peer, _public_key(channel.peer_certificate), said)
        payload = handshake.start()
        while True:
            channel.send(payload, deadline_s)
            answer = handshake.receive(channel.receive(deadline_s, HANDSHAKE_BYTES))
            if isinstance(answer, Welcomed):
                break
            payload = answer
    except HandshakeError as error:
        raise BulkError(BulkCode.REJECTED, error.message, error.reason) from error
    channel.peer, channel.rights = peer, answer.peer_certificate.rights
    channel.say(Purpose(use=use), deadline_s)
    match channel.hear(deadline_s):
        case Ready():
            pass
        case Refused(code=code, message=message):
            raise BulkError(BulkCode.REFUSED, f"the peer refuses: {message or code}", code)
        case _:
            raise BulkError(BulkCode.PROTOCOL, "the peer answers something else")


def _public_key(certificate: bytes) -> bytes:
    """Return the 32 bytes of the key in a certificate; empty where it is of another kind."""
    with contextlib.suppress(ValueError):
        key = x509.load_der_x509_certificate(certificate).public_key()
        if isinstance(key, Ed25519PublicKey):
            return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return b""
