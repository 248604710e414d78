"""What a front door is told at its start.

Owns the shape and the defaults, which are the written limits, and what follows from it for requests: whom it lets in,
and by what right somebody changes the node, which the core decides. Doesn't know where the words come from; the daemon
reads them from the node's configuration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from meshllm.core import limits
from meshllm.core.callers import AdminRules, CallerRight, right_of
from meshllm.core.ids import NodeId
from meshllm.core.quotas.windows import Zone, utc
from meshllm.proxy import paths
from meshllm.proxy.access import AccessRules
from meshllm.proxy.intake import Intake
from meshllm.proxy.room import is_loopback


class Caller(Protocol):
    """Who sends a request."""

    @property
    def address(self) -> str:
        """Return the address of its end; empty for a Unix socket."""

    @property
    def ends(self) -> tuple[object, object]:
        """Return the socket names of the connection: its end, then ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontDoorConfig:
    """What a front door is told. Durations are seconds; the limits can be lowered in tests."""

    host: str
    port: int
    node: NodeId
    api_key: str = ""
    admin_key: str = ""
    is_open_locally: bool = False
    """Whoever is on this machine may change the node."""
    is_owner: Callable[[object, object], bool | None] = lambda _theirs, _ours: None
    """Tells by the two ends of a connection within this machine whether the node's user has made it; None: unknown."""
    client_keys: tuple[tuple[str, str], ...] = ()
    """Further keys, for models alone, and what their clients are called."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, without port, that Host may have besides localhost and our addresses."""
    allowed_origins: tuple[str, ...] = ()
    """Web origins whose pages may call this node: `https://chat.example`."""
    load_wait_s: float = limits.LOAD_WAIT_S
    comment_s: float = limits.KEEP_ALIVE_COMMENT_S
    header_timeout_s: float = limits.HTTP_HEADER_TIMEOUT_S
    body_timeout_s: float = limits.HTTP_BODY_TIMEOUT_S
    keep_alive_timeout_s: float = limits.HTTP_KEEP_ALIVE_TIMEOUT_S
    slow_client_timeout_s: float = limits.SLOW_CLIENT_TIMEOUT_S
    linger_s: float = limits.HTTP_LINGER_S
    quota_zone: Zone = utc
    """By whose clock hours and days begin for quotas."""
    connections_max: int = limits.CONNECTIONS_TOTAL
    connections_per_address_max: int = limits.CONNECTIONS_PER_ADDRESS

    @property
    def access(self) -> AccessRules:
        """Return whom it lets in."""
        return AccessRules(
            bound_host=self.host, api_key=self.api_key, admin_key=self.admin_key, is_open=paths.is_open,
            clients=self.client_keys, is_for_clients=paths.is_about_models,
            allowed_hosts=frozenset(host.lower() for host in self.allowed_hosts),
            allowed_origins=frozenset(origin.lower().rstrip("/") for origin in self.allowed_origins),
        )  # fmt: skip

    def right(self, intake: Intake, client: Caller) -> CallerRight:
        """Return by what right a client changes the node."""
        rules = AdminRules(
            has_admin_key=bool(self.admin_key), has_api_key=bool(self.api_key), is_open_locally=self.is_open_locally
        )  # fmt: skip
        return right_of(
            rules, shows_key=intake.shows_key, is_local=is_loopback(client.address),
            is_owner=lambda: self.is_owner(*client.ends),
        )  # fmt: skip
