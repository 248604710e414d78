"""Where this machine stands in networks."""

import socket
from types import SimpleNamespace
from typing import Any

from meshllm.inventory.addresses import interface_addresses


def a_machine(**interfaces: tuple[str, ...]) -> dict[str, Any]:
    """Return what psutil would say; an interface's name may not be an identifier, so `_` is `-`."""
    places = {
        name.replace("_", "-"): [
            SimpleNamespace(family=socket.AF_INET6 if ":" in host else socket.AF_INET, address=host) for host in hosts
        ]
        for name, hosts in interfaces.items()
    }
    return {"places": places, "links": {name: SimpleNamespace(isup=True) for name in places}}


def hosts(machine: dict[str, object]) -> list[str]:
    """Return the addresses in order."""
    return [found.host for found in interface_addresses(**machine)]


def test_wires_come_before_tunnels_and_bridges_last() -> None:
    """The address of a container bridge leads every other machine to itself."""
    machine = a_machine(
        docker0=("172.17.0.1",), br_1a2b=("172.18.0.1",), tailscale0=("100.64.0.5",), lo=("127.0.0.1", "::1"),
        wlan0=("192.168.1.7", "fe80::1%wlan0", "2001:db8::7"), eth0=("10.0.0.7",),
    )  # fmt: skip

    assert hosts(machine) == ["192.168.1.7", "10.0.0.7", "2001:db8::7", "100.64.0.5", "172.17.0.1", "172.18.0.1"]
    assert [found.interface for found in interface_addresses(**machine) if found.is_virtual] == ["docker0", "br-1a2b"]


def test_interface_that_is_down_and_odd_entries_are_skipped() -> None:
    """A cable that is not plugged in, a hardware address, an address that cannot be read."""
    machine = a_machine(eth0=("10.0.0.7", "nonsense", "169.254.3.4", "0.0.0.0"), eth1=("10.0.0.8",))
    machine["links"]["eth1"].isup = False
    machine["places"]["eth0"].append(SimpleNamespace(family=socket.AF_PACKET, address="02:fc:00:00:00:01"))
    machine["places"]["gone"] = machine["places"]["eth1"]

    assert hosts(machine) == ["10.0.0.7"]


def test_this_machine_has_no_loopback_address_to_offer() -> None:
    """The real thing."""
    assert all(not found.host.startswith("127.") and found.host != "::1" for found in interface_addresses())
