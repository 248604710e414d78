"""Addresses that people type, and which are worth a try."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.addresses import PeerPlace, is_dialable, parse_address, parse_peer, sorted_addresses
from meshllm.core.announcement import Address
from meshllm.core.ids import NodeId

NODE = NodeId("abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (f"192.0.2.7:4000#{NODE}", "192.0.2.7", 4000),
        (f" [2001:db8::7]:4000#{NODE.upper()} ", "2001:db8::7", 4000),
        (f"Desk.Example.:4000#{NODE}", "desk.example", 4000),
        (f"my_nas:1#{NODE}", "my_nas", 1),
    ],
)
def test_peer_has_a_place_and_an_identity(text: str, host: str, port: int) -> None:
    """Nobody is dialled without an expected identity."""
    peer = parse_peer(text)

    assert peer == PeerPlace(NODE, host, port)
    assert parse_peer(str(peer)) == peer


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("192.0.2.7:4000", "has to stand behind a '#'"),
        ("192.0.2.7:4000#", "has to stand behind a '#'"),
        ("192.0.2.7:4000#abc", "is no node id"),
        (f"192.0.2.7#{NODE}", "port is missing"),
        (f"192.0.2.7:70000#{NODE}", "from 1 to 65535"),
        (f"192.0.2.7:0#{NODE}", "from 1 to 65535"),
        (f"192.0.2.7:x#{NODE}", "from 1 to 65535"),
        (f"192.0.2.7:٤#{NODE}", "from 1 to 65535"),
        (f"192.0.2.999:1#{NODE}", "is no host"),
        (f":4000#{NODE}", "is no host"),
        (f"a b:4000#{NODE}", "is no host"),
        (f"-x:4000#{NODE}", "is no host"),
        (f"2001:db8::7:4000#{NODE}", "needs brackets"),
        (f"[2001:db8::7#{NODE}", "expected [IPv6 address]:port"),
        (f"{'a' * 300}:1#{NODE}", "is no host"),
        ("", "expected host:port#nodeid"),
    ],
)
def test_wrong_peer_is_told_what_is_wrong(text: str, complaint: str) -> None:
    """The sentence is all that somebody sees who mistyped."""
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        parse_peer(text)

    assert len(str(caught.value)) < 200


def test_address_to_advertise_may_leave_the_port_to_the_node() -> None:
    """Most people forward the port that the node has."""
    assert parse_address("198.51.100.7", 4000) == Address("198.51.100.7", 4000)
    assert parse_address("198.51.100.7:5000", 4000) == Address("198.51.100.7", 5000)
    assert parse_address("[2001:DB8:0::7]", 4000) == Address("2001:db8::7", 4000)
    with pytest.raises(ValueError, match="not the name 'desk'"):
        parse_address("desk:4000")


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_a_complaint(text: str) -> None:
    """Never another error."""
    for parse in (parse_peer, parse_address):
        with contextlib.suppress(ValueError):
            assert parse(text).port > 0


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.251", "255.255.255.255", "169.254.1.1", "fe80::1",
     "::ffff:127.0.0.1", "240.0.0.1", "desk", ""],
)  # fmt: skip
def test_address_that_nobody_else_can_have_is_never_dialled(host: str) -> None:
    """Whoever announces these wants a node to talk to itself, or to everybody."""
    assert not is_dialable(Address(host, 4000))


def test_other_addresses_are_dialable_with_a_real_port() -> None:
    """Private, shared and public networks."""
    for host in ("192.168.1.7", "10.0.0.1", "100.64.0.1", "8.8.8.8", "2001:4860::1", "fd00::2", "::ffff:10.0.0.1"):
        assert is_dialable(Address(host, 4000))
    assert not is_dialable(Address("10.0.0.1", 0))
    assert not is_dialable(Address("10.0.0.1", 65_536))


def test_near_addresses_are_tried_first() -> None:
    """The local network is faster and free; within a kind the order is the speaker's."""
    public, private, shared = Address("8.8.8.8", 1), Address("192.168.1.7", 1), Address("100.64.0.1", 1)
    other = Address("10.0.0.1", 1)

    assert sorted_addresses([public, shared, private, other, private]) == (private, other, shared, public)
