"""Whom to stay connected to, and when to dial whom again.

Owns the addresses of nodes, the dials, and the rule for two connections to the same peer. Decides: all
members of a small mesh, a random few of a large one, always some of its own choice; how long to wait
before dialling again. Doesn't know what is said over connections, nor who lives.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from meshllm.core import events as ev
from meshllm.core.announcement import Address
from meshllm.core.effects import Dial, Disconnect, Level
from meshllm.core.ids import ConnectionId, NodeId
from meshllm.core.limits import (
    ADDRESSES_PER_NODE,
    CONNECTION_TIE_S,
    CONTACTS,
    DIAL_ANSWER_S,
    DIALS_AT_ONCE,
    REDIAL_FAST_S,
    REDIAL_STEADY_S,
)
from meshllm.core.members.circle import Circle, Link
from meshllm.core.standing import MemberState

REPLACED, SPARE, SELF, REVOKED = "replaced", "spare", "self", "revoked"
"""Codes of connections that this node ends; none says anything of the peer's life."""
ON_PURPOSE = frozenset({REPLACED, SPARE, SELF, REVOKED})
_HOPELESS = frozenset({"rejected", "version_mismatch", "wrong_identity"})
"""Failures that the next minute will not mend."""
_HOPELESS_TIMES = 10
_BALANCE_S = 0.1
_URGENT_S = 1.0
_PER_FAILING_S = 0.25
_BUSY_S = 0.2
_SLACK = 2
_LEAST_PAUSE_S = 0.2


@dataclass(slots=True, kw_only=True)
class Contact:
    """How to reach a node."""

    node: NodeId
    addresses: tuple[Address, ...] = ()
    is_given: bool = False
    """From a token, the roster, a flag or the local network: dialled even while it is no member."""
    is_dialling: bool = False
    dialled_s: float = float("-inf")
    failing_since_s: float | None = None
    is_hopeless: bool = False
    problem: str = ""
    """Why the last dial failed, in words."""
    wanted_until_s: float = float("-inf")
    urgent_until_s: float = float("-inf")


class Connections:
    """Dials, and which connection counts."""

    def __init__(self, circle: Circle) -> None:
        """Know of nobody."""
        self._circle = circle
        self.contacts: dict[NodeId, Contact] = {}
        self.chosen: set[NodeId] = set()
        """In a large mesh: the members that this node itself picked."""
        self._failing: set[NodeId] = set()
        self.dialling = 0
        """Dials under way."""

    # -- addresses ---------------------------------------------------------------------------------

    def learn(self, node: NodeId, addresses: Iterable[Address], *, is_given: bool = False) -> bool:
        """Remember where a node may be reached, newest word first; tell whether that is news."""
        if node == self._circle.me:
            return False
        contact = self.contacts.get(node)
        if contact is None:
            if len(self.contacts) >= CONTACTS:
                return False
            contact = self.contacts[node] = Contact(node=node)
        contact.is_given = contact.is_given or is_given
        own = self._circle.own.announcement.addresses
        fresh = [address for address in addresses if address not in own]
        known = (*fresh, *(address for address in contact.addresses if address not in fresh))[:ADDRESSES_PER_NODE]
        is_news = set(known) != set(contact.addresses)
        contact.addresses = known
        if is_news:
            contact.is_hopeless = False
        return is_news

    def forget(self, node: NodeId) -> None:
        """Forget how to reach a node."""
        contact = self.contacts.pop(node, None)
        if contact is not None and contact.is_dialling:
            self.dialling -= 1
        self.chosen.discard(node)
        self._failing.discard(node)
        self._circle.timers.cancel(("dial", node))

    # -- dialling ----------------------------------------------------------------------------------

    def dial(self, node: NodeId, delay_s: float = 0.0) -> None:
        """Dial a node soon, unless that is under way or no longer wished for then."""
        contact, key = self.contacts.get(node), ("dial", node)
        if contact is None or contact.is_dialling or not contact.addresses:
            return
        due_s, at_s = self._circle.timers.due_s(key), self._circle.now_s + delay_s
        if due_s is None or at_s < due_s:
            self._circle.timers.set(key, at_s)

    def urge(self, node: NodeId, within_s: float) -> None:
        """Try hard to reach a node, even beside a connection that has gone silent."""
        if (contact := self.contacts.get(node)) is not None:
            contact.urgent_until_s = self._circle.now_s + within_s
            self.dial(node)

    def want(self, node: NodeId, for_s: float) -> None:
        """Connect to a node and stay connected for a while."""
        if (contact := self.contacts.get(node)) is not None:
            contact.wanted_until_s = max(contact.wanted_until_s, self._circle.now_s + for_s)
            if node not in self._circle.links:
                self.dial(node)

    def on_dial_due(self, node: NodeId) -> None:
        """Dial, if it is still wished for and not too many others are being dialled."""
        contact, circle = self.contacts.get(node), self._circle
        if contact is None:
            return
        if contact.is_dialling:
            self.failed(node, "timeout", "the dial was never answered")
        elif self._should_dial(contact):
            if self.dialling >= DIALS_AT_ONCE:
                circle.timers.set(("dial", node), circle.now_s + circle.jitter(_BUSY_S))
                return
            contact.is_dialling, contact.dialled_s = True, circle.now_s
            self.dialling += 1
            circle.do(Dial(peer=node, addresses=contact.addresses))
            circle.timers.set(("dial", node), circle.now_s + DIAL_ANSWER_S)

    def failed(self, node: NodeId, code: str, message: str) -> None:
        """A dial came to nothing: try again later."""
        contact, circle = self.contacts.get(node), self._circle
        if contact is None:
            return
        self._dialled(contact)
        problem = message or code
        if code in _HOPELESS and contact.problem != problem:
            circle.notify(Level.WARNING, "a node does not let this one in", node, reason=problem)
        elif contact.is_given and code != SELF and self._is_first_trouble():
            circle.notify(Level.WARNING, "no other node is reached yet; trying on", node, reason=problem)
        contact.problem = problem
        if code == SELF:
            self.forget(node)
            return
        contact.is_hopeless = code in _HOPELESS
        if node in circle.links:
            return
        self._is_failing(contact)
        if self._should_dial(contact):
            circle.timers.set(("dial", node), circle.now_s + self._pause_s(contact))

    def _is_first_trouble(self) -> bool:
        """Tell whether nobody is connected, and no dial has failed before: said once, not for each of many nodes."""
        return not self._circle.links and not any(contact.problem for contact in self.contacts.values())

    def lost(self, node: NodeId) -> None:
        """A member is gone for this node: look for it now and then."""
        if (contact := self.contacts.get(node)) is not None and node not in self._circle.links:
            self._is_failing(contact)
            self.dial(node, self._pause_s(contact))

    def retry_all(self) -> None:
        """Forget past failures: the world has changed, or this node was asleep."""
        for node in sorted(self._failing):
            self.contacts[node].failing_since_s = self._circle.now_s
            self.dial(node, self._circle.rng.random() * _URGENT_S)

    def on_redial_due(self) -> None:
        """Dial one of those that have been lost for longer, so that a healed network is noticed soon."""
        circle = self._circle
        steady = [
            node for node in sorted(self._failing)
            if not self.contacts[node].is_dialling and (since_s := self.contacts[node].failing_since_s) is not None
            and REDIAL_FAST_S < circle.now_s - since_s < REDIAL_STEADY_S and not self.contacts[node].is_hopeless
        ]  # fmt: skip
        if steady:
            self.dial(circle.rng.choice(steady))
        if self._failing:
            circle.timers.set(("redial", ""), circle.now_s + circle.jitter(circle.times.redial_s))

    def _should_dial(self, contact: Contact) -> bool:
        circle, node = self._circle, contact.node
        if circle.is_leaving or node in circle.revoked or not contact.addresses:
            return False
        if contact.urgent_until_s > circle.now_s:
            return True
        if node in circle.links:
            return False
        entry = circle.table.entries.get(node)
        if entry is None:
            return contact.is_given or contact.wanted_until_s > circle.now_s
        if entry.state is MemberState.LEFT:
            return False
        is_wanted = contact.wanted_until_s > circle.now_s or node in self.chosen
        return is_wanted or circle.is_full or entry.state is MemberState.DEAD

    def _pause_s(self, contact: Contact) -> float:
        circle = self._circle
        if contact.urgent_until_s > circle.now_s:
            return circle.jitter(min(_URGENT_S, circle.times.redial_s))
        failing_s = circle.now_s - contact.failing_since_s if contact.failing_since_s is not None else 0.0
        pause_s = circle.times.redial_s if failing_s < REDIAL_FAST_S else circle.times.redial_slow_s
        if contact.is_hopeless:
            pause_s = circle.times.redial_slow_s * _HOPELESS_TIMES
        pause_s = circle.jitter(max(pause_s, len(self._failing) * _PER_FAILING_S))
        return max(contact.dialled_s + pause_s - circle.now_s, _LEAST_PAUSE_S)

    def _is_failing(self, contact: Contact) -> None:
        if contact.failing_since_s is None:
            contact.failing_since_s = self._circle.now_s
        self._failing.add(contact.node)
        if ("redial", "") not in self._circle.timers:
            self._circle.timers.set(("redial", ""), self._circle.now_s + self._circle.times.redial_s)

    def _dialled(self, contact: Contact) -> None:
        if contact.is_dialling:
            contact.is_dialling = False
            self.dialling -= 1
            self._circle.timers.cancel(("dial", contact.node))

    # -- connections -------------------------------------------------------------------------------

    def connected(self, event: ev.PeerConnected) -> bool:
        """Take a connection; tell whether it is the one that counts from here on."""
        circle, peer = self._circle, event.peer
        link = Link(
            connection=event.connection, is_dialled=event.is_dialled, since_s=circle.now_s, rtt_s=event.rtt_s,
            address=event.address, rights=event.rights,
        )  # fmt: skip
        if event.is_dialled:
            self.learn(peer, (event.address,))
        if (contact := self.contacts.get(peer)) is not None:
            if event.is_dialled:
                self._dialled(contact)
            contact.failing_since_s, contact.problem, contact.is_hopeless = None, "", False
            contact.urgent_until_s = float("-inf")
            self._failing.discard(peer)
        if peer == circle.me or peer in circle.revoked:
            code = SELF if peer == circle.me else REVOKED
            circle.do(Disconnect(peer=peer, connection=event.connection, code=code))
            return False
        old = circle.links.get(peer)
        if old is not None:
            loser = link if self._stays(peer, old, link) else old
            circle.do(Disconnect(peer=peer, connection=loser.connection, code=REPLACED))
            if loser is link:
                return False
        circle.link(peer, link)
        return True

    def _stays(self, peer: NodeId, old: Link, new: Link) -> bool:
        """Tell whether the older connection stays: after a double dial, the one that the smaller id dialled."""
        if old.is_dialled == new.is_dialled or new.since_s - old.since_s > CONNECTION_TIE_S:
            return False  # whoever dials again has lost the old one
        return old.is_dialled == (self._circle.me < peer)

    def disconnected(self, peer: NodeId, connection: ConnectionId, code: str) -> bool:
        """A connection ended; tell whether it was the one that counts."""
        link = self._circle.links.get(peer)
        if link is None or link.connection != connection:
            return False
        self._circle.unlink(peer)
        if code == SPARE:
            self.chosen.discard(peer)  # it has enough: somebody else is picked
        return True

    # -- whom to be connected to -------------------------------------------------------------------

    def rebalance(self) -> None:
        """Look soon whether the right connections are there."""
        if ("balance", "") not in self._circle.timers:
            self._circle.timers.set(("balance", ""), self._circle.now_s + _BALANCE_S)

    def on_balance_due(self) -> None:
        """Dial whoever is missing; end what is too much."""
        circle = self._circle
        live = circle.table.live()
        if circle.is_full:
            self.chosen.clear()
            wished = live
        else:
            self._choose(live)
            wished = sorted(self.chosen)
            self._prune()
        for node in wished:
            if node not in circle.links:
                # Of two that learn of each other at once, the smaller id dials first.
                self.dial(node, 0.0 if circle.me < node else circle.jitter(_URGENT_S))

    def _choose(self, live: list[NodeId]) -> None:
        self.chosen &= set(live)
        missing = self._degree() - len(self.chosen)
        if missing > 0:
            able = [node for node in live if node not in self.chosen and node in self.contacts]
            self.chosen |= set(self._circle.rng.sample(able, min(missing, len(able))))

    def _degree(self) -> int:
        """Return how many members to pick; as many again pick this node, which makes 4·log2 n."""
        return math.ceil(2 * math.log2(self._circle.table.live_count))

    def _prune(self) -> None:
        circle, degree = self._circle, self._degree()
        over_s = circle.now_s - CONNECTION_TIE_S
        spare = [
            (link.is_dialled, link.since_s, peer) for peer, link in sorted(circle.links.items())
            if peer not in self.chosen and link.since_s < over_s and not self._is_wanted(peer)
        ]  # fmt: skip
        total = len(circle.links)
        for is_dialled, _, peer in sorted(spare, key=lambda item: (not item[0], item[1], item[2])):
            if total <= (2 * degree + _SLACK if is_dialled else 4 * degree):
                continue
            circle.do(Disconnect(peer=peer, connection=circle.links[peer].connection, code=SPARE))
            circle.unlink(peer)
            total -= 1

    def _is_wanted(self, peer: NodeId) -> bool:
        contact = self.contacts.get(peer)
        return contact is not None and contact.wanted_until_s > self._circle.now_s

    def stray(self) -> NodeId | None:
        """Return some live member without a connection that could be dialled."""
        circle = self._circle
        able = [node for node in circle.table.live() if node not in circle.links and node in self.contacts]
        return circle.rng.choice(able) if able else None

    def roster(self) -> tuple[tuple[NodeId, tuple[Address, ...]], ...]:
        """Return who is worth dialling after a restart, and where."""
        entries, revoked = self._circle.table.entries, self._circle.revoked
        return tuple(
            (node, contact.addresses) for node, contact in sorted(self.contacts.items())
            if contact.addresses and node not in revoked
            and ((entry := entries.get(node)) is None or entry.state is not MemberState.LEFT)
        )  # fmt: skip
