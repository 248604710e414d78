"""Rights: their names and bundles."""

import pytest

from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE, Rights, parse_rights, rights_names


def test_names_and_rights_turn_into_each_other() -> None:
    """What is shown can be typed."""
    for rights in (Rights.NONE, CLIENT_ONLY, GUEST, OWN_MACHINE, Rights.RPC | Rights.ADMIN):
        assert parse_rights(rights_names(rights)) == rights


def test_names_come_in_a_fixed_order() -> None:
    """The same rights always read the same."""
    assert rights_names(OWN_MACHINE) == ("infer", "host", "rpc", "admin")


def test_a_right_that_does_not_exist_is_named() -> None:
    """Whoever mistypes a right learns which one."""
    with pytest.raises(ValueError, match=r"'root'.*infer, host, rpc, admin"):
        parse_rights(["infer", "root"])


def test_guests_neither_compute_for_others_nor_administer() -> None:
    """The bundles grow one into the next, and only one's own machines may do everything."""
    assert CLIENT_ONLY < GUEST < OWN_MACHINE
    assert not GUEST & (Rights.RPC | Rights.ADMIN)
