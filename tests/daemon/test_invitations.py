"""Tokens and revocations made here are those that the core and the others take."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from meshllm.api.deps import MeshRefusalError
from meshllm.core.announcement import Address
from meshllm.core.events import Event, NodeRevoked, TokenMade, TokenRevoked, TokensRotated
from meshllm.core.ids import NodeId, TokenId
from meshllm.core.rights import GUEST, OWN_MACHINE, Rights
from meshllm.daemon.invitations import Invitations, Standing, issuer_of
from meshllm.daemon.joining import Newcomer, found
from meshllm.transport.certificates import Grant, issue
from meshllm.transport.identity import Identity
from meshllm.wire.token import decode_token

NOW = 1_800_000_000.0
STRANGER = Identity.generate().node


def a_founder() -> Standing:
    """Return the first node of a mesh."""
    identity = Identity.generate()
    return Standing(
        identity=identity, membership=found(Newcomer(identity=identity, name="desk"), NOW), rights=OWN_MACHINE,
        addresses=(Address("192.0.2.7", 4000),),
    )  # fmt: skip


def a_member(founder: Standing, rights: Rights) -> Standing:
    """Return a node that the founder let in."""
    identity = Identity.generate()
    grant = Grant(node=identity.node, rights=rights, name="shed", serial=1)
    certificate = issue(issuer_of(founder), grant, NOW)
    membership = replace(founder.membership, certificate=certificate, root_key=b"")
    return Standing(identity=identity, membership=membership, rights=rights, addresses=())


class Core:
    """Keeps events, and the tokens in them."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def records(self):
        """Return the tokens that were made."""
        return [event.record for event in self.events if isinstance(event, TokenMade)]


def inviting(standing: Standing | None) -> tuple[Invitations, Core]:
    """Return what is tested, and what hears of it."""
    core = Core()
    return Invitations(lambda: standing, core.records, core.events.append, lambda: NOW), core


def test_token_is_what_was_asked_for_and_the_core_knows_its_hash() -> None:
    """The secret is in the string alone."""
    founder = a_founder()
    invitations, core = inviting(founder)

    token = decode_token(invitations.make_token(GUEST, 3600.0, 2))

    (record,) = core.records()
    assert (token.mesh, token.issuer, token.rights) == (founder.membership.mesh, founder.identity.node, GUEST)
    assert (token.addresses, token.expires_unix_s) == (founder.addresses, int(NOW) + 3600)
    assert (record.token_id, record.secret_hash) == (token.token_id, hashlib.sha256(token.secret).digest())
    assert (record.uses, record.made_by) == (2, founder.identity.node)
    assert [(facts.id, facts.uses_left) for facts in invitations.tokens()] == [(token.token_id, 2)]


def test_tokens_that_admit_nobody_are_not_listed() -> None:
    """Used up or expired."""
    invitations, core = inviting(a_founder())
    invitations.make_token(GUEST, 3600.0, None)
    (record,) = core.records()

    for dead in (replace(record, is_revoked=True), replace(record, expires_unix_s=NOW - 1)):
        core.events = [TokenMade(record=dead, now_unix_s=NOW)]
        assert invitations.tokens() == ()


def test_tokens_are_taken_back() -> None:
    """One that is known, or all."""
    invitations, core = inviting(a_founder())
    token = decode_token(invitations.make_token(GUEST, 3600.0, None)).token_id

    invitations.revoke_token(token)
    assert invitations.rotate_tokens() == 1
    assert core.events[1:] == [TokenRevoked(token=token, now_unix_s=NOW), TokensRotated(now_unix_s=NOW)]
    with pytest.raises(MeshRefusalError, match="there is no token"):
        invitations.revoke_token(TokenId("0" * 16))


@pytest.mark.parametrize("is_founder", [True, False])
def test_node_is_expelled_by_founder_or_admin(is_founder: bool) -> None:
    """The signature says by whom."""
    founder = a_founder()
    admin = a_member(founder, OWN_MACHINE)
    invitations, core = inviting(founder if is_founder else admin)

    invitations.revoke_node(STRANGER, "sold")

    (event,) = core.events
    assert isinstance(event, NodeRevoked)
    assert (event.revocation.node, event.revocation.reason) == (STRANGER, "sold")
    assert event.revocation.by == (None if is_founder else admin.identity.node)


ORDERS: list[Callable[[Invitations], object]] = [
    lambda invitations: invitations.make_token(GUEST, 60.0, None),
    lambda invitations: invitations.revoke_token(TokenId("0" * 16)),
    lambda invitations: invitations.rotate_tokens(),
    lambda invitations: invitations.revoke_node(STRANGER, ""),
]


@pytest.mark.parametrize("order", ORDERS)
def test_guest_and_newcomer_manage_nobody(order: Callable[[Invitations], object]) -> None:
    """And nothing happens."""
    for standing, code in ((None, "no_mesh"), (a_member(a_founder(), GUEST), "not_permitted")):
        invitations, core = inviting(standing)

        with pytest.raises(MeshRefusalError) as caught:
            order(invitations)

        assert caught.value.code == code
        assert core.events == []


def test_nobody_gives_what_it_lacks_or_expels_itself() -> None:
    """An admin without compute rights cannot hand them on."""
    member = a_member(a_founder(), Rights.INFER | Rights.ADMIN)
    invitations, core = inviting(member)

    with pytest.raises(MeshRefusalError, match="lacks: host, rpc"):
        invitations.make_token(OWN_MACHINE, 60.0, None)
    with pytest.raises(MeshRefusalError, match="expel itself"):
        invitations.revoke_node(member.identity.node, "")
    with pytest.raises(MeshRefusalError, match="cannot sign"):
        invitations.revoke_node(NodeId("0" * 52), "")
    assert core.events == []
