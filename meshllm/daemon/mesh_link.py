"""This node's side of the mesh: its peers, where it can be reached, and what it keeps of both.

Owns the transport's life and the membership on disk while the daemon runs. Decides nothing: the core says whom to
dial, admit and refuse. Doesn't know models or requests; tunnels are opened for whoever asks.
"""

import asyncio
import errno
import ipaddress
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace

from meshllm.api.deps import MeshFacts
from meshllm.config import Config
from meshllm.core import effects as do
from meshllm.core.announcement import Address
from meshllm.core.events import Event, PeerWanted, RightsGranted
from meshllm.core.ids import NodeId
from meshllm.core.limits import TOKEN_TTL_S
from meshllm.core.lines import line_addresses
from meshllm.core.members.admission import is_renewal_due
from meshllm.core.members.renewal import renewer
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.daemon import pulse
from meshllm.daemon.bulk_plane import BulkPlane
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.errors import AddressChoiceError, PortInUseError, StartError
from meshllm.daemon.invitations import Invitations, Standing, issuer_of
from meshllm.daemon.joining import Newcomer, renewed
from meshllm.daemon.mesh_files import Membership
from meshllm.daemon.mesh_start import MESH_KEY, MeshStart, certificate_of, rights_of
from meshllm.daemon.tasks import Tasks
from meshllm.daemon.whereabouts import Reach, Whereabouts
from meshllm.transport.certificates import Issuer, better_delegation
from meshllm.transport.endpoint import Endpoint
from meshllm.transport.handshake import Credentials, Welcomed
from meshllm.transport.lines import Lines, LinesUser
from meshllm.transport.peers import Peers, PeersSettings, PeersUser
from meshllm.transport.tunnels import TunnelHandler
from meshllm.wire.errors import WireError
from meshllm.wire.orders import kept_orders
from meshllm.wire.trust import kept_trust
from meshllm.wire.tunnel_frames import TunnelHead

log = logging.getLogger(__name__)

FAREWELL_S = 0.1
RENEWAL_LOOK_S = 3600.0


class MeshLink:
    """One node's peers. `listen`, then run its `work`; `close` in the end. Opens tunnels for the front door."""

    def __init__(
        self, start: MeshStart, config: Config, views: CurrentView, post: Callable[[Event], None],
        handler: TunnelHandler | None = None, unix_s: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """Begin with what was read from disk; nothing runs yet. `handler` serves other nodes' tunnels."""
        self._unix_s = unix_s
        self._start = start
        self._config = config
        self._views = views
        self._post = post
        self._membership: Membership | None = start.place.membership
        self._peers: Peers
        self._whereabouts: Whereabouts
        self._tasks: Tasks | None = None
        self._lines: Lines
        self._handler = handler
        self.bulk = BulkPlane(lambda: self._peers.credentials, lambda: views.newest, config.name, unix_s)
        self.invitations = Invitations(self._standing, lambda: views.newest.tokens, post, unix_s)

    @property
    def facts(self) -> MeshFacts:
        """Return which mesh this is."""
        membership = self._membership
        return MeshFacts(
            id=self._start.place.mesh, name=membership.name if membership is not None else "", rights=self._rights,
            is_founder=membership is not None and bool(membership.root_key),
        )  # fmt: skip

    @property
    def peers(self) -> Peers:
        """Return the connected peers."""
        return self._peers

    # -- start and end -------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Open the port for other nodes. Raises PortInUseError, AddressChoiceError or StartError."""
        config, start = self._config, self._start
        endpoint = await self._opened()
        self._lines = Lines(
            LinesUser(addresses=self._line_addresses, dial=self.bulk.dial_line, start_task=self._start_task)
        )
        self.bulk.takes_lines_by(self._lines.serve)
        if not config.client:
            self.bulk.open(config.bind_ip, endpoint.address.port, start.identity, self._start_task)
        self._whereabouts = Whereabouts(
            Reach(
                node=start.node, mesh=start.place.mesh, port=endpoint.address.port, mesh_name=self.facts.name,
                bind_ip=config.bind_ip, advertise=config.advertise, peers=config.peers, is_client=config.client,
                uses_mdns=not config.no_mdns, bulk_port=self.bulk.port,
            ),
            self._post,
        )  # fmt: skip
        self._peers = Peers(
            endpoint, start.credentials,
            PeersUser(
                post=self._post, start_task=self._start_task, joined=self._joined,
                wanted=lambda peer: self._post(PeerWanted(peer=peer)), handler=self._handler,
                revoked=lambda: frozenset(entry.node for entry in self._views.newest.revocations), lines=self._lines,
            ),
            PeersSettings(
                name=config.name, allow_loopback=_is_loopback(config.bind_ip), now_unix_s=self._unix_s
            ),
            self._issuer(),
        )  # fmt: skip
        await self._whereabouts.look()
        self._whereabouts.first(start.contacts)

    async def _opened(self) -> Endpoint:
        """Return the open port: the one that was chosen, else the last one, which tokens name, else any."""
        config, files = self._config, self._start.files
        last = 0 if config.client else files.port()
        if config.bind_port or not last:
            endpoint = await self._opened_at(config.bind_port or 0)
        else:
            try:
                endpoint = await self._opened_at(last)
            except PortInUseError:
                endpoint = await self._opened_at(0)
        if not config.client and endpoint.address.port != last:
            files.keep_port(endpoint.address.port)
        return endpoint

    async def _opened_at(self, port: int) -> Endpoint:
        bind_ip = self._config.bind_ip
        try:
            return await Endpoint.open(self._start.identity, bind_ip or "::", port)
        except OSError as error:
            where = f"{f'UDP port {port}' if port else 'a UDP port'} on {bind_ip or 'any address'}"
            if error.errno == errno.EADDRINUSE:
                raise PortInUseError(f"{where} is already in use; choose another with --bind-port") from error
            if error.errno == errno.EADDRNOTAVAIL:
                raise AddressChoiceError(f"--bind-ip {bind_ip} is no address of this machine") from error
            raise StartError(f"cannot open {where}: {error.strerror or error}") from error

    def work(self, tasks: Tasks) -> dict[str, Coroutine[object, object, None]]:
        """Return what goes on by itself, by name; dials are run as `tasks`."""
        self._tasks = tasks
        return {
            "whereabouts": self._whereabouts.run(), "pulse": pulse.feel(self._post), "renewal": self._renewals(),
            "bulk": self.bulk.run(),
        }  # fmt: skip

    async def close(self) -> None:
        """Say nothing more to anybody. What was said last gets a moment to arrive: closing throws away what did not."""
        if self._views.newest.members.keys() - {self._start.node}:
            await asyncio.sleep(FAREWELL_S)
        await self.bulk.close()
        await self._lines.close()
        self._peers.close()

    @property
    def inviting(self) -> Rights:
        """Return what this node can let one's other machines do, as a start tells; none where it may not admit."""
        may_admit = Rights.ADMIN in self._rights and not self._config.client
        return OWN_MACHINE & self._rights if may_admit else Rights.NONE

    def make_own_token(self) -> str:
        """Return a new token for one's own machines. Raises MeshRefusalError where this node may not admit."""
        return self.invitations.make_token(self.inviting, TOKEN_TTL_S, None)

    async def open_tunnel(self, peer: NodeId, head: TunnelHead, user: asyncio.Protocol) -> asyncio.Transport:
        """Open a tunnel to a peer. Raises OSError."""
        return await self._peers.open_tunnel(peer, head, user)

    def lines_by_peer(self) -> Mapping[NodeId, int]:
        """Return how many lines there are with each peer that has any."""
        return self._lines.counts()

    def _line_addresses(self, peer: NodeId) -> tuple[Address, ...]:
        """Return where a peer takes lines."""
        member, remote = self._views.newest.members.get(peer), self._peers.remote(peer)
        seen = remote.host if remote is not None else None
        return line_addresses(member.announcement, seen) if member is not None else ()

    # -- what the core orders ------------------------------------------------------------------------

    def carry_out(self, effect: do.MeshEffect) -> None:
        """Obey the core in what concerns peers."""
        match effect:
            case do.Dial(peer=peer, addresses=addresses):
                self._peers.dial(peer, addresses)
            case do.Disconnect(peer=peer, connection=connection, code=code):
                self._peers.disconnect(peer, connection, code)
            case do.Send(peer=peer, message=message):
                self._peers.send(peer, message)
            case do.Admit(ticket=ticket, rights=rights, issues=issues):
                self._peers.admit(ticket, rights, issues=issues)
            case do.Refuse(ticket=ticket, code=refused, is_silent=is_silent):
                self._peers.refuse(ticket, refused, is_silent=is_silent)
            case do.KeepRoster(entries=entries):
                if not self._config.client:
                    self._start.files.keep_roster(entries)
            case do.KeepTrust(tokens=tokens, revocations=revocations):
                if not self._config.client:
                    self._start.files.keep_trust(kept_trust(tokens, revocations))
            case do.KeepOrders(kept=kept):
                if not self._config.client:
                    self._start.files.keep_orders({**kept_orders(kept), MESH_KEY: self._start.place.mesh})

    # -- what peers give -----------------------------------------------------------------------------

    def _joined(self, credentials: Credentials, welcomed: Welcomed) -> None:
        """Keep what a peer has given on letting this node in."""
        if welcomed.observed is not None:
            self._whereabouts.observed(welcomed.observed)
        if welcomed.certificate is None or credentials.root_public is None:
            return
        old = self._membership
        given = Membership(
            mesh=credentials.mesh, root_public=credentials.root_public, certificate=welcomed.certificate,
            root_key=old.root_key if old is not None else b"", name=old.name if old is not None else "",
            delegation=self._delegation(old, welcomed.certificate),
        )  # fmt: skip
        if not self._config.client:
            try:
                self._start.files.keep_membership(given)
            except StartError as error:  # a full disk must not keep a node out that is let in
                log.warning("the membership was not written down: %s", error.message)
        self._take(given)

    def _delegation(self, old: Membership | None, new: bytes) -> bytes:
        """Return what to issue with from now on, where that is not the new certificate.

        Admins that renew one another would make the chain longer each time, until nobody takes it.
        """
        if old is None:
            return b""
        best = better_delegation((new, old.delegation or old.certificate), self._start.place.mesh, self._unix_s())
        return b"" if best is None or best == new else best

    def _take(self, membership: Membership) -> None:
        """Be known by another certificate from now on."""
        self._membership = membership
        self._peers.credentials = replace(self._peers.credentials, certificate=membership.certificate)
        self._peers.issuer = self._issuer()
        self._post(RightsGranted(rights=self._rights))

    async def _renewals(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL_LOOK_S)
            self.renew()

    def renew(self) -> None:
        """See to a new certificate in time: the founder signs its own, everybody else dials an admin, who gives one."""
        membership, me, now_unix_s = self._membership, self._start.identity, self._unix_s()
        if membership is None:
            return
        if membership.root_key:
            fresh = renewed(self._start.files, Newcomer(identity=me, name=self._config.name), membership, now_unix_s)
            if fresh is not membership:
                self._take(fresh)
        elif _is_due(membership, now_unix_s):
            admin = renewer(self._views.newest.members.values(), self._start.node)
            if admin is not None:
                self._peers.dial(admin.announcement.node, admin.announcement.addresses)

    def _issuer(self) -> Issuer | None:
        """Return who signs certificates here; None where this node may not admit."""
        standing = self._standing()
        return None if standing is None or Rights.ADMIN not in standing.rights else issuer_of(standing)

    def _start_task(self, name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        assert self._tasks is not None  # noqa: S101 - nobody is dialled before the core runs
        return self._tasks.start(name, work)

    @property
    def _rights(self) -> Rights:
        return rights_of(self._membership, self._unix_s())

    def _standing(self) -> Standing | None:
        if self._membership is None:
            return None
        return Standing(
            identity=self._start.identity,
            membership=self._membership,
            rights=self._rights,
            addresses=self._whereabouts.own,
        )


def _is_due(membership: Membership, now_unix_s: float) -> bool:
    """Tell whether to ask for a new certificate; one that has expired is no reason that anybody takes."""
    try:
        return is_renewal_due(certificate_of(membership, now_unix_s), now_unix_s)
    except WireError as error:
        log.warning("this node's certificate is no longer good, join again with a token: %s", error.message)
        return False


def _is_loopback(host: str) -> bool:
    """Tell whether a node that is bound there can be reached from its machine alone."""
    return bool(host) and ipaddress.ip_address(host).is_loopback
