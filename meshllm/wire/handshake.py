"""The steps of the handshake as payloads: HELLO, CHALLENGE, AUTH, then WELCOME or REJECT.

Owns their form and the transcript, the text that both sides sign. Decides what has the right form. Doesn't know keys,
time or the order of the steps: `transport.handshake` does.
"""

import hashlib
from dataclasses import dataclass
from typing import assert_never

from meshllm.core.limits import HANDSHAKE_BYTES, PEER_FEATURE_CHARS, PEER_FEATURES
from meshllm.wire.credentials import PUBLIC_BYTES, SIGNATURE_BYTES, check_sizes
from meshllm.wire.ids import ID_BYTES
from meshllm.wire.names import check_node_name, check_text, check_word
from meshllm.wire.packing import convert, malformed, pack, plain, read, unpack_map

NONCE_BYTES = 32
TOKEN_ID_BYTES = 8
PROOF_BYTES = 32
_KIND = "k"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The dialler's first words."""

    ver_min: int
    ver_max: int
    mesh: bytes
    node: bytes
    nonce: bytes
    name: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """The acceptor's answer: the version that both will speak, and something never said before."""

    ver: int
    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """The dialler proves its key, and shows a certificate, a token's proof, or both."""

    public: bytes
    signature: bytes
    certificate: bytes = b""
    token_id: bytes = b""
    proof: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The dialler is in. The acceptor signs what it says of itself, as bytes: a newer one may say more."""

    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WelcomeBody:
    """What an acceptor says of itself and gives to the dialler. It proves that it is a member too."""

    certificate: bytes
    root: bytes
    """The mesh's root public key."""
    name: str
    issued: bytes = b""
    """A certificate for the dialler, when it joins or renews."""
    observed_host: str = ""
    observed_port: int = 0
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """The dialler stays out."""

    code: str
    ver_min: int = 0
    ver_max: int = 0


Step = Hello | Challenge | Auth | Welcome | Reject

_KINDS: dict[str, type[Step]] = {
    "hello": Hello, "challenge": Challenge, "auth": Auth, "welcome": Welcome, "reject": Reject,
}  # fmt: skip
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode_step(step: Step) -> bytes:
    """Return a step as a payload."""
    return pack({_KIND: _NAMES[type(step)], **plain(step)})


def decode_step(payload: bytes) -> Step:
    """Return the step that a payload holds. Raises WireError."""
    content = unpack_map(payload, HANDSHAKE_BYTES)
    name = content.pop(_KIND, None)
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise malformed("no step of a handshake")
    step = convert(content, kind)
    _check(step)
    return step


def transcript(challenge: Challenge, hello: Hello, hello_payload: bytes, server: bytes, server_public: bytes) -> bytes:
    """Return the 32 bytes that stand for this handshake and no other.

    They name the acceptor by the id and the key that TLS has pinned, so that nothing signed for one node is worth
    anything at another; both nonces; and the whole HELLO as it was sent, so that nobody can talk the versions down.
    """
    parts = (
        b"meshllm/1 auth", challenge.ver.to_bytes(8, "big"), hello.mesh, server, server_public, hello.node,
        hello.nonce, challenge.nonce, hashlib.sha256(hello_payload).digest(),
    )  # fmt: skip
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def signed_by_dialler(handshake: bytes) -> bytes:
    """Return what AUTH's signature is over."""
    return b"meshllm/1 dialler\0" + handshake


def proved_with_token(handshake: bytes) -> bytes:
    """Return what AUTH's token proof is over."""
    return b"meshllm/1 token\0" + handshake


def signed_by_acceptor(handshake: bytes, body: bytes) -> bytes:
    """Return what WELCOME's signature is over."""
    return b"meshllm/1 acceptor\0" + handshake + hashlib.sha256(body).digest()


def read_welcome_body(body: bytes) -> WelcomeBody:
    """Return what a WELCOME says. Raises WireError."""
    said = read(body, WelcomeBody, HANDSHAKE_BYTES)
    check_sizes((said.root, PUBLIC_BYTES))
    check_node_name(said.name)
    check_text(said.observed_host)
    _check_features(said.features)
    return said


def write_welcome_body(body: WelcomeBody) -> bytes:
    """Return it as bytes."""
    return pack(body)


def _check(step: Step) -> None:
    match step:
        case Hello():
            check_sizes((step.mesh, ID_BYTES), (step.node, ID_BYTES), (step.nonce, NONCE_BYTES))
            check_node_name(step.name)
            _check_features(step.features)
            if step.ver_max < step.ver_min:
                raise malformed("a range of versions without a version")
        case Challenge():
            check_sizes((step.nonce, NONCE_BYTES))
        case Auth():
            check_sizes((step.public, PUBLIC_BYTES), (step.signature, SIGNATURE_BYTES))
            if step.token_id or step.proof:
                check_sizes((step.token_id, TOKEN_ID_BYTES), (step.proof, PROOF_BYTES))
        case Welcome():
            check_sizes((step.signature, SIGNATURE_BYTES))
        case Reject():
            check_word(step.code)
        case _:
            assert_never(step)


def _check_features(features: tuple[str, ...]) -> None:
    if len(features) > PEER_FEATURES or any(len(feature) > PEER_FEATURE_CHARS for feature in features):
        raise malformed("too many features")
    for feature in features:
        check_word(feature)
