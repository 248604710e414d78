"""A front door that is told the least there is."""

from dataclasses import dataclass, replace

import pytest

from meshllm.core import limits
from meshllm.proxy.door_config import FrontDoorConfig
from meshllm.proxy.http1 import parse_head
from meshllm.proxy.intake import take_in
from tests.proxy.builders import NODE

CONFIG = FrontDoorConfig(host="127.0.0.1", port=0, node=NODE)
ENDS = (("127.0.0.1", 5), ("127.0.0.1", 6))


@dataclass(frozen=True)
class Client:
    """Somebody at an address."""

    address: str = "127.0.0.1"
    ends: tuple[object, object] = ENDS


def test_what_nobody_says_is_as_strict_as_the_written_limits() -> None:
    """No key means that rules about Host and Origin are all there is, and they let nobody in besides."""
    config = CONFIG

    assert (config.api_key, config.client_keys, config.allowed_hosts, config.allowed_origins) == ("", (), (), ())
    assert config.connections_max == limits.CONNECTIONS_TOTAL
    assert config.header_timeout_s == limits.HTTP_HEADER_TIMEOUT_S


@pytest.mark.rows("SEC-2")
@pytest.mark.parametrize(
    ("config", "line", "address", "right"),
    [
        ({}, "X-A: b", "127.0.0.1", "owner"),
        ({"is_owner": lambda *_: False}, "X-A: b", "127.0.0.1", "stranger"),
        ({}, "X-A: b", "192.0.2.7", "stranger"),
        ({"api_key": "k"}, "Authorization: Bearer k", "192.0.2.7", "api_key"),
        ({"admin_key": "a"}, "X-API-Key: a", "192.0.2.7", "admin_key"),
        ({"admin_key": "a"}, "X-API-Key: b", "127.0.0.1", "unkeyed"),
        ({"admin_key": "a", "api_key": "k"}, "X-API-Key: k", "127.0.0.1", "unkeyed"),
        ({"admin_key": "a", "is_open_locally": True}, "X-A: b", "127.0.0.1", "local"),
    ],
)
def test_a_caller_comes_by_its_key_or_by_its_place(
    config: dict[str, object], line: str, address: str, right: str
) -> None:
    """Whose a connection is, is asked by its two ends."""
    asked: list[object] = []

    def is_owner(*ends: object) -> bool:
        asked.append(ends)
        return True

    door = replace(CONFIG, **{"is_owner": is_owner, **config})  # type: ignore[arg-type]
    head = parse_head(f"POST /mesh/drop HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n".encode())

    found = door.right(take_in(head, door.access, "127.0.0.1"), Client(address=address))

    assert str(found) == right
    assert asked == ([ENDS] if right == "owner" else [])
