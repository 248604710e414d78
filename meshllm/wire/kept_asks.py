"""What a tunnel may be for besides a request: an answer that another node keeps, to be told or to be kept there.

Owns the form of the question, which stands in the head of a tunnel. Decides what is no question. Doesn't know what is
kept where; an answer travels as the bytes of the tunnel, forth to be kept, back to be told.
"""

import re
from dataclasses import dataclass

from meshllm.core.caches.completions import KEY_DIGEST_BYTES, RECIPE_DIGITS, STREAM, WHOLE
from meshllm.wire.packing import malformed

_RECIPE = re.compile(rf"[0-9a-f]{{{RECIPE_DIGITS}}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAsk:
    """One answer: by the recipe of the engine that gave it, and the digest of its request."""

    recipe: str
    digest: bytes
    keeps: bool = False
    """The answer follows, and is to be kept; else it is asked for."""
    size_bytes: int = 0
    """Of what follows."""


def check_kept(ask: KeptAsk) -> None:
    """Refuse what asks for no answer that there can be. Raises WireError."""
    if not _RECIPE.fullmatch(ask.recipe):
        raise malformed("not a recipe")
    if len(ask.digest) != KEY_DIGEST_BYTES or not ask.digest.startswith((WHOLE, STREAM)):
        raise malformed("not the digest of a request")
    if bool(ask.size_bytes) != ask.keeps:
        raise malformed("an answer that is to be kept, and none that follows; or the reverse")
