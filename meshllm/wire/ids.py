"""Ids as bytes and as text: 32 bytes of SHA-256, or their 52 characters of lower-case base32.

Owns the two forms and the way between them. Decides nothing. Doesn't know keys.
"""

import base64
import re

from meshllm.core.ids import ID_CHARS

ID_BYTES = 32
_PADDING = "===="
_ID = re.compile(rf"[a-z2-7]{{{ID_CHARS}}}")


def is_id(text: str) -> bool:
    """Tell whether a text has the form of an id."""
    return _ID.fullmatch(text) is not None


def id_text(data: bytes) -> str:
    """Return the text of an id's 32 bytes."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def id_bytes(text: str) -> bytes:
    """Return the 32 bytes of an id's text. Raises ValueError for anything else."""
    if not is_id(text):
        raise ValueError(f"an id has {ID_CHARS} letters a to z and digits 2 to 7")
    return base64.b32decode(text.upper() + _PADDING)
