"""Who renews a certificate."""

from meshllm.core.ids import NodeId
from meshllm.core.members.renewal import renewer
from meshllm.core.rights import GUEST, OWN_MACHINE
from tests.core.builders import a_member

ME = NodeId("me".ljust(52, "2"))


def test_a_connected_admin_is_asked_before_one_that_has_to_be_looked_for() -> None:
    """It answers at once."""
    members = [a_member("a", rights=OWN_MACHINE), a_member("b", rights=OWN_MACHINE, connected=True)]

    found = renewer(members, ME)

    assert found is not None
    assert found.announcement.name == "b"


def test_nobody_is_asked_who_could_not_sign() -> None:
    """Neither guests nor the dead, nor this node itself."""
    members = [
        a_member("a", rights=GUEST, connected=True), a_member("b", rights=OWN_MACHINE, state="dead"),
        a_member("c", rights=OWN_MACHINE, state="left"), a_member("me", rights=OWN_MACHINE, connected=True),
    ]  # fmt: skip

    assert renewer(members, ME) is None
