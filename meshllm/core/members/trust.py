"""Whom this node lets in, and what admins tell one another about that: tokens and expelled nodes.

Owns the book of tokens, the list of revocations, and who of the connected may see what. Decides every admission, and
what to tell which peer. Doesn't know how members live: `core.mesh` hands `revoked` on to membership, which ends their
connections.

Two nodes that meet compare one hash of each list, and send all they know where it differs; changes are sent to all at
once. Of two connections between the same nodes one ends, and with it what was on its way there: it is said again then.
Lists are merged so that neither the order of messages nor a repetition matters.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from meshllm.core import events as ev
from meshllm.core.announcement import Address
from meshllm.core.credentials import RejectCode, Revocation, TokenRecord
from meshllm.core.effects import Admit, Effect, KeepTrust, Level, Notify, Refuse, Send
from meshllm.core.ids import ConnectionId, NodeId, short
from meshllm.core.limits import (
    FALLEN_MEMBERS,
    REVOCATIONS,
    REVOCATIONS_BATCH,
    TRUST_ANSWER_INTERVAL_S,
)
from meshllm.core.members.admission import Failures, judge
from meshllm.core.members.tokens import TokenBook
from meshllm.core.messages import Message, Revocations, Tokens, TrustDigest
from meshllm.core.rights import Rights, rights_names

TrustEvent = (
    ev.AdmissionAsked | ev.HandshakeFailed | ev.TokenMade | ev.TokenRevoked | ev.TokensRotated | ev.NodeRevoked
    | ev.PeerConnected | ev.PeerLost | ev.MessageReceived
)  # fmt: skip
"""What `Trust.handle` wants to see. Of messages it takes those about trust and leaves the others alone."""

TrustMessage = TrustDigest | Revocations | Tokens
"""What `Trust` takes of messages."""

_HARMLESS = frozenset({RejectCode.SELF, RejectCode.VERSION_MISMATCH})
"""Failures that no attacker has anything from."""


@dataclass(slots=True)
class _Peer:
    """A connected peer, as far as trust goes."""

    rights: Rights
    issuers: tuple[NodeId, ...]
    connections: list[ConnectionId] = field(default_factory=list)
    """The newest last: what is said goes there."""
    told: set[ConnectionId] = field(default_factory=set)
    """Those on which more than a hash was said."""
    answered_s: float | None = None
    """When it was last sent all that is known."""


class Trust:
    """Tokens, revocations, admissions."""

    def __init__(
        self, me: NodeId, rights: Rights, tokens: Iterable[TokenRecord] = (), revocations: Iterable[Revocation] = ()
    ) -> None:
        """Begin with what was written down."""
        self.rights = rights
        """This node's own; changes when it joins or is given a new certificate."""
        self._me = me
        self._book = TokenBook(tokens)
        self._revocations = {entry.node: entry for entry in revocations}
        self._fallen: dict[NodeId, None] = {}
        """Admitted by nodes that were expelled; the newest last."""
        self._peers: dict[NodeId, _Peer] = {}
        self._failures = Failures()

    @property
    def revoked(self) -> frozenset[NodeId]:
        """Return the nodes that were expelled, and those known to have been admitted by one of them."""
        return frozenset(self._revocations) | frozenset(self._fallen)

    @property
    def revocations(self) -> tuple[Revocation, ...]:
        """Return why and by whom nodes were expelled, by node."""
        return tuple(entry for _, entry in sorted(self._revocations.items()))

    @property
    def tokens(self) -> tuple[TokenRecord, ...]:
        """Return the tokens that admins know of. Whoever shows them leaves their hashes out."""
        return self._book.records

    def handle(self, event: TrustEvent, now_s: float) -> list[Effect]:
        """Take one event and return what is to be done about it."""
        effects = self._taken(event, now_s)
        for effect in effects:
            if isinstance(effect, Send) and not isinstance(effect.message, TrustDigest):
                peer = self._peers[effect.peer]
                peer.told.add(peer.connections[-1])
        return effects

    def _taken(self, event: TrustEvent, now_s: float) -> list[Effect]:  # noqa: PLR0911 - one line for each event
        match event:
            case ev.AdmissionAsked():
                return self._on_asked(event, now_s)
            case ev.HandshakeFailed():
                return self._on_failed(event, now_s)
            case ev.TokenMade():
                return self._on_token_made(event.record)
            case ev.TokenRevoked():
                return self._tokens_changed([self._book.revoke(event.token)], to_say="a token was revoked")
            case ev.TokensRotated():
                return self._tokens_changed(self._book.revoke_all(), to_say="all tokens were revoked")
            case ev.NodeRevoked():
                self._forget_old(event.now_unix_s)
                return self._expelled([event.revocation], source=None)
            case ev.PeerConnected():
                return self._on_connected(event)
            case ev.PeerLost():
                return self._on_lost(event)
            case ev.MessageReceived():
                return self._on_message(event.peer, event.message, now_s)
            case _:
                assert_never(event)

    # -- admission -------------------------------------------------------------------------------------

    def _on_asked(self, event: ev.AdmissionAsked, now_s: float) -> list[Effect]:
        claim, now_unix_s = event.claim, event.now_unix_s
        if claim.certificate is None and self._failures.is_silent(event.address, now_s):
            self._failures.note(event.address, now_s)
            return [
                Refuse(ticket=event.ticket, code=RejectCode.UNAUTHORIZED, reason="too_many_failures", is_silent=True)
            ]
        verdict = judge(claim, mine=self.rights, book=self._book, revoked=self._revocations, now_unix_s=now_unix_s)
        if isinstance(verdict, str):
            failed = self._failed(event.address, now_s, claim.node, verdict)
            return [Refuse(ticket=event.ticket, code=RejectCode.UNAUTHORIZED, reason=verdict), *failed]
        self._fallen.pop(claim.node, None)
        admitted: list[Effect] = [Admit(ticket=event.ticket, rights=verdict.rights, issues=verdict.issues)]
        if verdict.uses is None:
            return admitted
        joined = _notice(Level.INFO, "a node joins with a token", node=short(claim.node), token=verdict.uses,
                         rights=",".join(rights_names(verdict.rights)))  # fmt: skip
        return [*admitted, joined, *self._tokens_changed([self._book.use(verdict.uses, claim.node)])]

    def _on_failed(self, event: ev.HandshakeFailed, now_s: float) -> list[Effect]:
        is_silent = self._failures.is_silent(event.address, now_s)
        refusal = Refuse(ticket=event.ticket, code=event.code, reason=event.reason, is_silent=is_silent)
        if event.code in _HARMLESS:
            return [refusal]
        if is_silent:
            self._failures.note(event.address, now_s)
            return [refusal]
        return [refusal, *self._failed(event.address, now_s, None, event.reason)]

    def _failed(self, address: Address, now_s: float, node: NodeId | None, reason: str) -> list[Effect]:
        """Return what the log is told of a failure, and count it."""
        who = "" if node is None else short(node)
        said: list[Effect] = [
            _notice(Level.WARNING, "a node was not let in", node=who, address=str(address), reason=reason)
        ]
        if self._failures.note(address, now_s):
            said.append(_notice(Level.WARNING, "too many failures: no answers for a while", address=str(address)))
        return said

    # -- tokens ----------------------------------------------------------------------------------------

    def _tokens_changed(
        self, records: Iterable[TokenRecord | None], *, to_say: str = "", source: NodeId | None = None
    ) -> list[Effect]:
        """Keep what changed and tell the other admins, one message for each token: some have many users."""
        changed = [record for record in records if record is not None]
        if not changed:
            return []
        effects: list[Effect] = [self._keep()]
        if to_say:
            effects.insert(0, _notice(Level.INFO, to_say, tokens=",".join(record.token_id for record in changed)))
        for peer in self._admins(without=source):
            effects += [Send(peer=peer, message=Tokens(records=(record,))) for record in changed]
        return effects

    def _on_token_made(self, record: TokenRecord) -> list[Effect]:
        made = self._book.merge(record, self.rights)
        if made is None:
            return [
                _notice(Level.WARNING, "too many tokens are valid for longer: none was made", token=record.token_id)
            ]
        return self._tokens_changed([made], to_say="a token was made")

    def _admins(self, without: NodeId | None = None) -> list[NodeId]:
        """Return the connected peers that may know tokens: none unless this node may, too."""
        return [peer for peer in sorted(self._peers) if peer != without and self._shares_tokens(self._peers[peer])]

    def _shares_tokens(self, peer: _Peer) -> bool:
        return Rights.ADMIN in self.rights and Rights.ADMIN in peer.rights

    # -- expelled nodes --------------------------------------------------------------------------------

    def _expelled(self, entries: Iterable[Revocation], *, source: NodeId | None) -> list[Effect]:
        """Learn who was expelled, and tell everybody else what is news."""
        news = [entry for entry in entries if self._learn(entry)]
        if not news:
            return []
        effects: list[Effect] = [self._keep()]
        for entry in news:
            reason, by = entry.reason, short(entry.by) if entry.by is not None else "root"
            if entry.node == self._me:
                effects.append(_notice(Level.ERROR, "this node was expelled from the mesh", by=by, reason=reason))
            else:
                effects.append(
                    _notice(Level.WARNING, "a node was expelled", node=short(entry.node), by=by, reason=reason)
                )
            effects += self._tokens_changed(self._book.revoke_used_by(entry.node), to_say="its token was revoked, too")
        for peer in sorted(self._peers):
            if peer != source:
                effects += _batches(peer, news)
        return effects

    def _learn(self, entry: Revocation) -> bool:
        """Take in one revocation; tell whether it is news. Of two for one node all keep the same one."""
        known = self._revocations.get(entry.node)
        if known is not None and _rank(known) >= _rank(entry):
            return False
        self._revocations[entry.node] = entry
        if len(self._revocations) > REVOCATIONS:
            del self._revocations[min(self._revocations.values(), key=_rank).node]
        for node, peer in self._peers.items():
            self._check_issuers(node, peer.issuers)
        return entry.node in self._revocations

    def _check_issuers(self, node: NodeId, issuers: tuple[NodeId, ...]) -> bool:
        """Note whether a node was admitted by one that was expelled; tell so."""
        self._fallen.pop(node, None)
        if not any(issuer in self._revocations for issuer in issuers):
            return False
        self._fallen[node] = None
        if len(self._fallen) > FALLEN_MEMBERS:
            del self._fallen[next(iter(self._fallen))]
        return True

    def _forget_old(self, now_unix_s: float) -> None:
        """Drop revocations of nodes that have nothing valid any more."""
        self._revocations = {
            node: entry for node, entry in self._revocations.items() if entry.until_unix_s > now_unix_s
        }

    # -- peers -----------------------------------------------------------------------------------------

    def _on_connected(self, event: ev.PeerConnected) -> list[Effect]:
        peer = self._peers.setdefault(event.peer, _Peer(event.rights, event.issuers))
        peer.rights, peer.issuers, peer.answered_s = event.rights, event.issuers, None
        peer.connections.append(event.connection)
        if self._check_issuers(event.peer, event.issuers) or event.peer in self._revocations:
            return []
        return [Send(peer=event.peer, message=self._digest(peer))]

    def _on_lost(self, event: ev.PeerLost) -> list[Effect]:
        peer = self._peers.get(event.peer)
        if peer is None or event.connection not in peer.connections:
            return []
        peer.connections.remove(event.connection)
        if not peer.connections:
            del self._peers[event.peer]
        elif event.connection in peer.told and event.peer not in self.revoked:
            # It may be lost, and nobody would ask for it. The hash went out on the connection that stays as well.
            peer.told.discard(event.connection)
            return self._all_known(event.peer, peer)
        return []

    def _on_message(self, sender: NodeId, message: Message, now_s: float) -> list[Effect]:
        peer = self._peers.get(sender)
        if peer is None or sender in self.revoked:
            return []
        match message:
            case TrustDigest():
                return self._answer(sender, peer, message, now_s)
            case Revocations():
                return self._expelled(message.entries, source=sender)
            case Tokens() if self._shares_tokens(peer):
                merged = [self._book.merge(record, peer.rights) for record in message.records]
                return self._tokens_changed(merged, source=sender)
            case _:
                return []

    def _digest(self, peer: _Peer) -> TrustDigest:
        tokens = self._book.digest() if self._shares_tokens(peer) else b""
        state = hashlib.sha256()
        for entry in self.revocations:
            state.update(f"{entry.node} {entry.until_unix_s} ".encode() + hashlib.sha256(entry.sealed).digest())
        return TrustDigest(revocations=state.digest(), tokens=tokens)

    def _answer(self, sender: NodeId, peer: _Peer, theirs: TrustDigest, now_s: float) -> list[Effect]:
        """Send all that is known where a peer knows something else; it does the same with our digest."""
        if peer.answered_s is not None and now_s - peer.answered_s < TRUST_ANSWER_INTERVAL_S:
            return []
        mine = self._digest(peer)
        peer.answered_s = now_s
        are_tokens_other = bool(theirs.tokens) and theirs.tokens != mine.tokens
        return self._all_known(
            sender, peer, revocations=theirs.revocations != mine.revocations, tokens=are_tokens_other
        )

    def _all_known(self, to: NodeId, peer: _Peer, *, revocations: bool = True, tokens: bool = True) -> list[Effect]:
        effects = _batches(to, self.revocations) if revocations else []
        if tokens and self._shares_tokens(peer):
            effects += [Send(peer=to, message=Tokens(records=(record,))) for record in self._book.records]
        return effects

    def _keep(self) -> KeepTrust:
        return KeepTrust(tokens=self._book.records, revocations=self.revocations)


def _batches(peer: NodeId, entries: Sequence[Revocation]) -> list[Effect]:
    return [
        Send(peer=peer, message=Revocations(entries=tuple(entries[start : start + REVOCATIONS_BATCH])))
        for start in range(0, len(entries), REVOCATIONS_BATCH)
    ]


def _rank(entry: Revocation) -> tuple[float, bytes]:
    return entry.until_unix_s, entry.sealed


def _notice(level: Level, message: str, **fields: str) -> Notify:
    return Notify(level=level, message=message, fields=tuple(fields.items()))
