"""The other processes of `scripts/bench/bulk`: givers of a file, and a sender of raw bytes over TLS.

Owns members whose keys every process can make anew, so that they know one another without a word between them.
"""

import asyncio
import socket
import sys
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshllm.core.catalog import ModelSpec
from meshllm.core.members.bulk_admission import BulkUse, bulk_rights, refusal_of
from meshllm.core.rights import OWN_MACHINE
from meshllm.daemon.bulk_files import BulkFiles
from meshllm.transport.bulk_channel import acceptor_context
from meshllm.transport.bulk_listener import BulkListener, BulkUser
from meshllm.transport.identity import Identity
from tests.core.builders import a_spec
from tests.daemon.giving import a_view
from tests.transport.builders import Mesh, Node, terms

LOOPBACK = "127.0.0.1"
MIB = 1024 * 1024


def _identity(number: int) -> Identity:
    return Identity(Ed25519PrivateKey.from_private_bytes(bytes([number + 1]) * 32))


def the_mesh() -> Mesh:
    """Return the mesh of all processes."""
    return Mesh(_identity(99))


def member_of(number: int) -> Node:
    """Return one of its members."""
    return the_mesh().member(identity=_identity(number))


def send_raw(size_bytes: int) -> None:
    """Send so many bytes to the first who comes."""
    with socket.create_server((LOOPBACK, 0)) as server:
        print(server.getsockname()[1], flush=True)
        raw, _ = server.accept()
    block = bytes(MIB)
    with acceptor_context(_identity(0)).wrap_socket(raw, server_side=True) as stream:
        for _ in range(-(-size_bytes // MIB)):
            stream.sendall(block)
        stream.recv(1)


def known(file: Path, digest: str) -> ModelSpec:
    """Return a file as an inventory has it."""
    status = file.stat()
    return replace(
        a_spec("own"), path=str(file), files=(str(file),), size_bytes=status.st_size, digest=f"sha256:{digest}",
        modified_s=status.st_mtime_ns / 1e9,
    )  # fmt: skip


async def give(spec: ModelSpec, number: int) -> None:
    """Give a file to members until somebody kills this process."""
    view, node = a_view(spec), member_of(number)
    loop = asyncio.get_running_loop()
    user = BulkUser(
        credentials=node.credentials, terms=terms, judge=lambda claim: bulk_rights(claim, ()),
        refusal=lambda use, theirs: refusal_of(use, theirs, OWN_MACHINE),
        serve={BulkUse.FILE: BulkFiles(lambda: view, lambda _: True).serve},
        start_task=lambda name, work: loop.create_task(work, name=name),
    )  # fmt: skip
    listener = BulkListener.open(LOOPBACK, 0, node.identity, user)
    print(listener.port, flush=True)
    await listener.run()


if __name__ == "__main__":
    if sys.argv[1] == "raw":
        send_raw(int(sys.argv[2]))
    else:
        asyncio.run(give(known(Path(sys.argv[2]), sys.argv[4]), int(sys.argv[3])))
