"""A front door that is told the least there is."""

from meshllm.core import limits
from meshllm.proxy.door_config import FrontDoorConfig
from tests.proxy.builders import NODE


def test_what_nobody_says_is_as_strict_as_the_written_limits() -> None:
    """No key means that rules about Host and Origin are all there is, and they let nobody in besides."""
    config = FrontDoorConfig(host="127.0.0.1", port=0, node=NODE)

    assert (config.api_key, config.client_keys, config.allowed_hosts, config.allowed_origins) == ("", (), (), ())
    assert config.connections_max == limits.CONNECTIONS_TOTAL
    assert config.header_timeout_s == limits.HTTP_HEADER_TIMEOUT_S
