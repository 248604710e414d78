"""Facts of a certificate."""

import pytest

from meshllm.core.credentials import CertificateFacts
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.rights import GUEST

FACTS = CertificateFacts(
    mesh=MeshId("m"), node=NodeId("n"), rights=GUEST, name="x", serial=1, not_before_unix_s=100.0,
    not_after_unix_s=400.0, issuers=(NodeId("near"), NodeId("far")),
)  # fmt: skip


def test_the_issuer_is_the_nearest_one() -> None:
    """None stands for the root."""
    assert FACTS.issuer == "near"


def test_renewal_is_due_after_a_share_of_the_life() -> None:
    """Whatever the life is."""
    assert FACTS.renewal_unix_s(2 / 3) == pytest.approx(300.0)
