"""Tokens: there and back, and every way in which a paste goes wrong (row of malformed inputs, 3.3)."""

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.announcement import Address
from meshllm.core.ids import MeshId, NodeId, TokenId
from meshllm.core.limits import TOKEN_CHARS
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.wire.ids import id_text
from meshllm.wire.token import PREFIX, Token, TokenError, TokenProblem, checksum, decode_token, encode_token

V4 = tuple(Address(f"192.168.1.{n}", 4000 + n) for n in range(8))
V6 = tuple(Address(f"2001:db8::{n + 1:x}", 4000 + n) for n in range(8))
TOKEN = Token(
    mesh=MeshId(id_text(b"\xff" * 32)), issuer=NodeId(id_text(b"i" * 32)), addresses=V4,
    token_id=TokenId("00112233445566ff"), secret=bytes(range(32)), rights=OWN_MACHINE, expires_unix_s=1_800_000_000,
)  # fmt: skip
TEXT = encode_token(TOKEN)


@given(
    mesh=st.binary(min_size=32, max_size=32), secret=st.binary(min_size=32, max_size=32),
    rights=st.sampled_from(list(map(Rights, range(16)))), expiry=st.integers(0, 2**40 - 1),
    addresses=st.lists(st.builds(Address, st.ip_addresses(v=4).map(str), st.integers(0, 65_535)), max_size=8),
)  # fmt: skip
def test_a_token_comes_back(mesh: bytes, secret: bytes, rights: Rights, expiry: int, addresses: list[Address]) -> None:
    """Whatever it says."""
    token = replace(
        TOKEN, mesh=MeshId(id_text(mesh)), secret=secret, rights=rights, expires_unix_s=expiry,
        addresses=tuple(addresses),
    )  # fmt: skip

    assert decode_token(encode_token(token)) == token


def test_eight_addresses_fit() -> None:
    """In a text that a double click selects."""
    assert len(TEXT) <= TOKEN_CHARS
    assert TEXT.startswith(PREFIX)
    assert TEXT.removeprefix(PREFIX).isalnum()
    assert len(decode_token(TEXT).addresses) == 8


def test_more_or_longer_addresses_are_left_out_from_the_end() -> None:
    """The first ones are those of the local network."""
    text = encode_token(replace(TOKEN, addresses=(*V6, *V4)))

    assert len(text) <= TOKEN_CHARS
    assert decode_token(text).addresses == V6[: len(decode_token(text).addresses)]
    assert len(decode_token(text).addresses) >= 4
    assert decode_token(encode_token(replace(TOKEN, addresses=V4 * 2))).addresses == V4


@pytest.mark.parametrize(
    "paste",
    [
        f"{TEXT}\n", f"  {TEXT}\r\n", f'"{TEXT}"', f"'{TEXT}'", f"`{TEXT}`", f"\u201c{TEXT}\u201d", f"<{TEXT}>,",
        f"{TEXT[:80]}\n{TEXT[80:160]}\n    {TEXT[160:]}", TEXT.upper(), f"\ufeff{TEXT}", f"{TEXT};",
    ],
    ids=["newline", "spaces", "quotes", "single quotes", "backticks", "curly quotes", "angle brackets", "wrapped",
         "capitals", "byte order mark", "semicolon"],
)  # fmt: skip
def test_what_surrounds_a_paste_is_taken_away(paste: str) -> None:
    """Mail programs, chats and shells add to what people copy."""
    assert decode_token(paste) == TOKEN


@pytest.mark.parametrize(
    ("paste", "problem"),
    [
        ("", TokenProblem.EMPTY), (" \n", TokenProblem.EMPTY), ('""', TokenProblem.EMPTY),
        ("x" * 1_000_000, TokenProblem.TOO_LONG), (f"{PREFIX}{'a' * 400}", TokenProblem.TOO_LONG),
        (f"{TEXT}{TEXT}", TokenProblem.TOO_LONG),
        ("swmtkn-1-abc", TokenProblem.UNKNOWN_KIND), ("meshllm2-abc", TokenProblem.UNKNOWN_KIND),
        ("http://example.org", TokenProblem.UNKNOWN_KIND), (TEXT[1:], TokenProblem.UNKNOWN_KIND),
        ("\u043c\u0435sh", TokenProblem.UNKNOWN_KIND),
        (PREFIX, TokenProblem.DAMAGED), (TEXT[:-1], TokenProblem.DAMAGED), (TEXT[:-20], TokenProblem.DAMAGED),
        (f"{TEXT}a", TokenProblem.DAMAGED), (f"{TEXT[:40]}{TEXT[41:]}", TokenProblem.DAMAGED),
        (TEXT.replace(TEXT[30], "b" if TEXT[30] != "b" else "c", 1), TokenProblem.DAMAGED),
        (f"{TEXT[:50]}1{TEXT[51:]}", TokenProblem.DAMAGED), (f"{TEXT[:50]}=={TEXT[52:]}", TokenProblem.DAMAGED),
        (f"{TEXT[:50]}\u00fc{TEXT[51:]}", TokenProblem.DAMAGED), (f"{TEXT[:50]}\0{TEXT[51:]}", TokenProblem.DAMAGED),
    ],
    ids=lambda value: ascii(value)[:40],
)  # fmt: skip
def test_a_bad_paste_says_what_is_wrong(paste: str, problem: TokenProblem) -> None:
    """With another message for each, that helps."""
    with pytest.raises(TokenError) as caught:
        decode_token(paste)

    assert caught.value.code is problem
    assert str(caught.value) == caught.value.message


def test_a_newer_kind_is_told_from_no_token() -> None:
    """The way out is another one."""
    with pytest.raises(TokenError, match="update the older"):
        decode_token("meshllm2-abc")
    with pytest.raises(TokenError, match="begins with meshllm1-"):
        decode_token("abc")


@given(st.binary(max_size=260))
def test_well_packed_nonsense_is_damaged(body: bytes) -> None:
    """Also when its checksum is right: addresses of wrong lengths, too many, cut short."""
    code = None
    try:
        decode_token(rewrapped(TEXT_BODY + body))
    except TokenError as error:
        code = error.code

    assert code in {None, TokenProblem.DAMAGED, TokenProblem.TOO_LONG}


def rewrapped(body: bytes) -> str:
    """Return a text for these bytes with a right checksum."""
    return PREFIX + base64.b32encode(body + checksum(body)).decode().rstrip("=").lower()


TEXT_BODY = bytes(110)


@pytest.mark.parametrize(
    "places", [b"\x04", b"\x04\x01\x02\x03\x04\x05", b"\x05" + bytes(7), (b"\x04" + bytes(6)) * 9], ids=len
)
def test_addresses_of_a_wrong_form_are_damage(places: bytes) -> None:
    """Whoever made such a token."""
    with pytest.raises(TokenError) as caught:
        decode_token(rewrapped(TEXT_BODY + places))

    assert caught.value.code is TokenProblem.DAMAGED


def test_a_token_does_not_show_its_secret() -> None:
    """It would end in a log."""
    assert repr(TOKEN.secret)[2:10] not in repr(TOKEN)
    assert TOKEN.secret.hex() not in repr(TOKEN)
    assert TOKEN.token_id in repr(TOKEN)


@pytest.mark.parametrize("changes", [{"secret": b""}, {"token_id": "ff"}, {"mesh": "short"}], ids=str)
def test_a_token_that_could_not_be_read_is_not_made(changes: dict[str, object]) -> None:
    """A mistake of ours shows here, not on the other machine."""
    with pytest.raises(ValueError):
        encode_token(replace(TOKEN, **changes))
