"""By what right somebody changes a node over HTTP: a key, being its user, being on its machine; or by none.

Owns the words and the one rule. Decides whether a caller may administer. Doesn't know connections nor keys: it is told
which one was shown, and whom the system says the other end to be (decision 0059).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class CallerRight(StrEnum):
    """By what right a request that changes something came in, or what it lacks."""

    ADMIN_KEY = "admin_key"
    API_KEY = "api_key"
    """The node's own key, where it has none for administration alone."""
    OWNER = "owner"
    """From this machine, by the user who runs the node, or by root."""
    LOCAL = "local"
    """From this machine: so it was told to let in, or the system does not say whose a connection is."""
    UNKEYED = "unkeyed"
    """There is a key for this, and it was not shown."""
    STRANGER = "stranger"
    """There is no key for this, and it is not the node's user on this machine."""

    @property
    def may_administer(self) -> bool:
        """Tell whether it is enough to change the node."""
        return self not in {CallerRight.UNKEYED, CallerRight.STRANGER}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRules:
    """What a node wants of those who change it."""

    has_admin_key: bool = False
    has_api_key: bool = False
    is_open_locally: bool = False
    """Whoever is on this machine may."""


def right_of(
    rules: AdminRules, *, shows_key: bool, is_local: bool, is_owner: Callable[[], bool | None]
) -> CallerRight:  # fmt: skip
    """Return by what right a request comes. `shows_key`: the one that administers; `is_owner` says None for unknown."""
    has_key = rules.has_admin_key or rules.has_api_key
    if shows_key and has_key:
        return CallerRight.ADMIN_KEY if rules.has_admin_key else CallerRight.API_KEY
    if is_local and rules.is_open_locally:
        return CallerRight.LOCAL
    if has_key:
        return CallerRight.UNKEYED
    if not is_local:
        return CallerRight.STRANGER
    found = is_owner()
    if found is None:
        return CallerRight.LOCAL
    return CallerRight.OWNER if found else CallerRight.STRANGER
