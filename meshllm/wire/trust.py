"""Tokens and revocations outside the core: the form that a token has between admins, and the file that keeps both.

Owns these forms. Decides which values a token's record may have. Doesn't know files or signatures: revocations are kept
as the signed bytes that they came in, and opened by the function that is handed in.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from meshllm.core.credentials import Revocation, TokenRecord
from meshllm.core.limits import TOKEN_USERS
from meshllm.wire.errors import WireError
from meshllm.wire.names import check_id
from meshllm.wire.packing import malformed

SECRET_HASH_BYTES = 32
_TOKEN_ID = re.compile(r"[0-9a-f]{16}")


def check_token(record: TokenRecord) -> None:
    """Refuse what is no record of a token. Raises WireError."""
    if not _TOKEN_ID.fullmatch(record.token_id) or len(record.secret_hash) != SECRET_HASH_BYTES:
        raise malformed("not a token's id, or not its hash")
    if len(record.used_by) > TOKEN_USERS:
        raise malformed("more users than a token has")
    check_id(record.made_by, *record.used_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    tokens: tuple[TokenRecord, ...] = ()
    revocations: tuple[bytes, ...] = ()


def kept_trust(tokens: Iterable[TokenRecord], revocations: Iterable[Revocation]) -> dict[str, object]:
    """Return tokens and revocations as a document for a file that only the user can read."""
    kept = _Kept(tokens=tuple(tokens), revocations=tuple(entry.sealed for entry in revocations))
    document: dict[str, object] = msgspec.to_builtins(kept)
    return document


def read_trust(
    document: Mapping[str, object], open_revocation: Callable[[bytes], Revocation]
) -> tuple[tuple[TokenRecord, ...], tuple[Revocation, ...]]:
    """Return the tokens and revocations of such a document. Raises WireError when it is none.

    A revocation that no admin signed is left out: whoever writes into the file gains nothing by it.
    """
    try:
        kept = msgspec.convert(dict(document), _Kept)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # JSON can hold half a character
        raise malformed(str(error)) from error
    for record in kept.tokens:
        check_token(record)
    revocations = []
    for sealed in kept.revocations:
        try:
            revocations.append(open_revocation(sealed))
        except WireError:
            continue
    return kept.tokens, tuple(revocations)
