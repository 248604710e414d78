"""What a node may do in a mesh: the rights that certificates and tokens carry.

Owns the names of the rights and the usual bundles. Decides nothing; `core.members.admission` does.
"""

from collections.abc import Iterable
from enum import IntFlag


class Rights(IntFlag):
    """A set of rights, as bits."""

    NONE = 0
    INFER = 1
    """Send requests to other nodes."""
    HOST = 2
    """Announce models and answer requests of other nodes."""
    RPC = 4
    """Lend and borrow tensor compute. llama.cpp's RPC is memory access by design."""
    ADMIN = 8
    """Admit and revoke nodes, and change what other nodes serve."""


OWN_MACHINE = Rights.INFER | Rights.HOST | Rights.RPC | Rights.ADMIN
"""What the token that `mesh-llm` prints gives: the machines of one person."""
GUEST = Rights.INFER | Rights.HOST
CLIENT_ONLY = Rights.INFER

_NAMES = {"infer": Rights.INFER, "host": Rights.HOST, "rpc": Rights.RPC, "admin": Rights.ADMIN}


def parse_rights(names: Iterable[str]) -> Rights:
    """Return the rights with these names. Raises ValueError, naming the one that does not exist."""
    found = Rights.NONE
    for name in names:
        if name not in _NAMES:
            msg = f"there is no right named {name!r}; the rights are {', '.join(_NAMES)}"
            raise ValueError(msg)
        found |= _NAMES[name]
    return found


def rights_names(rights: Rights) -> tuple[str, ...]:
    """Return the names of rights, in a fixed order."""
    return tuple(name for name, right in _NAMES.items() if right in rights)


def rights_meaning(rights: Rights) -> str:
    """Say in one sentence what rights let a machine do, and for whom they are meant."""
    does = [words for right, words in _MEANINGS.items() if right in rights]
    if not does:
        return "lets a machine do nothing"
    listed = does[0] if len(does) == 1 else f"{', '.join(does[:-1])} and {does[-1]}"
    careful = "; for your own machines only" if rights & (Rights.RPC | Rights.ADMIN) else ""
    return f"lets a machine {listed}{careful}"


_MEANINGS = {
    Rights.INFER: "send requests", Rights.HOST: "serve models to others",
    Rights.RPC: "lend and borrow memory for models that are split", Rights.ADMIN: "admit and manage other machines",
}  # fmt: skip
