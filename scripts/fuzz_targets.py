"""The decoders that `scripts/fuzz` tries: everything that reads bytes from other machines, files and pastes.

Owns good inputs for each, and which errors are ours. A decoder behind a signature is tried twice: with the damage over
the signature, and with the damage signed by somebody who may, since members can be malicious too.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshllm.core import messages as said
from meshllm.core.announcement import Address, Announcement, DefaultChoice, ModelOrder, Record
from meshllm.core.credentials import RejectCode, Revocation, TokenRecord
from meshllm.core.effects import KeptOrders
from meshllm.core.ids import ModelId
from meshllm.core.intents import Intent, Outcome, OutcomeCode, Verb
from meshllm.core.rights import GUEST, OWN_MACHINE
from meshllm.inventory.gguf import parse_header
from meshllm.inventory.invalid import InvalidModelError
from meshllm.proxy.framing import AnswerError, ChunkRelay, parse_answer_head
from meshllm.proxy.http1 import ProtocolError, parse_head
from meshllm.transport import certificates
from meshllm.transport.handshake import AcceptorHandshake, DiallerHandshake, HandshakeError
from meshllm.transport.identity import Identity
from meshllm.wire import credentials as form
from meshllm.wire import handshake as steps
from meshllm.wire import tunnel_frames as tf
from meshllm.wire.announcements import decode_announcement, encode_announcement
from meshllm.wire.bulk_frames import Piece, Purpose, Ready, Refused, Want, decode_bulk, encode_bulk
from meshllm.wire.codec import decode_message, encode_message
from meshllm.wire.credentials import SignedAs
from meshllm.wire.errors import WireError
from meshllm.wire.frames import FrameReader, frame
from meshllm.wire.ids import id_bytes
from meshllm.wire.kept_asks import KeptAsk
from meshllm.wire.orders import kept_orders, read_orders
from meshllm.wire.packing import pack, unpack
from meshllm.wire.token import PREFIX, TokenError, checksum, decode_token, encode_token
from meshllm.wire.trust import kept_trust, read_trust
from scripts.fuzz_decoders import Target
from tests.inventory.gguf_builder import build, llama
from tests.transport.builders import NOW_UNIX_S, Mesh, acceptor, dialler


def _identity(letter: bytes) -> Identity:
    """Return a key that is the same in every run, so that bytes can be tried again."""
    return Identity(Ed25519PrivateKey.from_private_bytes(letter * 32))


MESH = Mesh(_identity(b"r"))
ADMIN = MESH.member(OWN_MACHINE, identity=_identity(b"a"))
NODE = MESH.member(GUEST, by=ADMIN, identity=_identity(b"n"))
TOKEN = ADMIN.token()
REVOCATION = certificates.revoke(ADMIN.issuer, NODE.id, "sold", NOW_UNIX_S)
RECORD = certificates.seal(ADMIN.identity, ADMIN.certificate, ADMIN.says())
TOKEN_RECORD = TokenRecord(
    token_id=TOKEN.token_id, secret_hash=b"h" * 32, rights=GUEST, made_by=ADMIN.id, made_unix_s=1.0,
    expires_unix_s=2.0, uses=3, used_by=(NODE.id,),
)  # fmt: skip


def open_sealed(data: bytes) -> Announcement:
    """Open a record as the transport does."""
    return certificates.open_sealed(data, MESH.id, NOW_UNIX_S)


def open_revocation(data: bytes) -> Revocation:
    """Open a revocation as the transport does."""
    return certificates.open_revocation(data, MESH.id)


def targets() -> Iterator[Target]:
    """Give every decoder with its good inputs."""
    yield from _streams()
    yield from _messages()
    yield from _signed()
    yield from _handshakes()
    yield from _pastes_and_files()


# -- streams -------------------------------------------------------------------------------------------


def _streams() -> Iterator[Target]:
    yield Target("frames", (frame(b"one") + frame(b""), frame(bytes(300))), _frames, (WireError,))
    head = tf.TunnelHead(request_id="r", model=ModelId("m"), digest="sha256:" + "0" * 64, deadline_s=1.0, session="s")
    forth = tf.encode_head(head) + b"".join(tf.data_frames(b"GET / HTTP/1.1\r\n\r\n"))
    end, cancel = tf.tunnel_frame(tf.FrameKind.END), tf.tunnel_frame(tf.FrameKind.CANCEL)
    yield Target("tunnel_forth", (forth + end, forth + cancel), _tunnel(is_forth=True), (WireError,))
    asks = (
        KeptAsk(recipe="ab" * 16, digest=b"w" * 17),
        KeptAsk(recipe="ab" * 16, digest=b"s" * 17, keeps=True, size_bytes=4),
    )
    kept = tuple(tf.encode_head(replace(head, kept=ask)) for ask in asks)
    about = (kept[0] + end, kept[1] + tf.data_frames(b"{}\r\n")[0] + end)
    yield Target("tunnel_kept", about, _tunnel(is_forth=True), (WireError,))
    progress = tf.encode_progress(tf.TunnelProgress(stage="prefill", queued=1, share=0.5))
    refusal = tf.encode_refusal(tf.TunnelRefusal(code="busy", message="later", retry_after_s=1.5, have=1, need=2))
    failure = tf.encode_failure(tf.TunnelFailure(code="engine_lost", message="gone"))
    data = tf.data_frames(b"HTTP/1.1 200 OK\r\n\r\n")[0]
    seeds = (progress + data + end, progress + refusal, data + failure)
    yield Target("tunnel_back", seeds, _tunnel(is_forth=False), (WireError,))
    bulk = (
        Purpose(use="file"), Ready(), Want(digest="sha256:" + "0" * 64, offset=1, length=2),
        Piece(offset=1, length=2, size_bytes=3), Refused(code="not_here", message="no"),
    )  # fmt: skip
    yield Target("bulk", tuple(encode_bulk(step) for step in bulk), decode_bulk, (WireError,))


def _frames(data: bytes) -> None:
    reader = FrameReader()
    for start in range(0, len(data), 997):
        reader.feed(data[start : start + 997])
    reader.finish()


def _tunnel(*, is_forth: bool) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        reader = tf.TunnelReader(is_forth=is_forth)
        for start in range(0, len(data), 997):
            reader.feed(data[start : start + 997])
        reader.finish()

    return run


# -- messages ------------------------------------------------------------------------------------------


def _messages() -> Iterator[Target]:
    yield Target("msgpack", (pack({"a": [1, 2.5, True, None, "x", b"y", {"b": 2**62}]}),), unpack, (WireError,))
    body = encode_announcement(ADMIN.says())
    yield Target("announcement", (body,), lambda data: decode_announcement(data, allow_loopback=True), (WireError,))
    record = Record(announcement=ADMIN.says(), sealed=RECORD)
    messages: tuple[said.Message, ...] = (
        said.Ping(seq=1), said.PingRequest(seq=1, target=NODE.id),
        said.Verdict(node=NODE.id, incarnation=1, is_dead=True),
        said.Digest(
            summary=b"12345678", buckets=(b"12345678",), of_buckets=(1,),
            entries=(said.DigestEntry(node=NODE.id, incarnation=1, version=2),),
        ),
        said.Delta(records=(record,), wanted=(NODE.id,)), said.Push(records=(record,)),
        said.Leaving(record=record, reason="asked to"), said.ErrorReport(code="malformed", message="x"),
        said.TrustDigest(revocations=b"1", tokens=b"2"), said.Revocations(entries=(open_revocation(REVOCATION),)),
        said.Tokens(records=(TOKEN_RECORD,)),
        said.Order(intent=Intent(verb=Verb.UNLOAD, model="m", request_id="1.1", hold=True, author=NODE.id)),
        said.OrderResult(request_id="1.1", outcome=Outcome(code=OutcomeCode.DONE, message="done", model="m")),
    )  # fmt: skip
    seeds = tuple(encode_message(message, lambda _: RECORD) for message in messages)
    yield Target("message", seeds, _message, (WireError,))


def _message(data: bytes) -> None:
    decode_message(data, open_sealed, None, open_revocation)


# -- what is signed ------------------------------------------------------------------------------------


def _signed() -> Iterator[Target]:
    certified = (ADMIN.certificate, NODE.certificate)
    yield Target("certificate", certified, _certificate, (WireError,))
    bodies = tuple(form.read_issued(data).body for data in certified)
    yield Target(
        "certificate_signed", bodies, lambda data: _certificate(_issued(data, SignedAs.CERTIFICATE)), (WireError,)
    )
    yield Target("record", (RECORD,), open_sealed, (WireError,))
    yield Target("record_signed", (form.read_sealed(RECORD).body,), _record_signed, (WireError,))
    yield Target("revocation", (REVOCATION,), open_revocation, (WireError,))
    body = form.read_issued(REVOCATION).body
    yield Target(
        "revocation_signed", (body,), lambda data: open_revocation(_issued(data, SignedAs.REVOCATION)), (WireError,)
    )


def _certificate(data: bytes) -> None:
    certificates.read_certificate(data, MESH.id, NOW_UNIX_S)


def _issued(body: bytes, purpose: SignedAs) -> bytes:
    signature = MESH.root.sign(purpose.value + body)
    return form.write(form.Issued(body=body, issuer=MESH.root.public, signature=signature))


def _record_signed(body: bytes) -> None:
    signature = ADMIN.identity.sign(SignedAs.ANNOUNCEMENT.value + id_bytes(MESH.id) + body)
    open_sealed(
        form.write(
            form.SealedRecord(
                body=body, public=ADMIN.identity.public, signature=signature, certificate=ADMIN.certificate
            )
        )
    )


# -- handshakes ----------------------------------------------------------------------------------------
# The bytes of chance are always the same here, so that a step that fitted once fits again.


def _fixed(count: int) -> bytes:
    return b"c" * count


def _ours() -> tuple[DiallerHandshake, bytes]:
    """Return a dialler with a certificate and a token, and its HELLO."""
    ours = dialler(NODE, ADMIN, token=TOKEN, random_bytes=_fixed, features=("resume",))
    return ours, ours.start()


def _theirs() -> tuple[AcceptorHandshake, bytes]:
    """Return an acceptor that was greeted, and its CHALLENGE."""
    theirs = acceptor(ADMIN, random_bytes=_fixed)
    challenge = theirs.receive(HELLO)
    assert isinstance(challenge, bytes)
    return theirs, challenge


def _challenged() -> tuple[DiallerHandshake, bytes]:
    """Return a dialler that was challenged, and its AUTH."""
    ours, _ = _ours()
    auth = ours.receive(CHALLENGE)
    assert isinstance(auth, bytes)
    return ours, auth


HELLO = _ours()[1]
CHALLENGE = _theirs()[1]
AUTH = _challenged()[1]


def _handshakes() -> Iterator[Target]:
    theirs, _ = _theirs()
    theirs.receive(AUTH)
    welcome = theirs.welcome(issued=NODE.certificate, observed=Address("192.0.2.7", 4000))
    step = steps.decode_step(welcome)
    assert isinstance(step, steps.Welcome)
    reject = acceptor(ADMIN).refuse(RejectCode.VERSION_MISMATCH)
    everything = (HELLO, CHALLENGE, AUTH, welcome, reject)
    yield Target("step", everything, steps.decode_step, (WireError,))
    yield Target("hello", (HELLO,), _hello, (HandshakeError,))
    yield Target("challenge", (CHALLENGE,), _challenge, (HandshakeError,))
    yield Target("auth", (AUTH,), _auth, (HandshakeError,))
    yield Target("welcome", (welcome,), _welcome, (HandshakeError,))
    yield Target("welcome_signed", (step.body,), _welcome_signed, (HandshakeError,))


def _hello(data: bytes) -> None:
    acceptor(ADMIN).receive(data)


def _challenge(data: bytes) -> None:
    _ours()[0].receive(data)


def _auth(data: bytes) -> None:
    _theirs()[0].receive(data)


def _welcome(data: bytes) -> None:
    _challenged()[0].receive(data)


def _welcome_signed(body: bytes) -> None:
    ours, _ = _challenged()
    hello, challenge = steps.decode_step(HELLO), steps.decode_step(CHALLENGE)
    assert isinstance(hello, steps.Hello)
    assert isinstance(challenge, steps.Challenge)
    transcript = steps.transcript(challenge, hello, HELLO, id_bytes(ADMIN.id), ADMIN.identity.public)
    signature = ADMIN.identity.sign(steps.signed_by_acceptor(transcript, body))
    ours.receive(steps.encode_step(steps.Welcome(body=body, signature=signature)))


# -- pastes, files, HTTP -------------------------------------------------------------------------------


def _pastes_and_files() -> Iterator[Target]:
    places = (Address("192.0.2.7", 4000), Address("2001:db8::7", 4000))
    text = encode_token(replace(TOKEN, addresses=places))
    pastes = tuple(paste.encode() for paste in (text, f'"{text}"\n', text.upper()))
    yield Target("token", pastes, lambda data: decode_token(data.decode(errors="replace")), (TokenError,))
    packed = base64.b32decode(text.removeprefix(PREFIX).upper() + "=" * (-len(text.removeprefix(PREFIX)) % 8))
    yield Target("token_checked", (packed[:-4],), _token_checked, (TokenError,))
    kept = json.dumps(kept_trust([TOKEN_RECORD], [open_revocation(REVOCATION)])).encode()
    yield Target("trust_file", (kept,), _trust_file, (WireError,))
    order = ModelOrder(model=ModelId("m"), verb=Verb.UNLOAD, version=3, author=NODE.id, hold=True)
    choice = DefaultChoice(model=ModelId("m"), version=4, author=ADMIN.id)
    remembered = KeptOrders(orders=(order,), default=choice, override=ModelId("o"), clock=9, held=(ModelId("h"),))
    yield Target("orders_file", (json.dumps(kept_orders(remembered)).encode(),), _orders_file, (WireError,))
    model = build(llama())
    yield Target("gguf", (model,), lambda data: parse_header(io.BytesIO(data), len(data)), (InvalidModelError,))
    heads = (
        b"POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: x:1\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    )
    yield Target("http_head", heads, parse_head, (ProtocolError,))
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield Target("http_answer", (answer,), parse_answer_head, (AnswerError,))
    chunks = (b"5\r\nhello\r\n0\r\n\r\n", b"a;x=1\r\ndata: hi\n\n\r\n0\r\n\r\n")
    yield Target("http_chunks", chunks, _chunks, (AnswerError,))


def _token_checked(body: bytes) -> None:
    """Try what is inside a token with a checksum that fits."""
    whole = body + checksum(body)
    decode_token(PREFIX + base64.b32encode(whole).decode("ascii").rstrip("="))


def _trust_file(data: bytes) -> None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return  # the file has a checksum around it
    if isinstance(document, dict):
        read_trust(document, open_revocation)


def _orders_file(data: bytes) -> None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return  # the same
    if isinstance(document, dict):
        read_orders(document)


def _chunks(data: bytes) -> None:
    relay = ChunkRelay(by_event=True)
    for start in range(0, len(data), 7):
        if not relay.is_complete:
            relay.take(data[start : start + 7])
