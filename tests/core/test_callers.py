"""By what right somebody changes a node."""

import pytest

from meshllm.core.callers import AdminRules, CallerRight, right_of

OPEN = AdminRules()
KEYED = AdminRules(has_api_key=True)
ADMIN = AdminRules(has_admin_key=True, has_api_key=True)
ADMIN_ALONE = AdminRules(has_admin_key=True)
LOCALLY = AdminRules(has_admin_key=True, is_open_locally=True)


@pytest.mark.rows("SEC-1", "SEC-2")
@pytest.mark.parametrize(
    ("rules", "shows_key", "is_local", "is_owner", "right"),
    [
        (OPEN, False, True, True, "owner"),
        (OPEN, False, True, False, "stranger"),
        (OPEN, False, True, None, "local"),
        (OPEN, False, False, True, "stranger"),
        (OPEN, True, True, False, "stranger"),
        (KEYED, True, False, False, "api_key"),
        (KEYED, False, True, True, "unkeyed"),
        (ADMIN, True, False, False, "admin_key"),
        (ADMIN, False, True, True, "unkeyed"),
        (ADMIN_ALONE, False, True, True, "unkeyed"),
        (ADMIN_ALONE, True, True, False, "admin_key"),
        (LOCALLY, False, True, False, "local"),
        (LOCALLY, False, False, True, "unkeyed"),
        (LOCALLY, True, False, False, "admin_key"),
        (AdminRules(is_open_locally=True), False, True, False, "local"),
        (AdminRules(is_open_locally=True), False, False, True, "stranger"),
    ],
)
def test_a_key_counts_before_a_place_and_a_place_only_for_its_user(
    rules: AdminRules, shows_key: bool, is_local: bool, is_owner: bool | None, right: str
) -> None:
    """Being on the machine is enough for nobody but the node's user, unless the node was told otherwise."""
    assert right_of(rules, shows_key=shows_key, is_local=is_local, is_owner=lambda: is_owner) == right


def test_only_those_without_any_right_may_not_administer() -> None:
    """Two words of six."""
    assert [right for right in CallerRight if not right.may_administer] == [CallerRight.UNKEYED, CallerRight.STRANGER]
