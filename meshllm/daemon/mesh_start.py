"""What a node knows of itself and its mesh before anything runs: read from its folder, or made there.

Owns the order in which identity, membership, trust and incarnation are read, and turning them into what the
core and the transport are told. Decides nothing: `joining` does. Doesn't open sockets.
"""

import logging
import time
from dataclasses import dataclass, replace

from meshllm.config import Config
from meshllm.core.credentials import CertificateFacts, Revocation, TokenRecord
from meshllm.core.effects import KeptOrders
from meshllm.core.ids import MeshId, NodeId
from meshllm.core.mesh import CoreConfig
from meshllm.core.rights import Rights
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.serving.order_book import NOTHING_KEPT
from meshllm.daemon.identity import own_identity
from meshllm.daemon.joining import Newcomer, Place, place_of
from meshllm.daemon.mesh_files import Membership, MeshFiles
from meshllm.daemon.places import named, policies, requested_names
from meshllm.daemon.state_dir import StateDir
from meshllm.daemon.wishes import engine_wishes
from meshllm.discovery.bootstrap import Contact, first_contacts
from meshllm.transport.certificates import open_revocation, read_certificate
from meshllm.transport.handshake import Credentials
from meshllm.transport.identity import Identity
from meshllm.wire.errors import WireError
from meshllm.wire.orders import read_orders
from meshllm.wire.trust import read_trust

log = logging.getLogger(__name__)

MB = 1_000_000
MESH_KEY = "mesh"
"""Of the file of orders: which mesh they are of."""
CLIENT_INCARNATION = 1
"""A client's identity is new, so it was never here before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshStart:
    """A node at its start."""

    identity: Identity
    files: MeshFiles
    place: Place
    incarnation: int
    tokens: tuple[TokenRecord, ...]
    revocations: tuple[Revocation, ...]
    contacts: tuple[Contact, ...]
    """Whom to dial first."""
    kept: KeptOrders = NOTHING_KEPT
    """What was ordered in earlier runs."""

    @property
    def node(self) -> NodeId:
        """Return this node's id."""
        return self.identity.node

    @property
    def rights(self) -> Rights:
        """Return what this node may do now; nothing before it was let in."""
        return rights_of(self.place.membership, time.time())

    @property
    def credentials(self) -> Credentials:
        """Return what this node shows to its peers."""
        membership, tokens = self.place.membership, self.place.tokens
        shown = Credentials(
            identity=self.identity, mesh=self.place.mesh,
            root_public=membership.root_public if membership is not None else None,
            certificate=membership.certificate if membership is not None else None,
        )  # fmt: skip
        return replace(shown, token=tokens[0]) if tokens else shown


def begin(config: Config, state: StateDir) -> MeshStart:
    """Read or make what a node needs to be somebody in a mesh. Raises StartError."""
    files = MeshFiles(state.path)
    identity = own_identity(files, is_client=config.client)
    me = Newcomer(
        identity=identity, name=config.name, mesh_name=config.mesh_name, is_client=config.client,
        must_join=config.require_join,
    )  # fmt: skip
    place = place_of(files, me, config.join, time.time())
    tokens, revocations = _kept_trust(files, place)
    return MeshStart(
        identity=identity, files=files, place=place, tokens=tokens, revocations=revocations,
        incarnation=CLIENT_INCARNATION if config.client else files.next_incarnation(),
        contacts=first_contacts(identity.node, place.contacts, () if config.client else files.roster()),
        kept=_kept_orders(files, place.mesh),
    )  # fmt: skip


def core_config(config: Config, start: MeshStart) -> CoreConfig:
    """Return what the core is told."""
    fills_gaps = not config.client and config.assign != "off"
    is_told = bool(config.models) or config.assign == "disk"
    serving = ServingPolicy(
        requested=() if config.client else requested_names(config), wishes=engine_wishes(config),
        min_unasked_bytes=config.min_model_mb * MB, drain_s=config.drain_s, models=policies(config),
        default_model=named(config.default_model), fills_gaps=fills_gaps,
        downloads=fills_gaps and not is_told and not config.offline,
        serves_all=config.serve_all and not config.client, is_controllable=not config.no_remote_control,
        remotes=() if config.client else config.remotes, forces_splits=config.split, caches=config.caches,
    )  # fmt: skip
    membership = start.place.membership
    return CoreConfig(
        node=start.node, name=config.name, serving=serving, incarnation=start.incarnation, rights=start.rights,
        lends=not config.no_rpc,
        mesh=start.place.mesh, tokens=start.tokens, revocations=start.revocations, is_client=config.client,
        kept=start.kept, routing=config.routing, quotas=config.quotas,
        unknown_model=config.unknown_model, is_founder=membership is not None and bool(membership.root_key),
        is_joining=bool(start.contacts or config.peers),
    )  # fmt: skip


def rights_of(membership: Membership | None, now_unix_s: float) -> Rights:
    """Return what a membership lets its node do; nothing without one, or when it is no longer good."""
    if membership is None:
        return Rights.NONE
    try:
        return certificate_of(membership, now_unix_s).rights
    except WireError:
        return Rights.NONE


def certificate_of(membership: Membership, now_unix_s: float) -> CertificateFacts:
    """Return what a membership's certificate says. Raises WireError when it is no longer good."""
    return read_certificate(membership.certificate, membership.mesh, now_unix_s)


def _kept_orders(files: MeshFiles, mesh: MeshId) -> KeptOrders:
    """Return the orders of the last run; none when they cannot be read: a node serves without them.

    What was said to another mesh, which this node has left since, is not said to this one.
    """
    document = files.orders()
    try:
        kept = read_orders(document)
        if document.get(MESH_KEY, mesh) == mesh:
            return kept
        return replace(kept, orders=(), default=None, routing=None, quotas=(), clock=0)
    except WireError as error:
        log.warning("orders of the last run cannot be read: %s", error.message)
        return NOTHING_KEPT


def _kept_trust(files: MeshFiles, place: Place) -> tuple[tuple[TokenRecord, ...], tuple[Revocation, ...]]:
    """Return the tokens and revocations of the last run; none when they cannot be read."""
    document = files.trust()
    if not document:
        return (), ()
    try:
        return read_trust(document, lambda sealed: open_revocation(sealed, place.mesh))
    except WireError as error:
        log.warning("tokens and revocations of the last run cannot be read: %s", error.message)
        return (), ()
