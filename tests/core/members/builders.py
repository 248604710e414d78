"""One node's membership without its models, driven by hand."""

import random
from dataclasses import replace
from typing import TypeVar

from meshllm.core import effects as do
from meshllm.core import events as ev
from meshllm.core.announcement import Address, Announcement, Record, Role
from meshllm.core.effects import Effect
from meshllm.core.ids import ConnectionId, NodeId
from meshllm.core.members.members import MemberEvent, Members
from meshllm.core.members.table import Entry
from meshllm.core.members.times import MemberTimes, wan
from meshllm.core.messages import Message, Push
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.core.standing import MemberState
from meshllm.core.statement import OwnStatement

T = TypeVar("T")


def an_address(name: str, port: int = 4000) -> Address:
    """Return where a node of a test is."""
    return Address(host=f"{name}.test", port=port)


def an_announcement(name: str, incarnation: int = 1, version: int = 0, **changes: object) -> Announcement:
    """Return what a node says of itself."""
    said = Announcement(
        node=NodeId(name), name=name, incarnation=incarnation, version=version, role=Role.WORKER, resources=None,
        rights=OWN_MACHINE, addresses=(an_address(name),),
    )  # fmt: skip
    return replace(said, **changes)


def a_record(name: str, incarnation: int = 1, version: int = 0, **changes: object) -> Record:
    """Return a record of what a node says of itself."""
    return Record(announcement=an_announcement(name, incarnation, version, **changes))


class Party:
    """A node `m` and those around it; time and events come from the test."""

    def __init__(self, *peers: str, me: str = "m", times: MemberTimes | None = None, seed: int = 1) -> None:
        """Be connected to some peers already."""
        self.now_s = 1000.0
        self.own = OwnStatement(an_announcement(me), 5.0)
        self.members = Members(self.own, random.Random(seed), times or wan(), self.now_s)
        self.effects: list[Effect] = []
        self._connections = 0
        for peer in peers:
            self.connect(peer)
            self.hear(peer, Push(records=(a_record(peer),)))
        self.advance(0.2)
        self.effects.clear()

    def tell(self, event: MemberEvent) -> list[Effect]:
        """Give the node an event; return what it does about it."""
        self.members.advance(self.now_s)
        self.members.handle(event)
        return self._settle()

    def _settle(self) -> list[Effect]:
        effects = self.members.settle()
        self.effects += effects
        return effects

    def connect(self, peer: str, *, is_dialled: bool = False, rtt_s: float = 0.05) -> ConnectionId:
        """Connect a peer; return the connection's id."""
        self._connections += 1
        connection = ConnectionId(self._connections)
        self.tell(ev.PeerConnected(
            peer=NodeId(peer), connection=connection, address=an_address(peer), is_dialled=is_dialled,
            rights=Rights.NONE, rtt_s=rtt_s,
        ))  # fmt: skip
        return connection

    def lose(self, peer: str, code: str = "timeout") -> list[Effect]:
        """Lose the connection to a peer."""
        link = self.members.circle.links[NodeId(peer)]
        return self.tell(ev.PeerLost(peer=NodeId(peer), connection=link.connection, code=code))

    def hear(self, peer: str, message: Message) -> list[Effect]:
        """Hear something from a peer, on the connection that counts."""
        link = self.members.circle.links.get(NodeId(peer))
        connection = link.connection if link is not None else ConnectionId(0)
        return self.tell(ev.MessageReceived(peer=NodeId(peer), connection=connection, message=message))

    def advance(self, for_s: float) -> list[Effect]:
        """Let time pass, with a wake-up at every moment that the node asks for."""
        end_s, effects = self.now_s + for_s, []
        while (due_s := self.members.next_s()) is not None and due_s <= end_s:
            self.now_s = max(due_s, self.now_s)
            self.members.advance(self.now_s)
            effects += self._settle()
        self.now_s = end_s
        self.members.advance(end_s)
        return effects + self._settle()

    def entry(self, name: str) -> Entry:
        """Return what is known of a node."""
        return self.members.table.entries[NodeId(name)]

    def state(self, name: str) -> MemberState:
        """Return what the node thinks of another."""
        return self.entry(name).state

    def said(self, kind: type[T], to: str | None = None) -> list[T]:
        """Return all messages of a kind that were sent, to one peer or to anybody."""
        sent = [effect for effect in self.effects if isinstance(effect, do.Send)]
        return [one.message for one in sent if isinstance(one.message, kind) and to in (None, one.peer)]

    def done(self, kind: type[T]) -> list[T]:
        """Return all effects of a kind."""
        return [effect for effect in self.effects if isinstance(effect, kind)]
