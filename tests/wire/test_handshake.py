"""The steps of the handshake as payloads; tests/transport/test_handshake.py tests their order and signatures."""

from dataclasses import replace

import pytest

from meshllm.core.limits import HANDSHAKE_BYTES
from meshllm.wire import handshake as steps
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.packing import pack, plain

HELLO = steps.Hello(
    ver_min=1, ver_max=2, mesh=b"m" * 32, node=b"n" * 32, nonce=b"c" * 32, name="laptop", features=("resume",)
)
CHALLENGE = steps.Challenge(ver=1, nonce=b"s" * 32)
AUTH = steps.Auth(public=b"p" * 32, signature=b"s" * 64, certificate=b"certificate", token_id=b"t" * 8, proof=b"o" * 32)
BODY = steps.WelcomeBody(
    certificate=b"certificate", root=b"r" * 32, name="studio", issued=b"issued", observed_host="192.0.2.7",
    observed_port=4000, features=("bulk",),
)  # fmt: skip
WELCOME = steps.Welcome(body=b"body", signature=b"s" * 64)
REJECT = steps.Reject(code="version_mismatch", ver_min=1, ver_max=2)
STEPS: list[steps.Step] = [HELLO, CHALLENGE, AUTH, WELCOME, REJECT]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_every_step_comes_back(step: steps.Step) -> None:
    """There and back again."""
    assert steps.decode_step(steps.encode_step(step)) == step


def test_the_body_of_a_welcome_comes_back_without_what_is_newer() -> None:
    """It is signed as bytes, so a newer acceptor may say more."""
    assert steps.read_welcome_body(steps.write_welcome_body(BODY)) == BODY
    assert steps.read_welcome_body(pack({**plain(BODY), "mood": "good"})) == BODY


@pytest.mark.parametrize(
    "changes",
    [{"root": b""}, {"name": "<b>"}, {"observed_host": "h" * 300}, {"observed_port": -1}, {"features": ["a b"]}],
    ids=str,
)
def test_a_wrong_body_is_refused(changes: dict[str, object]) -> None:
    """A member's mistake is our error, too."""
    with pytest.raises(WireError):
        steps.read_welcome_body(pack({**plain(BODY), **changes}))


def test_a_step_has_a_limit() -> None:
    """Before admission nobody gets more than 16 KiB."""
    with pytest.raises(WireError) as caught:
        steps.decode_step(bytes(HANDSHAKE_BYTES + 1))

    assert caught.value.code is WireCode.FRAME_TOO_LARGE


def made(hello: steps.Hello = HELLO, challenge: steps.Challenge = CHALLENGE, **changes: bytes) -> bytes:
    """Return a transcript, or a variation."""
    parts = {"hello_payload": b"hello", "server": b"a" * 32, "server_public": b"b" * 32, **changes}
    return steps.transcript(challenge, hello, **parts)


def test_everything_counts_in_a_transcript() -> None:
    """A change anywhere is another handshake."""
    variations = [
        made(), made(hello_payload=b"hallo"), made(server=b"?" * 32), made(server_public=b"?" * 32),
        made(replace(HELLO, mesh=b"?" * 32)), made(replace(HELLO, node=b"?" * 32)),
        made(replace(HELLO, nonce=CHALLENGE.nonce), replace(CHALLENGE, nonce=HELLO.nonce)),
        made(challenge=replace(CHALLENGE, ver=2)), made(challenge=replace(CHALLENGE, nonce=b"?" * 32)),
    ]  # fmt: skip

    assert len(set(variations)) == len(variations)


def test_each_signature_is_over_something_else() -> None:
    """What one side signs is never what the other would."""
    texts = {
        steps.signed_by_dialler(made()), steps.proved_with_token(made()), steps.signed_by_acceptor(made(), b""),
        steps.signed_by_acceptor(made(), b"more"),
    }  # fmt: skip

    assert len(texts) == 4
