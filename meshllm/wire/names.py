"""Which names and texts from other nodes are taken, and how one's own are made fit to be sent.

Owns the rules of form for ids, names of nodes, models and features. Decides what is refused on entry, so that whatever
shows a name later need not ask where it came from. Doesn't know whom a name belongs to.
"""

import re

from meshllm.core.limits import ANNOUNCED_TEXT_CHARS, MODEL_ID_CHARS, NODE_NAME_CHARS, REMOTE_ERROR_TEXT_BYTES
from meshllm.core.split_limits import SPLIT_EPOCH_MOST
from meshllm.wire.ids import is_id
from meshllm.wire.packing import malformed

_NODE_NAME = re.compile(rf"[A-Za-z0-9._ -]{{1,{NODE_NAME_CHARS}}}")
_NOT_IN_NODE_NAME = re.compile(r"[^A-Za-z0-9._ -]+")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DIGEST = re.compile(r"((sha256|adopted):[0-9a-f]{64})?")


def check_id(*texts: str) -> None:
    """Refuse what is not the id of a node or a mesh. Raises WireError."""
    for text in texts:
        if not is_id(text):
            raise malformed("not an id")


def check_node_name(text: str) -> None:
    """Refuse what no node is called. Raises WireError."""
    if not _NODE_NAME.fullmatch(text):
        raise malformed("not the name of a node")


def check_model(text: str) -> None:
    """Refuse what no model is called. Raises WireError."""
    if not is_model_id(text):
        raise malformed("not the name of a model")


def is_model_id(text: str) -> bool:
    """Tell whether a model of this name may be spoken of between nodes."""
    return 0 < len(text) <= MODEL_ID_CHARS and text.isprintable()


def check_digest(text: str) -> None:
    """Refuse what is neither `sha256:` or `adopted:` and 64 hexadecimal digits nor empty. Raises WireError."""
    if not _DIGEST.fullmatch(text):
        raise malformed("not a digest")


def check_epoch(number: int) -> None:
    """Refuse what is the number of no epoch of a split. Raises WireError."""
    if not 0 < number <= SPLIT_EPOCH_MOST:
        raise malformed("not an epoch")


def check_word(text: str) -> None:
    """Refuse what is no code of the protocol: small letters, digits, underscores. Raises WireError."""
    if not _WORD.fullmatch(text):
        raise malformed("not a code")


def check_text(*texts: str) -> None:
    """Refuse text that is too long for what it says. Raises WireError."""
    if any(len(text) > ANNOUNCED_TEXT_CHARS for text in texts):
        raise malformed("a text is too long")


def fit_node_name(text: str) -> str:
    """Return a name that other nodes take: what they refuse becomes `-`."""
    return _NOT_IN_NODE_NAME.sub("-", text)[:NODE_NAME_CHARS].strip() or "node"


def fit_text(text: str, chars: int = ANNOUNCED_TEXT_CHARS) -> str:
    """Return text that other nodes take: printable, and not too long."""
    shown = text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)
    return shown[:chars]


def fit_error(text: str) -> str:
    """Return a message for another node: printable, within the bytes that a remote error may have."""
    return fit_text(text).encode()[:REMOTE_ERROR_TEXT_BYTES].decode(errors="ignore")
