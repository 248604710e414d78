"""Through which interfaces a node speaks to its local network."""

from meshllm.daemon.lan import meshes, multicast_hosts
from meshllm.inventory.addresses import InterfaceAddress


def an_address(host: str, *, is_virtual: bool = False) -> InterfaceAddress:
    """Return an address of this machine."""
    return InterfaceAddress(host=host, interface="x", is_virtual=is_virtual)


def test_bridges_of_containers_stay_silent() -> None:
    """Nobody else is behind them."""
    found = [an_address("10.0.0.7"), an_address("fd00::7"), an_address("172.17.0.1", is_virtual=True)]

    assert multicast_hosts("", found) == ["10.0.0.7"]
    assert multicast_hosts("10.0.0.9", found) == ["10.0.0.9"]
    assert multicast_hosts("fd00::7", found) == []


async def test_look_without_a_network_finds_nothing() -> None:
    """And ends in time."""
    assert await meshes([], 0.05) == ()
