"""The token: the one string that people hand on, so that another machine can join.

Owns its form: `meshllm1-` and base32 of what is inside, selectable by a double click, at most 400 characters. Decides
whether a pasted text is one, and says what is wrong with it in words for people. Doesn't know whether it still admits.

Inside, in this order: mesh id 32 bytes, issuer's node id 32, token id 8, secret 32, rights 1, expiry 5 (Unix seconds),
then each address as its length (4 or 16), host and port 2, and last a checksum 4, the beginning of a SHA-256.
"""

import base64
import binascii
import hashlib
import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from meshllm.core.announcement import Address
from meshllm.core.ids import MeshId, NodeId, TokenId
from meshllm.core.limits import TOKEN_ADDRESSES, TOKEN_CHARS, TOKEN_PASTE_CHARS
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.wire.ids import ID_BYTES, id_bytes, id_text

PREFIX = "meshllm1-"
SECRET_BYTES = 32
TOKEN_ID_BYTES = 8
_EXPIRY_BYTES = 5
_CHECKSUM_BYTES = 4
_PORT_BYTES = 2
_HEAD_BYTES = 2 * ID_BYTES + TOKEN_ID_BYTES + SECRET_BYTES + 1 + _EXPIRY_BYTES
_BODY_BYTES = (TOKEN_CHARS - len(PREFIX)) * 5 // 8
_WRAPPING = re.compile(r"[\s\"'`<>,;\u00ab\u00bb\u2018-\u201f\u200b-\u200d\u2060\ufeff]+")
"""What a mail program, a chat or a shell puts around a token or into it."""


class TokenProblem(StrEnum):
    """Why a text is no usable token."""

    EMPTY = "empty"
    TOO_LONG = "too_long"
    UNKNOWN_KIND = "unknown_kind"
    DAMAGED = "damaged"


class TokenError(Exception):
    """A text is no usable token."""

    def __init__(self, code: TokenProblem, message: str) -> None:
        """Keep the code beside the words."""
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token says. Whoever has `secret` may join: it is kept out of `repr`."""

    mesh: MeshId
    issuer: NodeId
    """The node to dial, by its key."""
    addresses: tuple[Address, ...]
    token_id: TokenId
    secret: bytes
    rights: Rights
    expires_unix_s: int

    def __repr__(self) -> str:
        """Return what may stand in a log."""
        return f"Token(token_id={self.token_id!r}, mesh={self.mesh[:8]!r}, rights={int(self.rights)})"


def encode_token(token: Token) -> str:
    """Return a token as text. As many addresses as 400 characters hold, at most eight, the first ones.

    Raises ValueError for a token that could not be read again.
    """
    if len(token.secret) != SECRET_BYTES or len(token.token_id) != 2 * TOKEN_ID_BYTES:
        raise ValueError("a token's secret has 32 bytes, its id 16 hexadecimal digits")
    body = b"".join((
        id_bytes(token.mesh), id_bytes(token.issuer), bytes.fromhex(token.token_id), token.secret,
        int(token.rights).to_bytes(1, "big"), token.expires_unix_s.to_bytes(_EXPIRY_BYTES, "big"),
    ))  # fmt: skip
    for address in token.addresses[:TOKEN_ADDRESSES]:
        host = ipaddress.ip_address(address.host).packed
        place = bytes((len(host),)) + host + address.port.to_bytes(_PORT_BYTES, "big")
        if len(body) + len(place) + _CHECKSUM_BYTES > _BODY_BYTES:
            break
        body += place
    return PREFIX + base64.b32encode(body + checksum(body)).decode("ascii").rstrip("=").lower()


def decode_token(text: str) -> Token:
    """Return what a pasted text says. Quotes, spaces and line breaks around it and in it are taken away.

    Raises TokenError.
    """
    if len(text) > TOKEN_PASTE_CHARS:
        _refuse(TokenProblem.TOO_LONG, f"this is no token: a token has at most {TOKEN_CHARS} characters")
    plain = _WRAPPING.sub("", text).lower()
    if not plain:
        _refuse(TokenProblem.EMPTY, "the token is empty")
    if not plain.startswith(PREFIX):
        _refuse(TokenProblem.UNKNOWN_KIND, _unknown(plain))
    if len(plain) > TOKEN_CHARS:
        _refuse(TokenProblem.TOO_LONG, f"the token is too long: it has at most {TOKEN_CHARS} characters")
    return _parsed(_unwrapped(plain.removeprefix(PREFIX)))


def _unwrapped(letters: str) -> bytes:
    """Return the bytes of a token's letters, without their checksum."""
    try:
        data = base64.b32decode(letters.upper() + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError):
        data = b""
    body, said = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(body) < _HEAD_BYTES or checksum(body) != said:
        _damaged()
    return body


def _parsed(body: bytes) -> Token:
    mesh, rest = id_text(body[:ID_BYTES]), body[ID_BYTES:]
    issuer, rest = id_text(rest[:ID_BYTES]), rest[ID_BYTES:]
    token_id, rest = rest[:TOKEN_ID_BYTES].hex(), rest[TOKEN_ID_BYTES:]
    secret, rest = rest[:SECRET_BYTES], rest[SECRET_BYTES:]
    rights, expiry, places = rest[0], rest[1 : 1 + _EXPIRY_BYTES], rest[1 + _EXPIRY_BYTES :]
    return Token(
        mesh=MeshId(mesh), issuer=NodeId(issuer), addresses=_addresses(places), token_id=TokenId(token_id),
        secret=secret, rights=Rights(rights) & OWN_MACHINE, expires_unix_s=int.from_bytes(expiry, "big"),
    )  # fmt: skip


def _addresses(places: bytes) -> tuple[Address, ...]:
    found: list[Address] = []
    while places:
        size = places[0]
        end = 1 + size + _PORT_BYTES
        if size not in {4, 16} or len(places) < end or len(found) == TOKEN_ADDRESSES:
            _damaged()
        host = str(ipaddress.ip_address(places[1 : 1 + size]))
        found.append(Address(host, int.from_bytes(places[1 + size : end], "big")))
        places = places[end:]
    return tuple(found)


def checksum(body: bytes) -> bytes:
    """Return the four bytes that tell a damaged token from a whole one."""
    return hashlib.sha256(b"meshllm token" + body).digest()[:_CHECKSUM_BYTES]


def _unknown(plain: str) -> str:
    if re.match(r"meshllm\d+-", plain):
        return "this token is of another version of meshllm: update the older of the two machines"
    return f"this is no token: a token begins with {PREFIX}"


def _damaged() -> NoReturn:
    _refuse(TokenProblem.DAMAGED, "the token is damaged: copy it again, all of it")


def _refuse(code: TokenProblem, message: str) -> NoReturn:
    raise TokenError(code, message)
