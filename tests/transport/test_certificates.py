"""Certificates, records and revocations: who may sign what (threats P1, rows of malformed inputs 3.3 and 3.4)."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from meshllm.core.announcement import Address
from meshllm.core.limits import CERTIFICATE_LEEWAY_S, CERTIFICATE_LIFE_S, DELEGATION_LIFE_S
from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE, Rights
from meshllm.transport.certificates import (
    CertificateError,
    Grant,
    better_delegation,
    issue,
    open_revocation,
    open_sealed,
    read_certificate,
    revoke,
    seal,
)
from meshllm.transport.identity import Identity
from meshllm.wire import credentials as form
from meshllm.wire.credentials import SignedAs
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.ids import id_bytes
from meshllm.wire.packing import pack, plain
from tests.transport.builders import NOW_UNIX_S, Mesh, Node

DAY_S = 86_400.0


def grant(node: Node, rights: Rights = GUEST) -> Grant:
    """Return what a certificate is to say."""
    return Grant(node=node.id, rights=rights, name="x", serial=1)


def forged(by: Identity, chain: bytes, purpose: SignedAs = SignedAs.CERTIFICATE, **changes: object) -> bytes:
    """Return a certificate that `by` signs without asking anybody whether it may."""
    mesh = changes.pop("mesh")
    body = form.CertificateBody(
        v=1, mesh=id_bytes(mesh), node=bytes(32), rights=3, name="x", serial=1, not_before=int(NOW_UNIX_S),
        not_after=int(NOW_UNIX_S) + 3600,
    )  # fmt: skip
    written = form.write(replace(body, **changes))
    signature = by.sign(purpose.value + written)
    return form.write(form.Issued(body=written, issuer=by.public, signature=signature, chain=chain))


def test_the_root_makes_members() -> None:
    """Everything that a certificate says can be read by whoever knows the mesh's id."""
    mesh = Mesh()
    node = mesh.member(OWN_MACHINE)

    facts = read_certificate(node.certificate, mesh.id, NOW_UNIX_S)

    assert (facts.node, facts.rights, facts.name, facts.issuers) == (node.id, OWN_MACHINE, "studio", ())
    assert facts.not_after_unix_s - facts.not_before_unix_s == CERTIFICATE_LIFE_S
    assert facts.delegated_until_unix_s == NOW_UNIX_S + DELEGATION_LIFE_S
    assert facts.issuer is None
    assert facts.renewal_unix_s(2 / 3) == pytest.approx(NOW_UNIX_S + 20 * DAY_S)


def test_an_admin_makes_members() -> None:
    """Any machine of one's own can admit."""
    mesh = Mesh()
    admin = mesh.member(OWN_MACHINE)
    guest = mesh.member(GUEST, by=admin)

    facts = read_certificate(guest.certificate, mesh.id, NOW_UNIX_S)

    assert (facts.rights, facts.issuer, facts.delegated_until_unix_s) == (GUEST, admin.id, 0.0)


def test_admins_admit_admins_up_to_four_certificates() -> None:
    """Farther from the root nobody is sure whom they trust."""
    mesh = Mesh()
    admins = [mesh.member(OWN_MACHINE)]
    for _ in range(3):
        admins.append(mesh.member(OWN_MACHINE, by=admins[-1]))

    facts = read_certificate(admins[-1].certificate, mesh.id, NOW_UNIX_S)
    with pytest.raises(CertificateError, match="too many issuers"):
        mesh.member(GUEST, by=admins[-1])

    assert facts.issuers == (admins[2].id, admins[1].id, admins[0].id)


def test_a_guest_admits_nobody() -> None:
    """Neither does a client."""
    mesh = Mesh()

    for rights in (GUEST, CLIENT_ONLY):
        with pytest.raises(CertificateError):
            mesh.member(GUEST, by=mesh.member(rights))


def test_nobody_gives_what_it_lacks() -> None:
    """An admin without the right to lend memory cannot give it."""
    mesh = Mesh()
    admin = mesh.member(Rights.INFER | Rights.ADMIN)

    with pytest.raises(CertificateError, match="rights that its issuer lacks"):
        mesh.member(OWN_MACHINE, by=admin)


@pytest.mark.parametrize("off_s", [-CERTIFICATE_LEEWAY_S - 1, CERTIFICATE_LIFE_S + CERTIFICATE_LEEWAY_S + 1])
def test_outside_its_time_a_certificate_is_none(off_s: float) -> None:
    """Neither before nor after."""
    mesh = Mesh()
    node = mesh.member()

    with pytest.raises(CertificateError) as caught:
        read_certificate(node.certificate, mesh.id, NOW_UNIX_S + off_s)

    assert caught.value.code is WireCode.EXPIRED


@pytest.mark.parametrize("off_s", [-DAY_S, CERTIFICATE_LIFE_S + DAY_S])
def test_a_clock_that_is_a_day_wrong_does_no_harm(off_s: float) -> None:
    """Failure F15."""
    mesh = Mesh()
    node = mesh.member()

    assert read_certificate(node.certificate, mesh.id, NOW_UNIX_S + off_s).node == node.id


def test_a_certificate_never_outlives_what_its_issuer_may_issue() -> None:
    """Eleven months after the founder was last seen, an admin can still renew, for the month that is left."""
    mesh = Mesh()
    admin = mesh.member(OWN_MACHINE)
    late_s = NOW_UNIX_S + DELEGATION_LIFE_S - 10 * DAY_S

    guest = mesh.member(GUEST, by=admin, at=late_s)
    with pytest.raises(CertificateError, match="time to issue is over"):
        mesh.member(GUEST, by=admin, at=NOW_UNIX_S + DELEGATION_LIFE_S)

    facts = read_certificate(guest.certificate, mesh.id, late_s)
    assert facts.not_after_unix_s == NOW_UNIX_S + DELEGATION_LIFE_S


FORGERIES: dict[str, Callable[[Mesh, Node, Identity], bytes]] = {
    "signed by nobody": lambda mesh, admin, eve: forged(eve, b"", mesh=mesh.id),
    "by another key with an admin's certificate": lambda mesh, admin, eve: forged(
        eve, admin.certificate, mesh=mesh.id
    ),
    "by a guest": lambda mesh, admin, eve: forged(
        (guest := mesh.member(GUEST, by=admin)).identity, guest.certificate, mesh=mesh.id
    ),
    "more rights than its admin": lambda mesh, admin, eve: forged(
        (lesser := mesh.member(Rights.INFER | Rights.ADMIN)).identity, lesser.certificate, mesh=mesh.id, rights=15
    ),
    "valid for longer than its admin may issue": lambda mesh, admin, eve: forged(
        admin.identity, admin.certificate, mesh=mesh.id, not_after=int(NOW_UNIX_S + DELEGATION_LIFE_S) + 1
    ),
    "delegated for longer than its admin may issue": lambda mesh, admin, eve: forged(
        admin.identity, admin.certificate, mesh=mesh.id, rights=9, delegated_until=int(NOW_UNIX_S) * 2
    ),
    "older than its admin": lambda mesh, admin, eve: forged(
        admin.identity, admin.certificate, mesh=mesh.id, not_before=int(NOW_UNIX_S - 3 * DAY_S)
    ),
    "of another mesh": lambda mesh, admin, eve: forged(mesh.root, b"", mesh=Mesh().id),
    "signed as something else": lambda mesh, admin, eve: forged(
        mesh.root, b"", SignedAs.REVOCATION, mesh=mesh.id
    ),
}  # fmt: skip


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forged_certificate_is_none(forge: Callable[[Mesh, Node, Identity], bytes]) -> None:
    """Whatever a peer signs, nobody becomes a member who was not admitted."""
    mesh = Mesh()

    with pytest.raises(CertificateError) as caught:
        read_certificate(forge(mesh, mesh.member(OWN_MACHINE), Identity.generate()), mesh.id, NOW_UNIX_S)

    assert caught.value.code is WireCode.UNAUTHORIZED


def test_every_forgery_has_its_own_reason() -> None:
    """The local log says exactly what was wrong."""
    mesh, eve = Mesh(), Identity.generate()
    admin = mesh.member(OWN_MACHINE)

    reasons = []
    for forge in FORGERIES.values():
        with pytest.raises(CertificateError) as caught:
            read_certificate(forge(mesh, admin, eve), mesh.id, NOW_UNIX_S)
        reasons.append(caught.value.problem)

    assert len(set(reasons)) >= len(reasons) - 1, reasons


def test_rights_raised_after_signing_break_the_signature() -> None:
    """Nobody edits a certificate."""
    mesh = Mesh()
    guest = mesh.member(GUEST)
    issued = form.read_issued(guest.certificate)
    body = form.write(replace(form.read_certificate_body(issued.body), rights=15))

    with pytest.raises(CertificateError, match="signature is wrong"):
        read_certificate(form.write(replace(issued, body=body)), mesh.id, NOW_UNIX_S)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2}, {"node": bytes(31)}, {"mesh": bytes(33)}, {"name": "<b>"}, {"rights": -1}, {"serial": 2**63},
        {"not_after": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_signed_body_still_has_to_have_the_form(changes: dict[str, object]) -> None:
    """An admin's mistake is nobody else's problem."""
    mesh = Mesh()
    said = plain(form.read_certificate_body(form.read_issued(mesh.member().certificate).body))
    body = pack({**said, **changes})
    signature = mesh.root.sign(SignedAs.CERTIFICATE.value + body)

    with pytest.raises(WireError) as caught:
        read_certificate(
            form.write(form.Issued(body=body, issuer=mesh.root.public, signature=signature)), mesh.id, NOW_UNIX_S
        )

    assert caught.value.code is WireCode.MALFORMED


def test_a_right_of_a_newer_program_is_left_out() -> None:
    """It neither helps nor harms."""
    mesh = Mesh()

    facts = read_certificate(forged(mesh.root, b"", mesh=mesh.id, rights=0x41), mesh.id, NOW_UNIX_S)

    assert facts.rights == Rights.INFER


def test_the_better_delegation_is_the_shorter_chain_with_time_left() -> None:
    """Admins that renew each other must not grow the chain until nobody takes it."""
    mesh = Mesh()
    admin, other = mesh.member(OWN_MACHINE), mesh.member(OWN_MACHINE)
    renewed = issue(other.issuer, grant(admin, OWN_MACHINE), NOW_UNIX_S + 20 * DAY_S)
    from_root = issue(mesh.issuer, grant(admin, OWN_MACHINE), NOW_UNIX_S + 5 * DAY_S)
    guest = issue(mesh.issuer, grant(admin, GUEST), NOW_UNIX_S)

    assert better_delegation([renewed, admin.certificate, guest], mesh.id, NOW_UNIX_S) == admin.certificate
    assert better_delegation([admin.certificate, from_root], mesh.id, NOW_UNIX_S) == from_root
    late_s = NOW_UNIX_S + DELEGATION_LIFE_S - 10 * DAY_S
    fresh = issue(mesh.member(OWN_MACHINE, at=late_s).issuer, grant(admin, OWN_MACHINE), late_s)
    assert better_delegation([admin.certificate, fresh], mesh.id, late_s) == fresh
    assert better_delegation([guest], mesh.id, NOW_UNIX_S) is None


# -- records -------------------------------------------------------------------------------------------


def test_a_record_is_read_by_every_member() -> None:
    """What a node says arrives as it was said, whoever carries it."""
    mesh = Mesh()
    node = mesh.member(OWN_MACHINE, by=mesh.member(OWN_MACHINE))

    assert open_sealed(seal(node.identity, node.certificate, node.says()), mesh.id, NOW_UNIX_S) == node.says()


def test_a_record_may_claim_fewer_rights_than_its_certificate_gives_and_no_more() -> None:
    """A node can refuse to lend, and is a member all the same."""
    mesh = Mesh()
    careful, greedy = mesh.member(OWN_MACHINE), mesh.member(GUEST)
    fewer = careful.says(rights=OWN_MACHINE & ~Rights.RPC)

    assert open_sealed(seal(careful.identity, careful.certificate, fewer), mesh.id, NOW_UNIX_S) == fewer
    with pytest.raises(CertificateError, match="does not give"):
        open_sealed(seal(greedy.identity, greedy.certificate, greedy.says(rights=OWN_MACHINE)), mesh.id, NOW_UNIX_S)


def test_loopback_addresses_in_records_are_asked_for() -> None:
    """They are left out otherwise."""
    mesh = Mesh()
    node = mesh.member()
    record = seal(node.identity, node.certificate, node.says(addresses=(Address("127.0.0.1", 1),)))

    assert open_sealed(record, mesh.id, NOW_UNIX_S).addresses == ()
    assert open_sealed(record, mesh.id, NOW_UNIX_S, allow_loopback=True).addresses == (Address("127.0.0.1", 1),)


def changed(node: Node, **changes: object) -> bytes:
    """Return a node's record with parts exchanged after signing."""
    sealed = form.read_sealed(seal(node.identity, node.certificate, node.says()))
    return form.write(replace(sealed, **changes))


RECORDS: dict[str, Callable[[Mesh, Node, Node], bytes]] = {
    "signed by another key": lambda mesh, node, eve: changed(node, public=eve.identity.public),
    "with another's certificate": lambda mesh, node, eve: seal(eve.identity, node.certificate, node.says()),
    "speaks of another node": lambda mesh, node, eve: seal(eve.identity, eve.certificate, node.says()),
    "signature of zeros": lambda mesh, node, eve: changed(node, signature=bytes(64)),
    "body exchanged": lambda mesh, node, eve: changed(node, body=b"\x80"),
    "more rights than certified": lambda mesh, node, eve: seal(
        eve.identity, eve.certificate, eve.says(rights=OWN_MACHINE)
    ),
    "from another mesh": lambda mesh, node, eve: seal(
        (other := Mesh().member()).identity, other.certificate, other.says()
    ),
    "certificate forged": lambda mesh, node, eve: seal(
        eve.identity, forged(eve.identity, b"", mesh=mesh.id, node=id_bytes(eve.id)), eve.says()
    ),
}


@pytest.mark.parametrize("forge", RECORDS.values(), ids=RECORDS.keys())
def test_a_forged_record_is_refused(forge: Callable[[Mesh, Node, Node], bytes]) -> None:
    """Nobody speaks for another node (P1)."""
    mesh = Mesh()

    with pytest.raises(CertificateError) as caught:
        open_sealed(forge(mesh, mesh.member(OWN_MACHINE), mesh.member(GUEST)), mesh.id, NOW_UNIX_S)

    assert caught.value.code is WireCode.UNAUTHORIZED


def test_a_record_of_an_expelled_node_is_refused_whoever_carries_it() -> None:
    """As is one of a node that it admitted: an expelled admin could make as many as it likes."""
    mesh = Mesh()
    admin = mesh.member(OWN_MACHINE)
    node = mesh.member(OWN_MACHINE, by=admin)
    record = seal(node.identity, node.certificate, node.says())

    for revoked in ({node.id}, {admin.id}):
        with pytest.raises(CertificateError, match="expelled"):
            open_sealed(record, mesh.id, NOW_UNIX_S, revoked=revoked)

    assert open_sealed(record, mesh.id, NOW_UNIX_S, revoked={mesh.member().id}).node == node.id


def test_a_record_of_an_expired_member_is_told_apart() -> None:
    """Its carrier is not at fault."""
    mesh = Mesh()
    node = mesh.member()

    with pytest.raises(WireError) as caught:
        open_sealed(seal(node.identity, node.certificate, node.says()), mesh.id, NOW_UNIX_S + 40 * DAY_S)

    assert caught.value.code is WireCode.EXPIRED


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", pack({"body": b"", "public": b"", "signature": bytes(64), "certificate": b""}), bytes(70_000)],
    ids=["nothing", "empty map", "short key", "too long"],
)
def test_bytes_that_are_no_record_are_our_error(data: bytes) -> None:
    """As everywhere."""
    with pytest.raises(WireError):
        open_sealed(data, Mesh().id, NOW_UNIX_S)


# -- revocations ---------------------------------------------------------------------------------------


def test_root_and_admins_expel() -> None:
    """Every member can check it, and pass it on as it is."""
    mesh = Mesh()
    admin, guest = mesh.member(OWN_MACHINE), mesh.member(GUEST)

    by_root = open_revocation(revoke(mesh.issuer, guest.id, "sold", NOW_UNIX_S), mesh.id)
    by_admin = open_revocation(data := revoke(admin.issuer, guest.id, "so\nld", NOW_UNIX_S), mesh.id)

    assert (by_root.node, by_root.by, by_root.reason) == (guest.id, None, "sold")
    assert (by_admin.node, by_admin.by, by_admin.reason, by_admin.sealed) == (guest.id, admin.id, "so?ld", data)
    assert by_admin.until_unix_s > NOW_UNIX_S + DELEGATION_LIFE_S


def test_a_guest_expels_nobody() -> None:
    """Nor does anybody from another mesh, nor an admin whose time is over."""
    mesh = Mesh()
    guest, admin = mesh.member(GUEST), mesh.member(OWN_MACHINE)

    with pytest.raises(CertificateError):
        revoke(guest.issuer, admin.id, "", NOW_UNIX_S)
    with pytest.raises(CertificateError):
        open_revocation(revoke(Mesh().issuer, admin.id, "", NOW_UNIX_S), mesh.id)
    with pytest.raises(CertificateError, match="time was over"):
        revoke(admin.issuer, guest.id, "", NOW_UNIX_S + DELEGATION_LIFE_S + 1)


def test_a_revocation_of_another_mesh_is_none() -> None:
    """Even when the same key is the root of both in somebody's mind."""
    mesh = Mesh()
    body = form.write(form.RevocationBody(mesh=bytes(32), node=bytes(32), at=0, until=1))
    signature = mesh.root.sign(SignedAs.REVOCATION.value + body)
    data = form.write(form.Issued(body=body, issuer=mesh.root.public, signature=signature))

    with pytest.raises(CertificateError, match="another mesh"):
        open_revocation(data, mesh.id)
