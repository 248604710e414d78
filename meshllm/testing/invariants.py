"""What must hold in every simulated mesh, whatever happens to it.

Owns the checks, numbered as in the design: I1 to I3, I7 to I10; I4 to I6 are about requests and belong
to the parts that have them. Decides nothing. `Watch` looks at every event, the functions at a quiet mesh.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshllm.core import effects as do
from meshllm.core import events as ev
from meshllm.core.effects import Effect
from meshllm.core.events import Event
from meshllm.core.ids import NodeId
from meshllm.core.messages import Ping, PingRequest
from meshllm.core.serving.election import elect
from meshllm.core.standing import LIVE, MemberState
from meshllm.core.view import MeshView
from meshllm.testing.sim import SimMesh, SimNode

NEVER = float("-inf")


class InvariantError(AssertionError):
    """Something that must not happen has happened."""


@dataclass(slots=True)
class _Asked:
    """What one node has done to reach another, and what came of it."""

    directly_s: float = NEVER
    through_others_s: float = NEVER
    heard_s: float = NEVER
    alone_s: float = NEVER
    """When there was last nobody to ask."""


@dataclass(slots=True)
class Counts:
    """What a run had of things that are allowed, but should be rare."""

    deaths: int = 0
    false_deaths: int = 0
    """Verdicts on nodes that ran and could be reached."""
    suspicions: int = 0
    false_suspicions: int = 0
    refutations: int = 0
    detections_s: list[float] = field(default_factory=list)
    """From a crash to each verdict."""


class Watch:
    """Looks at every event of a mesh; raises InvariantError at the first wrong one."""

    def __init__(self, mesh: SimMesh, patience_s: float = 30.0) -> None:
        """Begin to watch. A probe older than `patience_s` is no evidence any more."""
        self._mesh = mesh
        self._patience_s = patience_s
        self._asked: dict[tuple[NodeId, NodeId], _Asked] = {}
        self._views: dict[NodeId, tuple[int, MeshView]] = {}
        self._gone_s: dict[NodeId, float] = {}
        self.counts = Counts()
        mesh.observers.append(self)

    def gone(self, name: str) -> None:
        """Take note that a node has just ended without a word."""
        self._gone_s[NodeId(name)] = self._mesh.now_s

    def here(self, name: str) -> None:
        """Take note that a node is back."""
        self._gone_s.pop(NodeId(name), None)

    def __call__(self, node: SimNode, event: Event, effects: tuple[Effect, ...]) -> None:
        """Take one step of one node."""
        now_s = self._mesh.now_s
        if isinstance(event, ev.MessageReceived | ev.PeerConnected):
            self._of(node, event.peer).heard_s = now_s
        for effect in effects:
            if isinstance(effect, do.Dial):
                self._of(node, effect.peer).directly_s = now_s
            elif isinstance(effect, do.Send):
                if isinstance(effect.message, Ping):
                    self._of(node, effect.peer).directly_s = now_s
                elif isinstance(effect.message, PingRequest):
                    self._of(node, effect.message.target).through_others_s = now_s
        view = node.core.view
        life, last = self._views.get(node.node, (node.life, None))
        if life != node.life:
            last = None
        if view is not last:
            self._views[node.node] = (node.life, view)
            self._compare(node, last, view)

    def _of(self, node: SimNode, other: NodeId) -> _Asked:
        asked = self._asked.get((node.node, other))
        if asked is None:
            asked = self._asked[node.node, other] = _Asked()
        return asked

    def _compare(self, node: SimNode, last: MeshView | None, view: MeshView) -> None:
        if last is not None and view.epoch <= last.epoch:
            raise InvariantError(f"{node.node}: epoch {view.epoch} after {last.epoch}")
        if last is not None and view.me.incarnation > last.me.incarnation:
            self.counts.refutations += 1
        _routes_are_announced(node)
        for other, member in view.members.items():
            before = last.members.get(other) if last is not None else None
            if member is before or other == node.node:
                continue
            if member.state is not (before.state if before is not None else None):
                self._changed(node, other, before.state if before is not None else None, member.state)

    def _changed(self, node: SimNode, other: NodeId, before: MemberState | None, state: MemberState) -> None:
        is_true = not self._mesh.hears(other)
        if state is MemberState.SUSPECT:
            self.counts.suspicions += 1
            self.counts.false_suspicions += not is_true
        if state is MemberState.DEAD and before in LIVE:
            self.counts.deaths += 1
            self.counts.false_deaths += not is_true
            if other in self._gone_s:
                self.counts.detections_s.append(self._mesh.now_s - self._gone_s[other])
            self._was_asked(node, other)

    def _was_asked(self, node: SimNode, other: NodeId) -> None:
        """I2: no verdict without a probe of one's own, directly and through others, that failed."""
        asked, now_s = self._of(node, other), self._mesh.now_s
        since_s = now_s - self._patience_s
        members = node.core.view.members
        had_others = any(one.connected and one.state in LIVE for peer, one in members.items() if peer != other)
        can_ask = had_others or asked.directly_s > NEVER
        if not since_s <= max(asked.directly_s, asked.through_others_s) or not can_ask:
            raise InvariantError(f"I2: {node.node} buried {other} without asking it")
        if had_others and asked.through_others_s < since_s:
            raise InvariantError(f"I2: {node.node} buried {other} without asking others")
        if asked.heard_s > max(asked.directly_s, asked.through_others_s):
            raise InvariantError(f"I2: {node.node} buried {other}, which had answered")


def _routes_are_announced(node: SimNode) -> None:
    """I1: what is routed to is what its owner announces, in the newest statement known here."""
    view = node.core.view
    for model, replicas in view.replicas.items():
        for replica in replicas:
            member = view.members.get(replica.node)
            if member is None or member.state not in LIVE or replica.served not in member.announcement.serving:
                raise InvariantError(f"I1: {node.node} routes {model} to {replica.node}, which does not say so")


def check_one_view(mesh: SimMesh, within_s: float = 10.0) -> float:
    """I3: after the last fault, everybody thinks everybody alive within some seconds. Return how many."""
    took_s = mesh.run_while(lambda: not mesh.is_one_view(), within_s, step_s=0.25)
    if took_s is None:
        raise InvariantError(f"I3: no common view after {within_s} s: {'; '.join(differences(mesh))}")
    return took_s


def check_news_arrives(mesh: SimMesh, within_s: float = 10.0) -> float:
    """I3 where statements go on changing: what all say at this moment, all know within some seconds. Return how many.

    In a mesh of two hundred, somebody's demand fades by another step every second: no moment has one view.
    """
    talking = [node for node in mesh.running() if node.node not in mesh.revoked and not node.core.view.me.left]
    said = {node.node: _numbers(node) for node in talking}
    took_s = mesh.run_while(lambda: not all(_knows(node, said) for node in talking), within_s, step_s=0.25)
    if took_s is None:
        raise InvariantError(f"I3: news is not everywhere after {within_s} s: {'; '.join(differences(mesh))}")
    return took_s


def _numbers(node: SimNode) -> tuple[int, int]:
    return node.core.view.me.incarnation, node.core.view.me.version


def _knows(node: SimNode, said: Mapping[NodeId, tuple[int, int]]) -> bool:
    """Tell whether a node thinks just these alive, with these statements or newer ones."""
    live = node.live()
    return live.keys() == said.keys() and all(live[other] >= numbers for other, numbers in said.items())


def differences(mesh: SimMesh) -> Iterable[str]:
    """Yield what nodes get wrong about others, in words."""
    running = {node.node: node for node in mesh.running() if node.node not in mesh.revoked}
    for node in running.values():
        live = node.live()
        for other in sorted({*live, *running}):
            said = running[other].core.view.me if other in running else None
            numbers = (said.incarnation, said.version) if said is not None and not said.left else None
            if live.get(other) != numbers:
                member = node.core.view.members.get(other)
                state = f"{member.state} ({member.why})" if member is not None else "unknown"
                yield f"{node.node} thinks {other} {state} {live.get(other)}, truth {numbers}"


def check_revoked(mesh: SimMesh) -> None:
    """I7: nobody keeps a revoked node: the word of one admin has reached everybody."""
    for node in (found for found in mesh.running() if found.node not in mesh.revoked):
        for other in sorted(mesh.revoked):
            member = node.core.view.members.get(other)
            if member is not None and member.state in LIVE:
                raise InvariantError(f"I7: {node.node} still has the revoked {other} as {member.state}")


def check_leaks(mesh: SimMesh) -> None:
    """I8: in a quiet mesh there is one connection for each pair, known at both ends."""
    for node in mesh.running():
        for peer, ends in mesh.transport.ends.get(node.node, {}).items():
            if len(ends) > 1:
                raise InvariantError(f"I8: {node.node} has {len(ends)} connections to {peer}")
            member = node.core.view.members.get(peer)
            if ends and mesh.hears(peer) and (member is None or not member.connected):
                raise InvariantError(f"I8: {node.node} does not know its connection to {peer}")


def check_elections(mesh: SimMesh) -> None:
    """I9: nodes with the same view elect the same hosts."""
    chosen: dict[tuple[object, ...], tuple[object, ...]] = {}
    for node in mesh.running():
        seen = tuple(sorted(node.live().items()))
        view = node.core.view
        hosts = tuple((key, group.members, group.host) for key, group in view.groups.items())
        if chosen.setdefault(seen, hosts) != hosts:
            raise InvariantError(f"I9: {node.node} elects others than those who see the same")
        if any(elect(view.members[one].announcement for one in nodes) != host for _, nodes, host in hosts):
            raise InvariantError(f"I9: {node.node} shows a host that was not elected")


def check_sizes(mesh: SimMesh) -> None:
    """I10: nothing grows beyond its limit."""
    for node in mesh.running():
        for what, size, limit in node.core.sizes():
            if size > limit:
                raise InvariantError(f"I10: {node.node} holds {size} {what}, the limit is {limit}")


def check_quiet(mesh: SimMesh) -> None:
    """Check everything that holds in a mesh where nothing happens."""
    check_revoked(mesh)
    check_leaks(mesh)
    check_elections(mesh)
    check_sizes(mesh)
