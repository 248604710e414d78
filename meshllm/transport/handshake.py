"""The handshake of two nodes, as two small state machines: payloads go in, payloads and results come out.

Owns the order of the steps and every signature in them. Decides whether a peer is who it says. Doesn't decide whether
it may come in, which is `core.members.admission`'s, and doesn't know sockets or deadlines.

    dialler -> HELLO      acceptor -> CHALLENGE
    dialler -> AUTH       acceptor -> WELCOME, or REJECT at any time

TLS has proved the acceptor's key to the dialler, which has compared it with the id that it wanted to reach. The dialler
signs a transcript that names this key: nothing that it says here is worth anything elsewhere or later.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from meshllm.core.announcement import PROTOCOL_VERSION, Address
from meshllm.core.credentials import CertificateFacts, Claim, RejectCode, TokenProof
from meshllm.core.ids import MeshId, NodeId, TokenId
from meshllm.transport.certificates import read_certificate
from meshllm.transport.identity import Identity, mesh_id_of, node_id_of, verify
from meshllm.wire import handshake as steps
from meshllm.wire.announcements import usable_addresses
from meshllm.wire.errors import WireError
from meshllm.wire.ids import id_bytes, id_text
from meshllm.wire.names import fit_node_name
from meshllm.wire.token import Token

RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a node has to show, and of which mesh."""

    identity: Identity
    mesh: MeshId
    root_public: bytes | None = None
    """The mesh's root public key; unknown until the first WELCOME."""
    certificate: bytes | None = None
    token: Token | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a handshake is told of the world and of this program."""

    now_unix_s: float
    random_bytes: RandomBytes
    """Returns so many bytes that nobody can guess."""
    name: str
    features: tuple[str, ...] = ()
    versions: tuple[int, int] = (PROTOCOL_VERSION, PROTOCOL_VERSION)
    """The lowest and the highest that this program speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcomed:
    """A dialler is in."""

    peer: NodeId
    peer_certificate: CertificateFacts
    peer_name: str
    root_public: bytes
    certificate: bytes | None
    """A new one for this node, when it joined or renewed; already checked."""
    observed: Address | None
    """Where the peer sees this node."""
    version: int
    features: tuple[str, ...]


class HandshakeError(Exception):
    """A handshake is over without success.

    `code` is what the other side may know; `reason` says exactly what was wrong, in one word, for the local log;
    `message` is for people here; `reply`, when there is one, is the payload to send before closing.
    """

    def __init__(self, code: RejectCode, reason: str, message: str, reply: bytes = b"") -> None:
        """Keep all four."""
        super().__init__(f"{reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.reply = reply


class DiallerHandshake:
    """The side that dialled. `start`, then `receive` with each payload until it returns Welcomed or raises."""

    def __init__(self, credentials: Credentials, expected: NodeId, server_public: bytes, terms: Terms) -> None:
        """Prepare for the node `expected`, whose TLS certificate has shown the key `server_public`."""
        if node_id_of(server_public) != expected:
            raise HandshakeError(RejectCode.UNAUTHORIZED, "wrong_identity", "another node answers at this address")
        self._mine = credentials
        self._server = expected
        self._server_public = server_public
        self._terms = terms
        self._hello: steps.Hello | None = None
        self._hello_payload = b""
        self._challenge: steps.Challenge | None = None
        self._transcript = b""

    def start(self) -> bytes:
        """Return HELLO."""
        low, high = self._terms.versions
        self._hello = steps.Hello(
            ver_min=low, ver_max=high, mesh=id_bytes(self._mine.mesh), node=id_bytes(self._mine.identity.node),
            nonce=self._terms.random_bytes(steps.NONCE_BYTES), name=fit_node_name(self._terms.name),
            features=self._terms.features,
        )  # fmt: skip
        self._hello_payload = steps.encode_step(self._hello)
        return self._hello_payload

    def receive(self, payload: bytes) -> bytes | Welcomed:
        """Take the acceptor's next payload. Returns AUTH, then Welcomed. Raises HandshakeError."""
        match _step(payload):
            case steps.Reject() as reject:
                raise self._rejected(reject)
            case steps.Challenge() as challenge if self._hello is not None and self._challenge is None:
                return self._auth(self._hello, challenge)
            case steps.Welcome() as welcome if self._challenge is not None:
                return self._welcomed(welcome, self._challenge)
            case _:
                raise HandshakeError(RejectCode.MALFORMED, "out_of_order", "the peer does not keep to the handshake")

    def _auth(self, hello: steps.Hello, challenge: steps.Challenge) -> bytes:
        low, high = self._terms.versions
        if not low <= challenge.ver <= high:
            raise _versions(self._terms.versions, (challenge.ver, challenge.ver))
        self._challenge = challenge
        self._transcript = steps.transcript(
            challenge, hello, self._hello_payload, id_bytes(self._server), self._server_public
        )
        identity, token = self._mine.identity, self._mine.token
        return steps.encode_step(
            steps.Auth(
                public=identity.public, signature=identity.sign(steps.signed_by_dialler(self._transcript)),
                certificate=self._mine.certificate or b"",
                token_id=b"" if token is None else bytes.fromhex(token.token_id),
                proof=b"" if token is None else _proof(token.secret, steps.proved_with_token(self._transcript)),
            )
        )  # fmt: skip

    def _welcomed(self, welcome: steps.Welcome, challenge: steps.Challenge) -> Welcomed:
        """Check that the acceptor is a member and that what it gives is good."""
        mesh, now_unix_s = self._mine.mesh, self._terms.now_unix_s
        if not verify(self._server_public, welcome.signature, steps.signed_by_acceptor(self._transcript, welcome.body)):
            raise _unproved("bad_signature", "the peer's signature is wrong")
        try:
            said = steps.read_welcome_body(welcome.body)
            facts = read_certificate(said.certificate, mesh, now_unix_s)
            issued = read_certificate(said.issued, mesh, now_unix_s) if said.issued else None
        except WireError as error:
            raise _unproved("bad_certificate", f"the peer shows or gives a bad certificate: {error.message}") from error
        if facts.node != self._server or mesh_id_of(said.root) != mesh:
            raise _unproved("not_a_member", "the peer shows another node's certificate, or another mesh's root")
        if issued is not None and issued.node != self._mine.identity.node:
            raise _unproved("bad_certificate", "the peer gives a certificate of another node")
        if issued is None and self._mine.certificate is None:
            raise _unproved("no_certificate", "the peer lets this node in and gives it no certificate")
        return Welcomed(
            peer=self._server, peer_certificate=facts, peer_name=said.name, root_public=said.root,
            certificate=said.issued or None, observed=_observed(said), version=challenge.ver, features=said.features,
        )  # fmt: skip

    def _rejected(self, reject: steps.Reject) -> HandshakeError:
        """Return what a REJECT means for people: the acceptor says little, but this node knows its own side."""
        token, now_unix_s = self._mine.token, self._terms.now_unix_s
        match reject.code:
            case RejectCode.VERSION_MISMATCH:
                return _versions(self._terms.versions, (reject.ver_min, reject.ver_max))
            case RejectCode.SELF:
                return HandshakeError(RejectCode.SELF, "self", "the address leads back to this node")
            case RejectCode.WRONG_MESH:
                return HandshakeError(RejectCode.WRONG_MESH, "wrong_mesh", "the peer belongs to another mesh")
            case RejectCode.UNAUTHORIZED if token is not None and self._mine.certificate is not None:
                # A member that still shows the token it joined by: asking for another would not help the expelled.
                message = "the peer does not let this node in: it was expelled, or all it can show is old"
                return HandshakeError(RejectCode.UNAUTHORIZED, "refused", message)
            case RejectCode.UNAUTHORIZED if token is not None and now_unix_s > token.expires_unix_s:
                message = "the token has expired: ask for a new one"
                return HandshakeError(RejectCode.UNAUTHORIZED, "token_expired", message)
            case RejectCode.UNAUTHORIZED if token is not None:
                message = "the peer does not take the token: it was revoked or used up, or it is of another node"
                return HandshakeError(RejectCode.UNAUTHORIZED, "token_refused", message)
            case RejectCode.UNAUTHORIZED:
                message = "the peer does not let this node in: its certificate has expired or was revoked"
                return HandshakeError(RejectCode.UNAUTHORIZED, "refused", message)
            case _:
                message = f"the peer refuses the handshake: {reject.code}"
                return HandshakeError(RejectCode.MALFORMED, "refused", message)


class AcceptorHandshake:
    """The side that was dialled. `receive` HELLO, then AUTH; then `welcome` or `refuse`."""

    def __init__(self, credentials: Credentials, terms: Terms) -> None:
        """Prepare for anybody."""
        self._mine = credentials
        self._terms = terms
        self._hello: steps.Hello | None = None
        self._version = 0
        self._hello_payload = b""
        self._challenge: steps.Challenge | None = None
        self._transcript = b""
        self._is_over = False
        self._has_claim = False

    def receive(self, payload: bytes) -> bytes | Claim:
        """Take the dialler's next payload. Returns CHALLENGE, then a Claim. Raises HandshakeError."""
        try:
            return self._receive(payload)
        except HandshakeError as error:
            self._is_over = True
            error.reply = self.refuse(error.code)
            raise

    def _receive(self, payload: bytes) -> bytes | Claim:
        step = _step(payload)
        if isinstance(step, steps.Hello) and self._hello is None and not self._is_over:
            return self._challenged(step, payload)
        if isinstance(step, steps.Auth) and self._hello is not None and not self._is_over:
            self._is_over = True
            claim = self._claim(self._hello, step)
            self._has_claim = True
            return claim
        raise HandshakeError(RejectCode.MALFORMED, "out_of_order", "the peer does not keep to the handshake")

    def welcome(self, *, issued: bytes | None = None, observed: Address | None = None) -> bytes:
        """Return WELCOME, with a certificate for the dialler if it gets one. After a Claim only."""
        if self._mine.certificate is None or self._mine.root_public is None or not self._has_claim:
            raise ValueError("a member welcomes, after a claim")
        body = steps.write_welcome_body(
            steps.WelcomeBody(
                certificate=self._mine.certificate, root=self._mine.root_public, name=fit_node_name(self._terms.name),
                issued=issued or b"", observed_host="" if observed is None else observed.host,
                observed_port=0 if observed is None else observed.port, features=self._terms.features,
            )
        )  # fmt: skip
        signature = self._mine.identity.sign(steps.signed_by_acceptor(self._transcript, body))
        return steps.encode_step(steps.Welcome(body=body, signature=signature))

    def refuse(self, code: RejectCode) -> bytes:
        """Return REJECT. It says nothing that an outsider could use."""
        self._is_over = True
        low, high = self._terms.versions if code is RejectCode.VERSION_MISMATCH else (0, 0)
        return steps.encode_step(steps.Reject(code=code.value, ver_min=low, ver_max=high))

    def _challenged(self, hello: steps.Hello, payload: bytes) -> bytes:
        low, high = self._terms.versions
        version = min(hello.ver_max, high)
        if version < max(hello.ver_min, low):
            raise _versions(self._terms.versions, (hello.ver_min, hello.ver_max))
        if hello.mesh != id_bytes(self._mine.mesh):
            raise HandshakeError(RejectCode.WRONG_MESH, "wrong_mesh", "the peer belongs to another mesh")
        if hello.node == id_bytes(self._mine.identity.node):
            raise HandshakeError(RejectCode.SELF, "self", "this node has dialled itself")
        challenge = steps.Challenge(ver=version, nonce=self._terms.random_bytes(steps.NONCE_BYTES))
        self._hello, self._version = hello, version
        me = self._mine.identity
        self._transcript = steps.transcript(challenge, hello, payload, id_bytes(me.node), me.public)
        return steps.encode_step(challenge)

    def _claim(self, hello: steps.Hello, auth: steps.Auth) -> Claim:
        node = NodeId(id_text(hello.node))
        if node_id_of(auth.public) != node:
            raise _unproved("other_key", "the peer shows another key than its id is made of")
        if not verify(auth.public, auth.signature, steps.signed_by_dialler(self._transcript)):
            raise _unproved("bad_signature", "the peer's signature is wrong")
        certificate, problem = self._certificate(auth.certificate, node)
        proof = None
        if auth.proof:
            proof = TokenProof(
                token_id=TokenId(auth.token_id.hex()), proof=auth.proof,
                transcript=steps.proved_with_token(self._transcript),
            )  # fmt: skip
        if certificate is None and proof is None:
            raise _unproved("bad_certificate" if problem else "no_credential", problem or "the peer shows nothing")
        return Claim(
            node=node, public=auth.public, name=hello.name, version=self._version, features=hello.features,
            certificate=certificate, certificate_problem=problem, token_proof=proof,
        )  # fmt: skip

    def _certificate(self, data: bytes, node: NodeId) -> tuple[CertificateFacts | None, str]:
        """Return the facts of a good certificate of this node, or what is wrong with it."""
        if not data:
            return None, ""
        try:
            facts = read_certificate(data, self._mine.mesh, self._terms.now_unix_s)
        except WireError as error:
            return None, error.message
        return (facts, "") if facts.node == node else (None, "the certificate is another node's")


def _step(payload: bytes) -> steps.Step:
    try:
        return steps.decode_step(payload)
    except WireError as error:
        raise HandshakeError(RejectCode.MALFORMED, "malformed", error.message) from error


def _proof(secret: bytes, text: bytes) -> bytes:
    return hmac.digest(hashlib.sha256(secret).digest(), text, "sha256")


def _unproved(reason: str, message: str) -> HandshakeError:
    return HandshakeError(RejectCode.UNAUTHORIZED, reason, message)


def _versions(ours: tuple[int, int], theirs: tuple[int, int]) -> HandshakeError:
    message = f"no common version of the protocol: this node speaks {_span(ours)}, the peer {_span(theirs)}"
    return HandshakeError(RejectCode.VERSION_MISMATCH, "version_mismatch", message)


def _span(versions: tuple[int, int]) -> str:
    low, high = versions
    return f"{low}" if low == high else f"{low} to {high}"


def _observed(said: steps.WelcomeBody) -> Address | None:
    found = usable_addresses((Address(said.observed_host, said.observed_port),), allow_loopback=True)
    return found[0] if found else None
