"""Whom a node knows at first, and what it says of its own addresses."""

import logging
from collections.abc import Sequence

import pytest

from meshllm.core.addresses import PeerPlace
from meshllm.core.announcement import Address
from meshllm.core.ids import NodeId
from meshllm.discovery.bootstrap import Contact, first_contacts, look_up, named_contacts, own_addresses

ME, PEER, OTHER = NodeId("m" * 52), NodeId("p" * 52), NodeId("o" * 52)
ONE, TWO = Address("192.0.2.1", 1), Address("192.0.2.2", 2)


def test_tokens_and_roster_become_contacts_but_never_me() -> None:
    """One's own token may be among those that somebody copied to all machines."""
    tokens = [(PEER, (ONE,)), (PEER, (TWO, ONE)), (ME, (ONE,)), (OTHER, ())]

    assert first_contacts(ME, tokens, [(PEER, (TWO,))]) == (
        Contact(node=PEER, addresses=(ONE, TWO), source="token"),
        Contact(node=PEER, addresses=(TWO,), source="roster"),
    )


async def test_named_peer_is_looked_up(caplog: pytest.LogCaptureFixture) -> None:
    """A name that nobody knows costs a line, not the start."""

    async def lookup(host: str, port: int) -> Sequence[Address]:
        if host == "gone":
            raise OSError(-2, "Name or service not known")
        return (Address("192.0.2.1" if host == "desk" else "192.0.2.2", port),)

    peers = [
        PeerPlace(PEER, "desk", 1),
        PeerPlace(PEER, "other", 2),
        PeerPlace(OTHER, "gone", 1),
        PeerPlace(ME, "x", 1),
    ]
    with caplog.at_level(logging.WARNING):
        contacts = await named_contacts(ME, peers, lookup)

    assert contacts == (Contact(node=PEER, addresses=(ONE, TWO), source="flag"),)
    assert "no address is known for gone: Name or service not known" in caplog.text


async def test_address_needs_no_name_service() -> None:
    """Works without any network."""
    assert await look_up("192.0.2.1", 5) == (Address("192.0.2.1", 5),)
    assert await look_up("2001:db8::7", 5) == (Address("2001:db8::7", 5),)


def test_own_addresses_are_near_ones_first_and_advertised_ones_always() -> None:
    """Who forwards a port knows better than the machine does."""
    interfaces = [*(f"10.0.0.{number}" for number in range(1, 12)), "127.0.0.1"]
    advertised = (Address("8.8.8.8", 9), Address("192.168.1.1", 9))
    observed = (Address("1.1.1.1", 7), Address("127.0.0.1", 7))

    addresses = own_addresses(interfaces, 4000, observed=observed, advertised=advertised)

    assert len(addresses) == 8
    assert addresses[:2] == (Address("192.168.1.1", 9), Address("10.0.0.1", 4000))
    assert addresses[-1] == Address("8.8.8.8", 9)


def test_observed_address_is_announced_when_there_is_room() -> None:
    """Behind a router the machine does not know its public address."""
    assert own_addresses(["10.0.0.1"], 4000, observed=[Address("1.1.1.1", 7), Address("10.0.0.1", 4000)]) == (
        Address("10.0.0.1", 4000),
        Address("1.1.1.1", 7),
    )


def test_node_that_is_bound_to_loopback_says_so() -> None:
    """Two nodes on one machine may use nothing else."""
    assert own_addresses(["127.0.0.1"], 4000) == (Address("127.0.0.1", 4000),)
