"""The handshake, step by step, and everything that goes wrong in it (threats 1.3, O1 to O3, P12; malformed 3.3)."""

import hashlib
import hmac
from dataclasses import replace

import pytest

from meshllm.core.announcement import Address
from meshllm.core.credentials import Claim, RejectCode
from meshllm.core.rights import GUEST, OWN_MACHINE
from meshllm.transport.certificates import Grant, issue
from meshllm.transport.handshake import AcceptorHandshake, DiallerHandshake, HandshakeError, Welcomed
from meshllm.transport.identity import Identity
from meshllm.wire import handshake as steps
from meshllm.wire.packing import pack
from tests.transport.builders import NOW_UNIX_S, Mesh, Node, acceptor, chance, dialler, terms

DAY_S = 86_400.0


def claim_of(ours: DiallerHandshake, theirs: AcceptorHandshake) -> Claim:
    """Run a handshake up to the dialler's claim."""
    challenge = theirs.receive(ours.start())
    assert isinstance(challenge, bytes)
    auth = ours.receive(challenge)
    assert isinstance(auth, bytes)
    claim = theirs.receive(auth)
    assert isinstance(claim, Claim)
    return claim


def refused(theirs: AcceptorHandshake, *payloads: bytes) -> HandshakeError:
    """Return how the acceptor refuses the last of these payloads."""
    for payload in payloads[:-1]:
        theirs.receive(payload)
    with pytest.raises(HandshakeError) as caught:
        theirs.receive(payloads[-1])
    return caught.value


def reject_of(error: HandshakeError) -> steps.Reject:
    """Return what the other side is told."""
    step = steps.decode_step(error.reply)
    assert isinstance(step, steps.Reject)
    return step


# -- the good ways -------------------------------------------------------------------------------------


def test_two_members_meet() -> None:
    """Both know each other's key, rights and name after four payloads."""
    mesh = Mesh()
    one, two = mesh.member(GUEST), mesh.member(OWN_MACHINE)
    ours, theirs = dialler(one, two, features=("bulk",)), acceptor(two, features=("resume",))

    claim = claim_of(ours, theirs)
    welcomed = ours.receive(theirs.welcome(observed=Address("192.0.2.9", 4000)))

    assert isinstance(welcomed, Welcomed)
    assert claim.certificate is not None
    assert (claim.node, claim.public, claim.name, claim.version) == (one.id, one.identity.public, "laptop", 1)
    assert (claim.certificate.rights, claim.token_proof, claim.features) == (GUEST, None, ("bulk",))
    assert (welcomed.peer, welcomed.peer_certificate.rights, welcomed.peer_name) == (two.id, OWN_MACHINE, "studio")
    assert (welcomed.observed, welcomed.certificate) == (Address("192.0.2.9", 4000), None)
    assert (welcomed.root_public, welcomed.version, welcomed.features) == (mesh.root.public, 1, ("resume",))


def test_a_stranger_joins_with_a_token() -> None:
    """It proves the secret without saying it, and gets a certificate and the root's key."""
    mesh = Mesh()
    founder, stranger = mesh.member(OWN_MACHINE), mesh.stranger()
    token = founder.token(GUEST)
    ours, theirs = dialler(stranger, founder, token=token), acceptor(founder)

    claim = claim_of(ours, theirs)
    grant = Grant(node=claim.node, rights=token.rights, name=claim.name, serial=5)
    welcomed = ours.receive(theirs.welcome(issued=issue(founder.issuer, grant, NOW_UNIX_S)))

    assert isinstance(welcomed, Welcomed)
    assert claim.token_proof is not None
    assert (claim.certificate, claim.token_proof.token_id) == (None, token.token_id)
    key = hashlib.sha256(token.secret).digest()
    assert hmac.digest(key, claim.token_proof.transcript, "sha256") == claim.token_proof.proof
    joined = Node(mesh, stranger.identity, welcomed.certificate or b"")
    assert claim_of(dialler(joined, founder), acceptor(founder)).certificate is not None


def test_the_secret_never_travels() -> None:
    """Nor does what the issuer keeps of it."""
    mesh = Mesh()
    founder = mesh.member()
    token = founder.token()
    ours, theirs = dialler(mesh.stranger(), founder, token=token), acceptor(founder)

    auth = auth_of(ours, theirs)

    said = steps.encode_step(auth)
    assert token.secret not in said
    assert hashlib.sha256(token.secret).digest() not in said


def test_an_old_certificate_beside_a_token_is_told_and_does_no_harm() -> None:
    """Who was away for two months joins again with a new token."""
    mesh = Mesh()
    founder = mesh.member(at=NOW_UNIX_S)
    away = mesh.member(at=NOW_UNIX_S - 60 * DAY_S)

    claim = claim_of(dialler(away, founder, token=founder.token()), acceptor(founder))

    assert (claim.certificate, claim.certificate_problem) == (None, "the certificate has expired")
    assert claim.token_proof is not None


def test_the_highest_common_version_is_spoken() -> None:
    """Neighbouring versions meet."""
    mesh = Mesh()
    one, two = mesh.member(), mesh.member()

    claim = claim_of(dialler(one, two, versions=(1, 3)), acceptor(two, versions=(2, 2)))

    assert claim.version == 2


# -- HELLO ---------------------------------------------------------------------------------------------


def hello(node: Node, /, **changes: object) -> bytes:
    """Return a HELLO, or a variation."""
    step = steps.decode_step(dialler(node, node.mesh.member()).start())
    assert isinstance(step, steps.Hello)
    return steps.encode_step(replace(step, **changes))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"mesh": bytes(32)}, RejectCode.WRONG_MESH),
        ({"mesh": b""}, RejectCode.MALFORMED),
        ({"mesh": bytes(33)}, RejectCode.MALFORMED),
        ({"node": bytes(31)}, RejectCode.MALFORMED),
        ({"nonce": bytes(16)}, RejectCode.MALFORMED),
        ({"name": ""}, RejectCode.MALFORMED),
        ({"name": "\x1b[2J"}, RejectCode.MALFORMED),
        ({"name": "n" * 65}, RejectCode.MALFORMED),
        ({"features": ("f",) * 33}, RejectCode.MALFORMED),
        ({"features": ("f" * 65,)}, RejectCode.MALFORMED),
        ({"features": ("<b>",)}, RejectCode.MALFORMED),
        ({"ver_min": 3, "ver_max": 2}, RejectCode.MALFORMED),
        ({"ver_min": 2, "ver_max": 9}, RejectCode.VERSION_MISMATCH),
        ({"ver_min": 0, "ver_max": 0}, RejectCode.VERSION_MISMATCH),
    ],
    ids=str,
)
def test_a_hello_is_refused_with_its_code(changes: dict[str, object], code: RejectCode) -> None:
    """What the dialler may know, it is told."""
    mesh = Mesh()

    error = refused(acceptor(mesh.member()), hello(mesh.member(), **changes))

    assert (error.code, reject_of(error).code) == (code, code)


def test_versions_that_never_meet_are_told_on_both_sides() -> None:
    """The person who joins sees which of the two programs is older."""
    mesh = Mesh()
    one, two = mesh.member(), mesh.member()
    ours = dialler(one, two, versions=(4, 5))

    error = refused(acceptor(two, versions=(1, 2)), ours.start())
    with pytest.raises(HandshakeError) as caught:
        ours.receive(error.reply)

    assert (reject_of(error).ver_min, reject_of(error).ver_max) == (1, 2)
    assert "4 to 5" in error.message
    assert "1 to 2" in error.message
    assert caught.value.code is RejectCode.VERSION_MISMATCH
    assert "this node speaks 4 to 5, the peer 1 to 2" in caught.value.message


def test_a_node_that_dials_itself_notices() -> None:
    """On both ends."""
    mesh = Mesh()
    one = mesh.member()
    ours = dialler(one, one)

    error = refused(acceptor(one), ours.start())
    with pytest.raises(HandshakeError) as caught:
        ours.receive(error.reply)

    assert error.code is caught.value.code is RejectCode.SELF


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x80", b"\x90", pack({"k": "hullo"}), pack({"k": ["hello"]}), bytes(16_385)], ids=len
)
def test_anything_else_is_refused(payload: bytes) -> None:
    """With one code, and a payload to answer with."""
    mesh = Mesh()

    error = refused(acceptor(mesh.member()), payload)

    assert (error.code, reject_of(error).code) == (RejectCode.MALFORMED, "malformed")


# -- AUTH ----------------------------------------------------------------------------------------------


def auth_of(ours: DiallerHandshake, theirs: AcceptorHandshake) -> steps.Auth:
    """Run a handshake up to AUTH."""
    step = steps.decode_step(ours.receive(theirs.receive(ours.start())))
    assert isinstance(step, steps.Auth)
    return step


AUTHS = {
    "bad signature": ("bad_signature", lambda auth, mesh, eve: {"signature": bytes(64)}),
    "another node's key": ("other_key", lambda auth, mesh, eve: {"public": eve.identity.public}),
    "another node's certificate": ("bad_certificate", lambda auth, mesh, eve: {"certificate": eve.certificate}),
    "certificate of another mesh": (
        "bad_certificate", lambda auth, mesh, eve: {"certificate": Mesh().member().certificate},
    ),
    "certificate of an unknown root": (
        "bad_certificate",
        lambda auth, mesh, eve: {"certificate": Mesh().member(by=Mesh().member()).certificate},
    ),
    "certificate cut short": ("bad_certificate", lambda auth, mesh, eve: {"certificate": auth.certificate[:-1]}),
    "certificate with a bit turned": (
        "bad_certificate",
        lambda auth, mesh, eve: {"certificate": auth.certificate[:40] + b"\x7f" + auth.certificate[41:]},
    ),
    "nothing to show": ("no_credential", lambda auth, mesh, eve: {"certificate": b""}),
}  # fmt: skip


@pytest.mark.parametrize(("reason", "change"), AUTHS.values(), ids=AUTHS.keys())
def test_a_bad_auth_is_refused_with_one_code_outside(reason: str, change) -> None:
    """The log here says which part failed; the other side learns nothing."""
    mesh = Mesh()
    one, two, eve = mesh.member(), mesh.member(), mesh.member()
    theirs = acceptor(two)
    auth = auth_of(dialler(one, two), theirs)

    error = refused(theirs, steps.encode_step(replace(auth, **change(auth, mesh, eve))))

    assert (error.code, error.reason) == (RejectCode.UNAUTHORIZED, reason)
    assert reject_of(error) == steps.Reject(code="unauthorized")


@pytest.mark.parametrize(
    ("off_s", "words"), [(-60 * DAY_S, "has expired"), (60 * DAY_S, "from the future")], ids=["expired", "future"]
)
def test_a_certificate_outside_its_time_is_refused(off_s: float, words: str) -> None:
    """Whoever signed it."""
    mesh = Mesh()
    one, two = mesh.member(at=NOW_UNIX_S + off_s), mesh.member()
    theirs = acceptor(two)

    error = refused(theirs, steps.encode_step(auth_of(dialler(one, two), theirs)))

    assert reject_of(error).code == "unauthorized"
    assert words in error.message


def test_a_replayed_auth_is_worth_nothing() -> None:
    """The acceptor's nonce is another one each time (O3)."""
    mesh = Mesh()
    one, two = mesh.member(), mesh.member()
    ours, first = dialler(one, two), acceptor(two)
    greeting = ours.start()
    auth = ours.receive(first.receive(greeting))

    error = refused(acceptor(two), greeting, auth)

    assert error.reason == "bad_signature"


def test_a_replayed_token_proof_is_worth_nothing() -> None:
    """The proof is over the transcript, too."""
    mesh = Mesh()
    founder, stranger, eve = mesh.member(), mesh.stranger(), mesh.stranger()
    stolen = auth_of(dialler(stranger, founder, token=founder.token()), acceptor(founder))
    theirs = acceptor(founder)
    auth = auth_of(dialler(eve, founder, token=replace(founder.token(), secret=b"?" * 32)), theirs)

    claim = theirs.receive(steps.encode_step(replace(auth, token_id=stolen.token_id, proof=stolen.proof)))

    assert isinstance(claim, Claim)
    assert claim.token_proof is not None
    key = hashlib.sha256(founder.token().secret).digest()
    assert hmac.digest(key, claim.token_proof.transcript, "sha256") != claim.token_proof.proof


def test_nonces_of_both_sides_count() -> None:
    """Swapped or exchanged, the signature is over something else."""
    mesh = Mesh()
    one, two = mesh.member(), mesh.member()
    theirs, ours = acceptor(two), dialler(one, two)
    challenge = steps.decode_step(theirs.receive(ours.start()))

    auth = ours.receive(steps.encode_step(replace(challenge, nonce=chance(32))))

    assert refused(theirs, auth).reason == "bad_signature"


def test_what_is_signed_for_one_node_is_worth_nothing_at_another() -> None:
    """A member in the middle cannot pass a handshake on (O2)."""
    mesh = Mesh()
    one, middle, victim = mesh.member(), mesh.member(), mesh.member()
    ours, theirs = dialler(one, middle), acceptor(victim)

    auth = ours.receive(theirs.receive(ours.start()))

    assert refused(theirs, auth).reason == "bad_signature"


def test_versions_and_features_cannot_be_talked_down() -> None:
    """HELLO is under the signature (P12)."""
    mesh = Mesh()
    one, two = mesh.member(), mesh.member()
    ours, theirs = dialler(one, two, versions=(1, 2), features=("resume",)), acceptor(two, versions=(1, 2))
    greeting = steps.decode_step(ours.start())

    auth = ours.receive(theirs.receive(steps.encode_step(replace(greeting, ver_max=1, features=()))))

    assert refused(theirs, auth).reason == "bad_signature"


@pytest.mark.parametrize("changes", [{"proof": bytes(31)}, {"token_id": bytes(7)}, {"public": b""}], ids=str)
def test_an_auth_of_a_wrong_form_is_refused(changes: dict[str, bytes]) -> None:
    """Before anything is computed."""
    mesh = Mesh()
    founder = mesh.member()
    theirs = acceptor(founder)
    auth = auth_of(dialler(mesh.stranger(), founder, token=founder.token()), theirs)

    assert refused(theirs, steps.encode_step(replace(auth, **changes))).code is RejectCode.MALFORMED


def test_steps_have_one_order_and_happen_once() -> None:
    """An acceptor whose handshake is over or not begun takes nothing."""
    mesh = Mesh()
    one, two = mesh.member(), mesh.member()
    ours, theirs = dialler(one, two), acceptor(two)
    greeting = ours.start()
    auth = ours.receive(theirs.receive(greeting))

    for payloads in ([auth], [greeting, greeting], [greeting, auth]):
        assert refused(acceptor(two), *payloads).code in {RejectCode.MALFORMED, RejectCode.UNAUTHORIZED}
    theirs.receive(auth)
    assert refused(theirs, auth).reason == refused(theirs, greeting).reason == "out_of_order"


def test_nobody_is_welcomed_without_a_claim() -> None:
    """Neither before nor after a failure."""
    mesh = Mesh()
    one, two = mesh.member(), mesh.member()
    theirs = acceptor(two)
    with pytest.raises(ValueError, match="after a claim"):
        theirs.welcome()
    auth = auth_of(dialler(one, two), theirs)

    refused(theirs, steps.encode_step(replace(auth, signature=bytes(64))))

    with pytest.raises(ValueError, match="after a claim"):
        theirs.welcome()


# -- the dialler's side --------------------------------------------------------------------------------


def test_another_key_than_the_expected_one_is_not_spoken_to() -> None:
    """The pin comes before any byte (O2)."""
    mesh = Mesh()
    one, two, eve = mesh.member(), mesh.member(), mesh.member()

    with pytest.raises(HandshakeError) as caught:
        DiallerHandshake(one.credentials(), two.id, eve.identity.public, terms())

    assert caught.value.reason == "wrong_identity"


WELCOMES = {
    "signature of zeros": ("bad_signature", lambda welcome, body, mesh, two: replace(welcome, signature=bytes(64))),
    "body exchanged": (
        "bad_signature",
        lambda welcome, body, mesh, two: replace(welcome, body=steps.write_welcome_body(replace(body, name="other"))),
    ),
}


@pytest.mark.parametrize(("reason", "change"), WELCOMES.values(), ids=WELCOMES.keys())
def test_a_welcome_that_was_touched_is_refused(reason: str, change) -> None:
    """The acceptor signs it."""
    mesh = Mesh()
    one, two = mesh.member(), mesh.member()
    ours, theirs = dialler(one, two), acceptor(two)
    claim_of(ours, theirs)
    welcome = steps.decode_step(theirs.welcome())
    assert isinstance(welcome, steps.Welcome)

    with pytest.raises(HandshakeError) as caught:
        ours.receive(steps.encode_step(change(welcome, steps.read_welcome_body(welcome.body), mesh, two)))

    assert caught.value.reason == reason


def welcomed_by(two: Node, changed_credentials, *, issued: bytes | None = None, one: Node | None = None):
    """Return how a dialler takes the welcome of a node that shows something else than it has."""
    one = one or two.mesh.member()
    ours = dialler(one, two)
    theirs = AcceptorHandshake(replace(two.credentials(), **changed_credentials), terms())
    claim_of(ours, theirs)
    return ours.receive(theirs.welcome(issued=issued))


BAD_WELCOMES = {
    "another's certificate": ("not_a_member", lambda mesh: {"certificate": mesh.member().certificate}),
    "another mesh's certificate": ("bad_certificate", lambda mesh: {"certificate": Mesh().member().certificate}),
    "another root": ("not_a_member", lambda mesh: {"root_public": Identity.generate().public}),
    "bytes as certificate": ("bad_certificate", lambda mesh: {"certificate": b"\x80"}),
}


@pytest.mark.parametrize(("reason", "change"), BAD_WELCOMES.values(), ids=BAD_WELCOMES.keys())
def test_an_acceptor_that_is_no_member_is_left(reason: str, change) -> None:
    """A token's issuer, or a known peer, has to prove that it still belongs to the mesh."""
    mesh = Mesh()

    with pytest.raises(HandshakeError) as caught:
        welcomed_by(mesh.member(), change(mesh))

    assert caught.value.reason == reason


def test_a_certificate_for_somebody_else_is_not_taken() -> None:
    """Nor is one that is none."""
    mesh = Mesh()

    for issued in (mesh.member().certificate, b"\x80"):
        with pytest.raises(HandshakeError) as caught:
            welcomed_by(mesh.member(), {}, issued=issued)
        assert caught.value.reason == "bad_certificate"


def test_a_stranger_that_is_let_in_without_a_certificate_leaves() -> None:
    """It could not come back."""
    mesh = Mesh()
    founder = mesh.member()
    ours, theirs = dialler(mesh.stranger(), founder, token=founder.token()), acceptor(founder)
    claim_of(ours, theirs)

    with pytest.raises(HandshakeError) as caught:
        ours.receive(theirs.welcome())

    assert caught.value.reason == "no_certificate"


@pytest.mark.parametrize(
    ("code", "has_token", "late_s", "reason"),
    [
        ("wrong_mesh", False, 0.0, "wrong_mesh"),
        ("unauthorized", False, 0.0, "refused"),
        ("unauthorized", True, 0.0, "token_refused"),
        ("unauthorized", True, 2 * DAY_S, "token_expired"),
        ("some_newer_code", False, 0.0, "refused"),
    ],
)
def test_a_reject_is_put_into_words(code: str, has_token: bool, late_s: float, reason: str) -> None:
    """The acceptor says little; this node knows what it showed."""
    mesh = Mesh()
    founder = mesh.member()
    joiner = mesh.stranger() if has_token else mesh.member()
    ours = dialler(joiner, founder, token=founder.token() if has_token else None, now_unix_s=NOW_UNIX_S + late_s)
    ours.start()

    with pytest.raises(HandshakeError) as caught:
        ours.receive(steps.encode_step(steps.Reject(code=code)))

    assert caught.value.reason == reason


def test_an_expelled_member_is_not_told_that_its_token_is_at_fault() -> None:
    """People restart a node with the command that they joined by."""
    mesh = Mesh()
    founder = mesh.member()
    ours = dialler(mesh.member(), founder, token=founder.token(), now_unix_s=NOW_UNIX_S)
    ours.start()

    with pytest.raises(HandshakeError) as caught:
        ours.receive(steps.encode_step(steps.Reject(code="unauthorized")))

    assert caught.value.reason == "refused"
    assert "expelled" in str(caught.value)


def test_a_version_that_was_not_offered_is_refused() -> None:
    """An acceptor chooses among what it was told."""
    mesh = Mesh()
    ours = dialler(mesh.member(), mesh.member())
    ours.start()

    with pytest.raises(HandshakeError) as caught:
        ours.receive(steps.encode_step(steps.Challenge(ver=2, nonce=bytes(32))))

    assert caught.value.code is RejectCode.VERSION_MISMATCH


def test_the_dialler_takes_steps_in_their_order_only() -> None:
    """WELCOME before CHALLENGE, a second CHALLENGE, a HELLO, noise."""
    mesh = Mesh()
    challenge = steps.encode_step(steps.Challenge(ver=1, nonce=bytes(32)))
    welcome = steps.encode_step(steps.Welcome(body=b"", signature=bytes(64)))

    for payloads in ([welcome], [challenge, challenge], [hello(mesh.member())], [b"\xc1"]):
        ours = dialler(mesh.member(), mesh.member())
        ours.start()
        for payload in payloads[:-1]:
            ours.receive(payload)
        with pytest.raises(HandshakeError) as caught:
            ours.receive(payloads[-1])
        assert caught.value.code is RejectCode.MALFORMED


def test_a_challenge_before_the_start_is_refused() -> None:
    """Nothing was asked yet."""
    mesh = Mesh()

    with pytest.raises(HandshakeError):
        dialler(mesh.member(), mesh.member()).receive(steps.encode_step(steps.Challenge(ver=1, nonce=bytes(32))))


def test_the_longest_handshake_fits_its_limit() -> None:
    """Certificates with four issuers on both sides."""
    mesh = Mesh()
    one = two = mesh.member(OWN_MACHINE)
    for _ in range(3):
        one, two = mesh.member(OWN_MACHINE, by=one), mesh.member(OWN_MACHINE, by=two)
    ours, theirs = dialler(one, two), acceptor(two)
    greeting = ours.start()
    auth = ours.receive(theirs.receive(greeting))
    theirs.receive(auth)

    welcome = theirs.welcome(issued=one.certificate)

    assert isinstance(ours.receive(welcome), Welcomed)
    assert max(len(greeting) + len(auth), len(welcome)) < 8 * 1024
