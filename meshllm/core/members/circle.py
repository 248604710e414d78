"""What the parts of membership share: the table, the connections, the timers, chance, and the outbox.

Owns the connections of this node as facts, and the patience that they and the own event loop's lag
call for. Decides nothing else. Every handler runs between `begin` and `take`; effects are collected in
between, in order.
"""

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from meshllm.core.announcement import Address
from meshllm.core.effects import Effect, Level, Notify, Send
from meshllm.core.ids import ConnectionId, NodeId, short
from meshllm.core.limits import (
    FULL_MESH_MEMBERS,
    LAG_ACCUSES_S,
    LAG_REMEMBERED_S,
    LAG_STRETCH,
    LAG_UNIT_S,
    LAN_RTT_LEAVE_S,
    LAN_RTT_S,
)
from meshllm.core.members.table import Table
from meshllm.core.members.times import MemberTimes, lan, wan
from meshllm.core.messages import Message
from meshllm.core.rights import Rights
from meshllm.core.statement import OwnStatement
from meshllm.core.timers import Timers

Key = tuple[str, str]
"""A timer's key: what it is for, and the node that it concerns, or nothing."""


@dataclass(slots=True, kw_only=True)
class Link:
    """The connection to a peer that counts; a double one is closed at once and never appears here."""

    connection: ConnectionId
    is_dialled: bool
    since_s: float
    rtt_s: float
    address: Address
    rights: Rights


class Circle:
    """The shared state of membership."""

    def __init__(self, own: OwnStatement, rng: random.Random, times: MemberTimes | None) -> None:
        """Be alone. Without `times`, patience follows the round trips that are measured."""
        self.own = own
        self.me = own.announcement.node
        self.rng = rng
        self.table = Table(own.record)
        self.timers: Timers[Key] = Timers()
        self.links: dict[NodeId, Link] = {}
        self.linked: tuple[NodeId, ...] = ()
        """The peers with a connection, in order."""
        self.revoked: frozenset[NodeId] = frozenset()
        self.is_leaving = False
        self.now_s = 0.0
        self.times = times or wan()
        self._is_given = times is not None
        self._effects: list[Effect] = []
        self._lag_s = 0.0
        self._lag_until_s = float("-inf")

    # -- effects -----------------------------------------------------------------------------------

    def take(self) -> list[Effect]:
        """Return the effects so far and forget them."""
        effects, self._effects = self._effects, []
        return effects

    def do(self, effect: Effect) -> None:
        """Ask for an effect."""
        self._effects.append(effect)

    def send(self, peer: NodeId, message: Message) -> None:
        """Say something to a peer, if there is a connection to it."""
        if peer in self.links:
            self._effects.append(Send(peer=peer, message=message))

    def tell(self, peers: Iterable[NodeId], message: Message) -> None:
        """Say the same to several peers."""
        for peer in peers:
            self.send(peer, message)

    def notify(self, level: Level, message: str, node: NodeId, **fields: str | float) -> None:
        """Write a line about a node to the log."""
        said = (("node", short(node)), *fields.items())
        self._effects.append(Notify(level=level, message=message, fields=said))

    # -- chance ------------------------------------------------------------------------------------

    def jitter(self, duration_s: float) -> float:
        """Return a duration, 10 % longer or shorter."""
        return duration_s * (0.9 + 0.2 * self.rng.random())

    def pick(self, count: int, without: Collection[NodeId] = ()) -> list[NodeId]:
        """Return up to `count` connected live members, by chance."""
        entries = self.table.entries
        able = [
            peer for peer in self.linked
            if peer not in without and (entry := entries.get(peer)) is not None and entry.is_live
        ]  # fmt: skip
        return able if len(able) <= count else self.rng.sample(able, count)

    # -- connections -------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Tell whether the mesh is small enough for everybody to be connected to everybody."""
        return self.table.live_count <= FULL_MESH_MEMBERS

    def link(self, peer: NodeId, link: Link) -> None:
        """Take note of the connection to a peer."""
        self.links[peer] = link
        self.linked = tuple(sorted(self.links))
        self.table.changed.add(peer)
        self._choose_times()

    def unlink(self, peer: NodeId) -> None:
        """Take note that there is no connection to a peer any more."""
        if self.links.pop(peer, None) is not None:
            self.linked = tuple(sorted(self.links))
            self.table.changed.add(peer)
            self._choose_times()

    def measured(self, peer: NodeId, rtt_s: float) -> None:
        """Take a round trip. Small changes are no news."""
        link = self.links.get(peer)
        if link is not None and abs(rtt_s - link.rtt_s) > 0.25 * max(rtt_s, link.rtt_s) and rtt_s >= 0:
            link.rtt_s = rtt_s
            self.table.changed.add(peer)
            self._choose_times()

    def _choose_times(self) -> None:
        """One slow connection makes this node patient with everybody."""
        if self._is_given:
            return
        is_lan = self.times.probe_interval_s < wan().probe_interval_s
        bound_s = LAN_RTT_LEAVE_S if is_lan else LAN_RTT_S
        wants_lan = bool(self.links) and all(link.rtt_s < bound_s for link in self.links.values())
        if wants_lan != is_lan:
            self.times = lan() if wants_lan else wan()

    # -- patience ----------------------------------------------------------------------------------

    def lagged(self, lag_s: float) -> None:
        """Take note of how late the own event loop is."""
        if lag_s >= self._lag_s or self.now_s >= self._lag_until_s:
            self._lag_s = lag_s
            self._lag_until_s = self.now_s + LAG_REMEMBERED_S

    @property
    def stretch(self) -> float:
        """Return by how much the own lag lengthens timeouts, at least 1."""
        return min(LAG_STRETCH, 1 + self._lag_s / LAG_UNIT_S) if self.now_s < self._lag_until_s else 1.0

    @property
    def may_accuse(self) -> bool:
        """Tell whether this node's own verdicts are worth anything."""
        return self.now_s >= self._lag_until_s or self._lag_s <= LAG_ACCUSES_S
