"""This node's side of the bulk plane: the TCP port beside the UDP port, and connections to the ports of others.

Owns the port while the node runs, and which uses are served on it. Decides nothing: rights are
`core.members.bulk_admission`'s. What is asked of it on threads it answers from the newest view, which never changes.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence

from meshllm.core.announcement import Address
from meshllm.core.credentials import Claim
from meshllm.core.effects import PeerSource, SplitPeer
from meshllm.core.ids import NodeId
from meshllm.core.members.bulk_admission import BulkUse, bulk_rights, refusal_of
from meshllm.core.rights import Rights
from meshllm.core.view import MeshView
from meshllm.daemon.bulk_files import BulkFiles
from meshllm.transport.bulk_channel import BulkChannel, BulkCode, BulkError
from meshllm.transport.bulk_dial import dial_bulk
from meshllm.transport.bulk_listener import BulkListener, BulkUser
from meshllm.transport.handshake import Credentials, Terms
from meshllm.transport.identity import Identity

log = logging.getLogger(__name__)

StartTask = Callable[[str, Coroutine[object, object, None]], asyncio.Task[None]]


class BulkPlane:
    """One node's bulk connections, in both directions."""

    def __init__(
        self, credentials: Callable[[], Credentials], newest: Callable[[], MeshView], name: str,
        unix_s: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Show these credentials; nothing listens yet."""
        self._credentials = credentials
        self._newest = newest
        self._name = name
        self._unix_s = unix_s
        self._files = BulkFiles(newest, lambda peer: peer not in self._revoked())
        self._listener: BulkListener | None = None
        self._lend: Callable[[BulkChannel], None] | None = None
        self._take_line: Callable[[BulkChannel], None] | None = None

    @property
    def port(self) -> int:
        """Return the TCP port; 0 while there is none."""
        return self._listener.port if self._listener is not None else 0

    def open(self, host: str, port: int, identity: Identity, start_task: StartTask) -> None:
        """Listen, at the same number as the UDP port where that is free. A node without a port gives no files."""
        user = BulkUser(
            credentials=self._credentials, terms=self._terms,
            judge=self._judge,
            refusal=lambda use, theirs: refusal_of(use, theirs, self._newest().me.rights),
            serve={BulkUse.FILE: self._files.serve, BulkUse.RPC: self._serve_split, BulkUse.LINE: self._serve_line},
            start_task=start_task,
        )  # fmt: skip
        try:
            self._listener = BulkListener.open(host, port, identity, user)
        except OSError as error:
            log.warning("no TCP port for other nodes, they get no files here: %s", error.strerror or error)

    def lends_by(self, serve: Callable[[BulkChannel], None]) -> None:
        """Serve hosts of splits so from here on; nobody lends before."""
        self._lend = serve

    def takes_lines_by(self, serve: Callable[[BulkChannel], None]) -> None:
        """Take lines of peers so from here on; nobody does before."""
        self._take_line = serve

    async def run(self) -> None:
        """Serve other nodes until cancelled."""
        if self._listener is not None:
            await self._listener.run()

    async def close(self) -> None:
        """End everything that others get here."""
        if self._listener is not None:
            await self._listener.close()

    def dial(self, source: PeerSource, opened: Callable[[BulkChannel], None]) -> BulkChannel:
        """Return a connection on which a peer gives files. Blocks. Raises BulkError."""
        return dial_bulk(source.node, source.addresses, BulkUse.FILE, self._credentials(), self._terms(), opened)

    def dial_worker(self, peer: SplitPeer, opened: Callable[[BulkChannel], None]) -> BulkChannel:
        """Return a connection on which a peer lets hosts at the servers that it lends. Blocks. Raises BulkError."""
        return dial_bulk(peer.node, peer.addresses, BulkUse.RPC, self._credentials(), self._terms(), opened)

    def dial_line(
        self, peer: NodeId, addresses: Sequence[Address], opened: Callable[[BulkChannel], None]
    ) -> BulkChannel:
        """Return a connection for tunnels to a peer. Blocks. Raises BulkError."""
        return dial_bulk(peer, addresses, BulkUse.LINE, self._credentials(), self._terms(), opened)

    def _serve_line(self, channel: BulkChannel) -> None:
        if self._take_line is None:
            raise BulkError(BulkCode.LOST, "this node has not begun to take lines")
        self._take_line(channel)

    def _serve_split(self, channel: BulkChannel) -> None:
        if self._lend is None:
            raise BulkError(BulkCode.LOST, "this node has not begun to lend")
        self._lend(channel)

    def _judge(self, claim: Claim) -> Rights | str:
        return bulk_rights(claim, self._revoked())

    def _revoked(self) -> frozenset[NodeId]:
        return frozenset(entry.node for entry in self._newest().revocations)

    def _terms(self) -> Terms:
        return Terms(now_unix_s=self._unix_s(), random_bytes=secrets.token_bytes, name=self._name)
