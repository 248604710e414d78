"""What nodes say on the local network: members understand it, strangers learn little, nonsense is dropped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.announcement import Address
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.limits import LAN_ADDRESSES, LAN_RECORD_BYTES
from meshllm.discovery.advert import DAY_S, Advert, Heard, day_of, heard, mesh_tag, node_of, properties

MESH, OTHER_MESH = MeshId("a" * 52), MeshId("b" * 52)
NODE = NodeId("abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrsq")
NOON_S = 20_000 * DAY_S + DAY_S / 2
HOSTS = ("192.0.2.7", "2001:db8::7")


def an_advert(**changes: object) -> Advert:
    """Return what a node says."""
    given = {"mesh": MESH, "node": NODE, "port": 4000, "addresses": (Address("192.0.2.7", 4000),)} | changes
    return Advert(**given)


def on_the_wire(advert: Advert, instance: str = "one", at_s: float = NOON_S) -> dict[bytes, bytes | None]:
    """Return an advert's values as they arrive."""
    values = properties(advert, instance, day_of(at_s))
    return {key.encode(): value if isinstance(value, bytes) else value.encode() for key, value in values.items()}


def received(values: dict[bytes, bytes | None], hosts: tuple[str, ...] = HOSTS, port: int = 4000) -> Heard | None:
    """Hear a record."""
    return heard("one", port, hosts, values)


def test_member_learns_which_node_it_is_and_where() -> None:
    """Nobody is dialled without an expected identity, and a joiner knows the mesh from its token."""
    record = received(on_the_wire(an_advert()))

    assert record is not None
    assert node_of(record, MESH, NOON_S) == NODE
    assert record.addresses == (Address("192.0.2.7", 4000), Address("2001:db8::7", 4000))


def test_stranger_sees_neither_mesh_nor_node() -> None:
    """A notebook in a café must not be recognised from one day to the next."""
    today, again = on_the_wire(an_advert()), on_the_wire(an_advert(), "two")
    tomorrow = on_the_wire(an_advert(), "three", NOON_S + DAY_S)
    all_values = b"".join(value or b"" for value in today.values())

    assert MESH.encode() not in all_values
    assert NODE.encode() not in all_values
    assert today[b"n"] != again[b"n"]
    assert today[b"t"] == again[b"t"] != tomorrow[b"t"]
    assert b"m" not in today


def test_name_of_a_mesh_is_shown_only_when_it_has_one() -> None:
    """Giving a name is asking to be seen."""
    record = received(on_the_wire(an_advert(mesh_name="home\x1b[2J " + "ö" * 80)))

    assert record is not None
    assert record.mesh_name.startswith("home[2J öö")
    assert len(record.mesh_name.encode()) <= 63


def test_other_mesh_is_not_mine() -> None:
    """Two offices on one floor."""
    record = received(on_the_wire(an_advert(mesh=OTHER_MESH)))

    assert record is not None
    assert node_of(record, MESH, NOON_S) is None


@pytest.mark.parametrize(("apart_s", "is_recognised"), [(DAY_S, True), (-DAY_S, True), (2 * DAY_S, False)])
def test_clocks_may_be_a_day_apart(apart_s: float, is_recognised: bool) -> None:
    """Around midnight both days are right."""
    record = received(on_the_wire(an_advert()))

    assert record is not None
    assert (node_of(record, MESH, NOON_S + apart_s) == NODE) is is_recognised


@pytest.mark.parametrize(
    "changes",
    [
        {b"v": b"2"}, {b"v": None}, {b"t": b"short"}, {b"t": b"\xff" * 24}, {b"t": None}, {b"n": b"x" * 31},
        {b"n": None}, {b"x": b"y" * LAN_RECORD_BYTES},
    ],
)  # fmt: skip
def test_nonsense_is_dropped(changes: dict[bytes, bytes | None]) -> None:
    """Anybody on the network can say anything."""
    assert received(on_the_wire(an_advert()) | changes) is None


def test_only_addresses_of_other_machines_count() -> None:
    """A record must not make a node talk to itself or to everybody."""
    values = on_the_wire(an_advert())

    assert received(values, ("127.0.0.1", "224.0.0.1", "::1", "nonsense", "fe80::1")) is None
    assert received(values, port=0) is None
    many = received(values, tuple(f"10.0.0.{number}" for number in range(200)))
    assert many is not None
    assert len(many.addresses) == LAN_ADDRESSES


@given(st.dictionaries(st.binary(max_size=20), st.one_of(st.none(), st.binary(max_size=300))), st.text(max_size=20))
def test_any_record_is_heard_or_dropped(values: dict[bytes, bytes | None], host: str) -> None:
    """Never an error."""
    record = heard("one", 1, (host, "192.0.2.7"), {b"v": b"1", b"t": b"0" * 24, b"n": b"n" * 32} | values)

    assert record is None or len(record.addresses) <= LAN_ADDRESSES


def test_wrong_node_id_is_our_own_mistake() -> None:
    """It would be hidden and never recognised."""
    with pytest.raises(ValueError, match="an id has 52"):
        properties(an_advert(node=NodeId("abc")), "one", 1)


def test_tag_is_of_the_mesh_and_the_day() -> None:
    """Both decide it, and nothing else."""
    assert mesh_tag(MESH, 1) == mesh_tag(MESH, 1)
    assert len({mesh_tag(MESH, 1), mesh_tag(MESH, 2), mesh_tag(OTHER_MESH, 1)}) == 3
