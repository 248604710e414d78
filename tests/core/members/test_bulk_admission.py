"""Who may use the bulk plane, and for what."""

import pytest

from meshllm.core.credentials import CertificateFacts, Claim
from meshllm.core.effects import Lend
from meshllm.core.ids import MeshId, ModelId, NodeId
from meshllm.core.members.bulk_admission import BULK_FEATURE, BulkUse, bulk_rights, join_refusal, refusal_of
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


def test_only_the_host_of_the_very_epoch_reaches_a_lent_server_and_only_once_it_listens() -> None:
    """Nobody with a stale epoch, nobody else, and nobody before or after."""
    lent = Lend(model=ModelId("m"), digest="", epoch=3, host=NODE, first_layer=0, layers=1, memory_bytes=1, threads=1)

    assert join_refusal(lent, NODE, 3, is_ready=True) == ""
    assert join_refusal(lent, NODE, 3, is_ready=False) == "not_lent"
    assert join_refusal(lent, NODE, 2, is_ready=True) == "stale_epoch"
    assert join_refusal(lent, ADMIN, 3, is_ready=True) == "wrong_host"
    assert join_refusal(None, NODE, 3, is_ready=True) == "not_lent"
