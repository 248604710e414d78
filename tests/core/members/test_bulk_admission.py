"""Who may use the bulk plane, and for what."""

import pytest

from meshllm.core.credentials import CertificateFacts, Claim
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.members.bulk_admission import BULK_FEATURE, BulkUse, bulk_rights, refusal_of
from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE, Rights

NODE, ADMIN = NodeId("n"), NodeId("a")


def a_claim(*, rights: Rights = GUEST, features: tuple[str, ...] = (BULK_FEATURE,), certified: bool = True) -> Claim:
    """Return what somebody says of itself and has proved."""
    facts = CertificateFacts(
        mesh=MeshId("m"), node=NODE, rights=rights, name="n", serial=1, not_before_unix_s=0.0, not_after_unix_s=9e9,
        issuers=(ADMIN,),
    )  # fmt: skip
    return Claim(
        node=NODE, public=b"", name="n", version=1, features=features, certificate=facts if certified else None
    )


def test_a_member_has_the_rights_of_its_certificate() -> None:
    """No more and no less."""
    assert bulk_rights(a_claim(rights=GUEST), ()) == GUEST


@pytest.mark.parametrize(
    ("claim", "revoked", "reason"),
    [
        (a_claim(certified=False), (), "no_certificate"),
        (a_claim(), (NODE,), "node_revoked"),
        (a_claim(), (ADMIN,), "issuer_revoked"),
        (a_claim(features=()), (), "another_plane"),
    ],
    ids=["nothing to show", "expelled", "issuer expelled", "signed for another plane"],
)
def test_nobody_else_gets_in(claim: Claim, revoked: tuple[NodeId, ...], reason: str) -> None:
    """Nobody joins on this plane either."""
    assert bulk_rights(claim, revoked) == reason


@pytest.mark.parametrize(
    ("use", "theirs", "mine", "reason"),
    [
        (BulkUse.FILE, GUEST, GUEST, ""),
        (BulkUse.FILE, CLIENT_ONLY, OWN_MACHINE, "no_right"),
        (BulkUse.FILE, OWN_MACHINE, CLIENT_ONLY, "not_served"),
        (BulkUse.RPC, GUEST, OWN_MACHINE, "no_right"),
        (BulkUse.RPC, OWN_MACHINE, GUEST, "not_served"),
        (BulkUse.RPC, OWN_MACHINE, OWN_MACHINE, ""),
        ("shell", OWN_MACHINE, OWN_MACHINE, "unknown_use"),
    ],
)
def test_each_use_has_its_right_on_both_sides(use: str, theirs: Rights, mine: Rights, reason: str) -> None:
    """Files are for nodes that host, tensors for those that lend compute."""
    assert refusal_of(use, theirs, mine) == reason
