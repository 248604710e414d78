"""msgpack under strict limits: every row of malformed inputs, 3.4, that bytes alone can show."""

from dataclasses import dataclass

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.limits import CONTROL_FRAME_BYTES, MSGPACK_DEPTH
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.packing import INTEGER_LIMIT, convert, pack, plain, read, unpack, unpack_map


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """Something within."""

    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """Something to send."""

    name: str
    blob: bytes = b""
    share: float = 0.0
    is_on: bool = False
    inner: tuple[Inner, ...] = ()


def nested(levels: int) -> bytes:
    """Return an array in an array and so on."""
    return b"\x91" * (levels - 1) + b"\x90"


REFUSED = {
    "array of 4 billion": "ddffffffff",
    "map of 4 billion": "dfffffffff",
    "binary of 4 billion": "c6ffffffff",
    "text of 4 billion": "dbffffffff",
    "never used byte": "c1",
    "nothing": "",
    "trailing byte": "c0c0",
    "cut short": "92c0",
    "text that is not UTF-8": "a2c328",
    "lone surrogate": "a3eda080",
    "extension": "d40100",
    "long extension": "c9ffffffff01",
    "timestamp": "d6ff00000001",
    "empty extension": "c70001",
    "integer key": "810102",
    "binary key": "81c40161c0",
    "nil key": "81c0c0",
    "key twice": "82a161c0a161c0",
    "key twice, deeper": "9182a161c0a161c0",
    "key with an escape": "81a11bc0",
    "NaN": "cb7ff8000000000000",
    "infinity": "ca7f800000",
    "minus infinity": "caff800000",
    "minus one": "ff",
    "minus a half": "cabf000000",
    "2^63": "cf8000000000000000",
    "2^64-1": "cfffffffffffffffff",
    "terminal escape": "a41b5b326a",
    "line break": "a10a",
    "C1 control": "a2c29b",
    "right-to-left override": "a3e280ae",
    "one item too many": "dc1001" + "c0" * 4097,
    "one entry too many": "de0101" + "".join(f"a3{key:06x}c0" for key in range(0x313030, 0x313030 + 257)),
    "text too long": "da1001" + "61" * 4097,
    "binary too long": "c600010001" + "00" * 65_537,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_refused_whoever_sends_it(data: str) -> None:
    """One typed error, for every way in which bytes can be wrong."""
    with pytest.raises(WireError) as caught:
        unpack(bytes.fromhex(data))

    assert caught.value.code is WireCode.MALFORMED


@pytest.mark.parametrize("levels", [MSGPACK_DEPTH + 1, 600, 100_000])
def test_depth_is_bounded(levels: int) -> None:
    """Neither the library's stack nor Python's is the limit."""
    with pytest.raises(WireError) as caught:
        unpack(nested(levels))

    assert caught.value.code is WireCode.MALFORMED


def test_depth_within_the_bound_is_taken() -> None:
    """Sixteen levels are more than any message has."""
    assert unpack(nested(MSGPACK_DEPTH)) is not None


@pytest.mark.parametrize("filling", [b"\x80", b"\x90", b"\xc0", b"\x91\x80"], ids=["maps", "lists", "nil", "both"])
def test_a_frame_full_of_small_things_is_refused_early(filling: bytes) -> None:
    """Without counts, 256 KiB of empty maps would stop the daemon for most of a second each time."""
    row = b"\xdc\x07\xff" + filling * 0x7FF
    data = b"\xdc\x00\x3f" + row * 63

    with pytest.raises(WireError) as caught:
        unpack(data)

    assert caught.value.code is WireCode.MALFORMED


def test_the_largest_honest_message_is_taken() -> None:
    """A digest that fills a frame."""
    digest = {"entries": [{"node": "a" * 52, "incarnation": 2**40, "version": 2**40}] * 2048}

    assert unpack(pack(digest)) == digest


def test_size_is_checked_before_anything_is_read() -> None:
    """An 8 MiB frame of empty maps would cost 582 MB."""
    with pytest.raises(WireError) as caught:
        unpack(b"\x80" * (CONTROL_FRAME_BYTES + 1))

    assert caught.value.code is WireCode.FRAME_TOO_LARGE


def test_a_map_is_asked_for() -> None:
    """Every message is a map."""
    with pytest.raises(WireError):
        unpack_map(b"\x90")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": b"x"}, {"name": None}, {"name": 1}, {"blob": "eA=="}, {"share": True}, {"share": "1"}, {"is_on": 1},
        {"inner": {}}, {"inner": [1]}, {"inner": [{"count": True}]}, {"inner": [{"count": 1.5}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_type_is_refused(changes: dict[str, object]) -> None:
    """A boolean is no number and text is no bytes, whatever Python thinks."""
    with pytest.raises(WireError) as caught:
        read(msgpack.packb({"name": "n", **changes}), Outer)

    assert caught.value.code is WireCode.MALFORMED


def test_a_missing_field_takes_its_default_and_an_unknown_one_is_left_out() -> None:
    """Neighbouring versions understand each other."""
    assert convert({"name": "n", "colour": {"any": ["thing"]}}, Outer) == Outer(name="n")


def test_a_missing_field_without_default_is_refused() -> None:
    """What has no default is needed."""
    with pytest.raises(WireError):
        convert({}, Outer)


@given(
    st.builds(
        Outer, name=st.text(st.characters(codec="ascii", categories=["L"])), blob=st.binary(max_size=50),
        share=st.floats(0, 1e9), is_on=st.booleans(),
        inner=st.lists(st.builds(Inner, count=st.integers(0, INTEGER_LIMIT - 1)), max_size=5).map(tuple),
    )
)  # fmt: skip
def test_what_is_packed_is_read(value: Outer) -> None:
    """There and back again."""
    assert read(pack(value), Outer) == value


def test_defaults_cost_no_bytes() -> None:
    """Most fields of most messages have their default."""
    assert plain(Outer(name="n", inner=(Inner(), Inner(count=2)))) == {"name": "n", "inner": [{}, {"count": 2}]}


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_our_error(data: bytes) -> None:
    """No other exception ever leaves the decoder."""
    code = None
    try:
        unpack(data)
    except WireError as error:
        code = error.code

    assert code in {None, WireCode.MALFORMED}
