"""What a node keeps of its mesh between two runs: its key, its membership, who was there, whom it trusts, its orders.

Owns the names and forms of these files. Decides what the loss of each means: without its key or membership a node does
not start, since it would come back as somebody else in silence; without the others it learns them anew. Doesn't know
cryptography: keys and certificates are bytes here.
"""

import base64
import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meshllm.core.announcement import Address
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.limits import STATE_FILE_BYTES
from meshllm.daemon import checked_file
from meshllm.daemon.errors import StartError

log = logging.getLogger(__name__)

KEY_NAME = "node-key.pem"
MESH_NAME = "mesh.json"
ROSTER_NAME = "roster.json"
TRUST_NAME = "trust.json"
ORDERS_NAME = "orders.json"
INCARNATION_NAME = "incarnation.json"
PORT_NAME = "port.json"
FIRST_VERSION_NAME = "node.json"
"""Where the first version, which knew no keys, kept a random id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The mesh that a node belongs to, and what proves it."""

    mesh: MeshId
    root_public: bytes
    certificate: bytes
    delegation: bytes = b""
    """An earlier certificate of this node that is better to issue with; empty where `certificate` is."""
    root_key: bytes = b""
    """PEM of the mesh's root key; only its founder has it."""
    name: str = ""


class MeshFiles:
    """The files of one node in its state folder, whose lock is held."""

    def __init__(self, folder: Path) -> None:
        """Use a folder that exists and is private."""
        self._folder = folder

    # -- without these the node does not start -----------------------------------------------------------

    def key(self) -> bytes | None:
        """Return the node's key in PEM, or None before there is one. Raises StartError when it cannot be read."""
        file = self._folder / KEY_NAME
        try:
            with file.open("rb") as stream:
                content = stream.read(STATE_FILE_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StartError(f"cannot read the node's key {file}: {error.strerror or error}") from error
        if not content.strip():
            raise self.damaged_key("it is empty")
        return content

    def keep_new_key(self, pem: bytes) -> None:
        """Write the node's first key; one that is there is never replaced. Raises StartError."""
        file = self._folder / KEY_NAME
        part = self._folder / f"{KEY_NAME}.part"
        try:
            part.unlink(missing_ok=True)
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            checked_file.write_private(part, pem)
            _link_or_fail(part, file)
            checked_file.sync_folder(self._folder)
        except OSError as error:
            raise StartError(f"cannot write the node's key {file}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def damaged_key(self, reason: str) -> StartError:
        """Return the error of a key that is no key: never a new identity in silence."""
        file = self._folder / KEY_NAME
        return StartError(
            f"{file} is damaged ({reason}). Put a copy of it back; or move it away to give this node a new identity, "
            "which then has to join its mesh anew"
        )

    def first_version_id(self) -> str:
        """Return the id that the first version gave this node, once: it is put aside. Empty when there is none."""
        file = self._folder / FIRST_VERSION_NAME
        with contextlib.suppress(OSError):
            text = file.read_bytes()[:200].decode(errors="replace")
            file.replace(file.with_name(f"{FIRST_VERSION_NAME}.old"))
            return "".join(char for char in text.rpartition(":")[2] if char in "0123456789abcdef")[:32]
        return ""

    def membership(self) -> Membership | None:
        """Return the mesh that this node belongs to, or None before it has one. Raises StartError."""
        file = self._folder / MESH_NAME
        content = self._read(file)
        if content is None:
            if checked_file.was_damaged(file):
                raise _lost_membership(file)
            return None
        try:
            return Membership(
                mesh=MeshId(_text(content, "mesh")), name=_text(content, "name"),
                root_public=_bytes(content, "root_public"), root_key=_bytes(content, "root_key"),
                certificate=_bytes(content, "certificate"), delegation=_bytes(content, "delegation"),
            )  # fmt: skip
        except ValueError:
            raise _lost_membership(file) from None

    def keep_membership(self, membership: Membership) -> None:
        """Write down the mesh that this node belongs to. Raises StartError."""
        content = {
            "mesh": membership.mesh, "name": membership.name, "root_public": _coded(membership.root_public),
            "certificate": _coded(membership.certificate), "delegation": _coded(membership.delegation),
            "root_key": _coded(membership.root_key),
        }  # fmt: skip
        self._write_or_fail(MESH_NAME, content)

    def next_incarnation(self, at_least: int = 1) -> int:
        """Return a number that this node never had, on disk before it is used. Raises StartError."""
        content = self._read(self._folder / INCARNATION_NAME) or {}
        last = content.get("incarnation")
        incarnation = max(last + 1 if isinstance(last, int) and not isinstance(last, bool) else 1, at_least)
        self._write_or_fail(INCARNATION_NAME, {"incarnation": incarnation})
        return incarnation

    # -- these are learned anew --------------------------------------------------------------------------

    def roster(self) -> tuple[tuple[NodeId, tuple[Address, ...]], ...]:
        """Return who was in the mesh and where; empty when nobody knows."""
        content = self._read(self._folder / ROSTER_NAME) or {}
        nodes = content.get("nodes")
        entries = nodes.items() if isinstance(nodes, dict) else ()
        return tuple((NodeId(node), _addresses(places)) for node, places in entries if isinstance(node, str))

    def keep_roster(self, entries: tuple[tuple[NodeId, tuple[Address, ...]], ...]) -> bool:
        """Write down who is in the mesh; tell whether the disk took it."""
        nodes = {node: [[address.host, address.port] for address in addresses] for node, addresses in entries}
        return self._write(ROSTER_NAME, {"nodes": nodes})

    def port(self) -> int:
        """Return the port for other nodes that this node had last; 0 before it had one."""
        port = (self._read(self._folder / PORT_NAME) or {}).get("port")
        return port if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 1 << 16 else 0

    def keep_port(self, port: int) -> bool:
        """Write down the port that tokens name from now on; tell whether the disk took it."""
        return self._write(PORT_NAME, {"port": port})

    def trust(self) -> Mapping[str, object]:
        """Return tokens and revocations as they were kept; empty when there are none."""
        return self._read(self._folder / TRUST_NAME) or {}

    def keep_trust(self, content: Mapping[str, object]) -> bool:
        """Write down tokens and revocations; tell whether the disk took it."""
        return self._write(TRUST_NAME, content)

    def orders(self) -> Mapping[str, object]:
        """Return what was ordered, as it was kept; empty when there is nothing."""
        return self._read(self._folder / ORDERS_NAME) or {}

    def keep_orders(self, content: Mapping[str, object]) -> bool:
        """Write down what was ordered; tell whether the disk took it."""
        return self._write(ORDERS_NAME, content)

    def _read(self, file: Path) -> Mapping[str, object] | None:
        try:
            return checked_file.read(file)
        except OSError as error:
            raise StartError(f"cannot read {file}: {error.strerror or error}") from error

    def _write(self, name: str, content: Mapping[str, object]) -> bool:
        try:
            checked_file.write(self._folder / name, content)
        except OSError as error:
            # A full disk must not end a node that serves.
            log.warning("not written down file=%s: %s", name, error.strerror or error)
            return False
        return True

    def _write_or_fail(self, name: str, content: Mapping[str, object]) -> None:
        try:
            checked_file.write(self._folder / name, content)
        except OSError as error:
            raise StartError(f"cannot write {self._folder / name}: {error.strerror or error}") from error


def _link_or_fail(part: Path, file: Path) -> None:
    """Give a complete file its name, unless the name is taken. Raises OSError."""
    try:
        file.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links; the lock on the folder keeps others away
        if file.exists():
            raise
        part.replace(file)


def _lost_membership(file: Path) -> StartError:
    return StartError(
        f"{file} and the copy beside it are damaged, so this node does not know its mesh any more. Put a copy back; or "
        f"delete {file.name}* there and join anew with --join"
    )


def _addresses(places: object) -> tuple[Address, ...]:
    entries = places if isinstance(places, list) else []
    return tuple(
        Address(entry[0], entry[1])
        for entry in entries
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], int)
    )


def _text(content: Mapping[str, object], key: str) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise ValueError(key)  # noqa: TRY004 - a value of the file, not a mistake of the caller
    return value


def _bytes(content: Mapping[str, object], key: str) -> bytes:
    return base64.b64decode(_text(content, key), validate=True)


def _coded(value: bytes) -> str:
    return base64.b64encode(value).decode()
