"""Rights: their names and bundles."""

import pytest

from meshllm.core.rights import CLIENT_ONLY, GUEST, OWN_MACHINE, Rights, parse_rights, rights_meaning, rights_names


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


def test_rights_are_said_in_a_sentence() -> None:
    """Who hands a token on has to know what it opens."""
    assert rights_meaning(CLIENT_ONLY) == "lets a machine send requests"
    assert rights_meaning(GUEST) == "lets a machine send requests and serve models to others"
    assert rights_meaning(OWN_MACHINE).endswith("admit and manage other machines; for your own machines only")
    assert rights_meaning(Rights.NONE) == "lets a machine do nothing"
