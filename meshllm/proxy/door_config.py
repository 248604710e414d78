"""What a front door is told at its start.

Owns the shape and the defaults, which are the written limits. Decides nothing. Doesn't know where the words come from;
the daemon reads them from the node's configuration.
"""

from dataclasses import dataclass

from meshllm.core import limits
from meshllm.core.ids import NodeId
from meshllm.core.quotas.windows import Zone, utc


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontDoorConfig:
    """What a front door is told. Durations are seconds; the limits can be lowered in tests."""

    host: str
    port: int
    node: NodeId
    api_key: str = ""
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
