"""Text for logs and screens without the secrets that may be in it.

Owns what a secret looks like: tokens of a mesh, and keys behind their flag in a command line. Decides nothing else.
"""

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"(meshllm1-)[A-Za-z0-9]{6,}")
_SECRET_FLAGS = frozenset({"--join", "--api-key"})
_HIDDEN = "\N{HORIZONTAL ELLIPSIS}"


def redacted(text: str) -> str:
    """Return text with every token cut down to its prefix, by which people still see that one stood there."""
    return _TOKEN.sub(rf"\1{_HIDDEN}", text)


def redacted_command(words: Sequence[str]) -> str:
    """Return a command line without tokens and without what follows a flag that takes a secret."""
    shown: list[str] = []
    for word in words:
        flag, equals, _ = word.partition("=")
        if shown and shown[-1] in _SECRET_FLAGS:
            shown.append(_HIDDEN)
        elif equals and flag in _SECRET_FLAGS:
            shown.append(f"{flag}={_HIDDEN}")
        else:
            shown.append(redacted(word))
    return " ".join(shown)
