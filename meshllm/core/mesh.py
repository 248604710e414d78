"""The one door into the node's state: `MeshCore.handle(event, now_s) -> effects`.

Owns the composition of the two halves, models and members, and what is said of the one to the other.
Decides nothing itself: it hands each event to the part that knows, lets the parts settle, and has a new
view made when anything changed. Never asks the world for the time, for chance or for a fact.

Invariants: the same events with the same times and the same chance give the same effects and views; a
view's epoch rises exactly when the view differs; every effect carries the id of the event that caused it.
"""

import random
from dataclasses import dataclass, replace

from meshllm.core import events as ev
from meshllm.core.announcement import Address, Announcement, RequestedModel, Role
from meshllm.core.catalog import ModelProblem
from meshllm.core.credentials import Revocation, TokenRecord
from meshllm.core.effects import Answer, Effect, KeepOrders, KeptOrders, Level, Notify, Send
from meshllm.core.events import Event
from meshllm.core.ids import NO_MODEL, UNSTAMPED, MeshId, ModelId, NodeId
from meshllm.core.limits import JOIN_WAIT_S
from meshllm.core.members.members import MemberEvent, Members
from meshllm.core.members.times import MemberTimes, wan
from meshllm.core.members.trust import Trust, TrustEvent, TrustMessage
from meshllm.core.messages import HealthQuestion, Order, OrderResult, SplitAnswer, SplitEnded, SplitOffer, SplitRelease
from meshllm.core.names import NameIndex
from meshllm.core.picture import Picture
from meshllm.core.quota_config import Quotas
from meshllm.core.quotas.book import QuotaBook
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.core.routing.book import RoutingBook
from meshllm.core.routing_config import RoutingConfig
from meshllm.core.serving.default_model import DefaultModel
from meshllm.core.serving.lifecycle import Lifecycle, ServingPolicy
from meshllm.core.serving.order_book import NOTHING_KEPT, OrderBook
from meshllm.core.serving.remote_orders import RemoteOrders, Surroundings
from meshllm.core.serving.splits.lenders import Lender
from meshllm.core.serving.splits.neighbourhood import Neighbourhood
from meshllm.core.standing import MemberState
from meshllm.core.statement import OwnStatement
from meshllm.core.view import MeshView


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreConfig:
    """What the core is told at its start."""

    node: NodeId
    name: str
    serving: ServingPolicy = ServingPolicy()
    incarnation: int = 1
    """Higher than in any run before; the daemon counts."""
    rights: Rights = OWN_MACHINE
    lends: bool = True
    """Others may count on its memory and compute for a model that is split; else it says that it has no such right."""
    addresses: tuple[Address, ...] = ()
    mesh: MeshId | None = None
    tokens: tuple[TokenRecord, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    kept: KeptOrders = NOTHING_KEPT
    """What was ordered in earlier runs."""
    routing: RoutingConfig | None = None
    """How this node routes requests, where its configuration says so."""
    quotas: tuple[tuple[str, Quotas], ...] = ()
    """What models may be used for here, by id, where nobody chose it for the mesh; "" is all others."""
    unknown_model: str = ""
    """`reject` or `fallback`, whatever is chosen; empty for what is."""
    is_founder: bool = False
    """This node founded its mesh: its first model is the default there until somebody chooses one."""
    is_client: bool = False
    is_joining: bool = False
    """This node was told of a mesh: names that it does not know may become known in a moment."""
    times: MemberTimes | None = None
    """None: as patient as the round trips that are measured call for."""


_QUIET = (
    ev.EngineProgressed,
    ev.DownloadProgressed,
    ev.TrafficMeasured,
    ev.QuotaUsed,
    ev.CacheMeasured,
    ev.Woke,
    ev.TaskFailed,
)
"""Events that by themselves change nothing about who should serve what."""


class MeshCore:
    """A node's knowledge and decisions."""

    def __init__(self, config: CoreConfig, now_s: float, rng: random.Random) -> None:
        """Know of nobody but oneself. `rng` spreads timers and picks members; nothing else is chance."""
        self._config = config
        self._book = OrderBook(config.node, config.kept, is_controllable=config.serving.is_controllable)
        self._routing = RoutingBook(config.node, config.kept, config.routing, config.unknown_model)
        self._quotas = QuotaBook(config.node, config.kept, config.quotas)
        self._kept = config.kept
        self._serving = Lifecycle(config.serving, config.node, self._book, config.kept)
        self._serving.gap_filling.joining = config.is_joining
        self._default = DefaultModel(
            self._book, config.serving.default_model, config.serving.requested, is_founder=config.is_founder
        )
        self._problems: tuple[ModelProblem, ...] = ()
        self._retry_s: float | None = None
        self._addresses = config.addresses
        self._bulk_port = 0
        me = Announcement(
            node=config.node, name=config.name, incarnation=config.incarnation, version=0,
            role=Role.CLIENT if config.is_client else Role.WORKER, resources=None, rights=_told(config.rights, config),
            addresses=config.addresses, requested=tuple(RequestedModel(name=name) for name in config.serving.requested),
            fills_gaps=config.serving.fills_gaps, downloads=config.serving.downloads,
            is_controllable=config.serving.is_controllable, is_starting=not config.is_client,
        )  # fmt: skip
        self._own = OwnStatement(me, (config.times or wan()).soft_s)
        self._members = Members(self._own, rng, config.times, now_s)
        self._orders = RemoteOrders(config.node, config.incarnation, self._book, self._around_orders())
        self._trust = Trust(config.node, config.rights, config.tokens, config.revocations)
        self._serving.splits.around = self._serving.lending.around = self._neighbourhood()
        self._shunned: frozenset[NodeId] = frozenset()
        self._joining_until_s = now_s + JOIN_WAIT_S if config.is_joining else None
        self._picture = Picture(me, config.serving.requested, now_s, joining=config.is_joining)
        self._picture.renew({"tokens": self._trust.tokens, "revocations": self._trust.revocations}, now_s)
        self._refresh(now_s, is_serving=True)

    @property
    def view(self) -> MeshView:
        """Return the newest snapshot."""
        return self._picture.view

    def next_wakeup_s(self) -> float | None:
        """Return when the core wants a `Woke` event, if nothing else happens before."""
        due_s = self._members.next_s()
        for at_s in (self._retry_s, self._own.soft_due_s, self._joining_until_s, self._orders.next_s()):
            if at_s is not None and (due_s is None or at_s < due_s):
                due_s = at_s
        return due_s

    def sizes(self) -> tuple[tuple[str, int, int], ...]:
        """Return what grows with the mesh: what it is, how many there are, how many there may be."""
        return self._members.sizes()

    def handle(self, event: Event, now_s: float) -> tuple[Effect, ...]:
        """Take one event and return what is to be done about it. The only mutator."""
        self._members.advance(now_s)
        trusting = self._judge(event, now_s)
        if isinstance(event, MemberEvent):
            self._members.handle(event)
        moved = self._members.settle()
        is_due = self._hear_members(now_s)
        heard = self._hear(event, now_s)
        is_serving = is_due or heard is not None or self._is_about_models(event, now_s)
        ordered: list[Effect] = heard or []
        if is_serving:
            ordered += self._dispatch(event, now_s)
            if not isinstance(event, MemberEvent) and not isinstance(event, _QUIET):
                self._serving.gap_filling.look_again()
            ordered = self._orders.sorted_out(ordered + self._settle(now_s), self.view, now_s)
            if self._serving.leaving is not None:
                self._members.leave(self._serving.leaving)
        effects = trusting + moved + self._members.settle() + ordered  # goodbyes are said before the daemon ends
        self._refresh(now_s, is_serving=is_serving)
        if is_serving or not self._orders.early.is_empty:
            effects += self._end_orders(now_s)
        if event.id == UNSTAMPED:
            return tuple(effects)
        return tuple(replace(effect, cause=event.id) for effect in effects)

    def _settle(self, now_s: float) -> list[Effect]:
        self._serving.held.quotas = self._quotas.register
        own = self._own.announcement
        rights = _told(self._trust.rights, self._config)
        said = own if own.rights == rights else replace(own, rights=rights)
        self._serving.lending.may_lend = Rights.RPC in rights
        return self._serving.settle(now_s, said)

    def _hear_members(self, now_s: float) -> bool:
        """Tell the half of the models what members say by now; tell whether it wants to act on that at once."""
        gaps, table = self._serving.gap_filling, self._members.table
        entries = table.entries
        changed = sorted(table.changed - {self._config.node}) if table.changed else ()
        for node in changed:
            entry = entries.get(node)
            said = None if entry is None else entry.announcement
            is_live = entry is not None and entry.is_live
            self._book.hear(node, said, is_live=is_live)
            self._routing.hear(node, said, is_live=is_live)
            self._quotas.hear(node, said, is_live=is_live)
        is_news = self._book.settle() | self._routing.settle() | self._quotas.settle()
        if changed:  # nearly never: somebody was asked whether they live, and does
            is_news |= not self._orders.is_idle
            for node in changed:
                entry = entries.get(node)
                if entry is None:
                    gaps.hear(node, None, None, now_s)
                else:
                    gaps.hear(node, entry.state, entry.announcement, now_s)
            nodes = set(changed)
            is_news |= self._serving.splits.concerns(nodes) or self._serving.lending.concerns(nodes)
        return is_news or (gaps.is_due(now_s) and self._serving.leaving is None)

    def _is_about_models(self, event: Event, now_s: float) -> bool:
        """Tell whether the models want something of this moment; most events and wake-ups are for members."""
        if not isinstance(event, ev.Woke):
            return not isinstance(event, MemberEvent)
        due = (self._retry_s, self._own.soft_due_s, self._orders.next_s())
        return any(at_s is not None and at_s <= now_s for at_s in due)

    def _health_questions(self, model: ModelId | None) -> list[Effect]:
        """Ask the hosts of a model, or all, how theirs are: those that this node is connected to."""
        replicas = self.view.replicas
        asked = replicas.values() if model is None else [replicas.get(model, ())]
        nodes = {replica.node for hosts in asked for replica in hosts} & self._members.circle.links.keys()
        return [Send(peer=node, message=HealthQuestion(model=model or NO_MODEL)) for node in sorted(nodes)]

    # -- models that are shared ----------------------------------------------------------------------------

    def _neighbourhood(self) -> Neighbourhood:
        """Return what the models' half may ask about other nodes."""
        table, circle = self._members.table, self._members.circle

        def lenders() -> list[Lender]:
            found = []
            for node in table.live():
                entry, link = table.entries[node], circle.links.get(node)
                if not entry.announcement.left:
                    is_silent = entry.state is MemberState.SUSPECT
                    found.append(Lender(entry.announcement, link.rtt_s if link is not None else None, is_silent))
            return found

        def said(node: NodeId) -> Announcement | None:
            entry = table.entries.get(node)
            is_there = entry is not None and entry.is_live and not entry.announcement.left
            return entry.announcement if entry is not None and is_there else None

        def rights_of(node: NodeId) -> Rights | None:
            link = circle.links.get(node)
            return link.rights if link is not None else None

        return Neighbourhood(lenders=lenders, said=said, rights_of=rights_of, reach=self._reach)

    def _hear_sharing(self, event: ev.MessageReceived, now_s: float) -> list[Effect] | None:
        """Take what a connected peer says about a split; None where that is nothing."""
        serving, peer = self._serving, event.peer
        match event.message:
            case SplitOffer() as offer:
                return serving.lending.on_offer(peer, offer, now_s)
            case SplitRelease() as release:
                return serving.lending.on_release(peer, release)
            case SplitAnswer() as answer:
                serving.splits.on_answer(peer, answer)
                return []
            case SplitEnded() as ended:
                serving.splits.on_ended(peer, ended)
                return []
            case _:
                return None

    # -- orders between nodes --------------------------------------------------------------------------

    def _around_orders(self) -> Surroundings:
        return Surroundings(
            carry_out=lambda intent: self._serving.on_intent(ev.IntentReceived(intent=intent)),
            want=lambda model, now_s: self._serving.on_wanted(ev.ModelWanted(model=model), now_s),
            reach=self._reach,
            is_connected=lambda node: node in self._members.circle.links,
        )

    def _reach(self, node: NodeId, for_s: float) -> None:
        """Connect to a node, and stay connected for a while."""
        self._members.handle(ev.PeerWanted(peer=node, for_s=for_s))

    def _hear(self, event: Event, now_s: float) -> list[Effect] | None:
        """Take what others say about orders, or ask; None where that is nothing, as nearly always."""
        links = self._members.circle.links
        match event:
            case ev.LendingReady() | ev.LendingEnded():
                return self._serving.lending.on_server(event, now_s)
            case ev.PeerConnected(peer=peer) if not self._orders.is_idle:
                return self._orders.on_connected(peer)
            case ev.MessageReceived(peer=peer, message=Order() as order) if peer in links:
                return self._orders.on_order(peer, links[peer].rights, order, self.view, now_s)
            case ev.MessageReceived(peer=peer, message=OrderResult() as result) if peer in links:
                return self._orders.on_result(peer, result, self.view)
            case ev.MessageReceived(peer=peer, message=HealthQuestion()) if peer in links:
                self._own.insist(now_s)
                return self._serving.on_look(ev.HealthAsked(), now_s)
            case ev.MessageReceived(peer=peer) if peer in links:
                return self._hear_sharing(event, now_s)
            case _:
                return None

    def _end_orders(self, now_s: float) -> list[Effect]:
        """Answer what can be answered by now, and have written down what changed."""
        is_leaving = self._serving.leaving is not None
        ripe = [] if is_leaving else self._orders.early.ripe(self.view)
        effects = [effect for intent in ripe for effect in self._orders.on_intent(intent, self.view, now_s)]
        effects += self._orders.advance(self.view, now_s, is_leaving=is_leaving)
        if (ripe or effects) and not is_leaving:
            effects = self._orders.sorted_out(effects + self._settle(now_s), self.view, now_s)
            self._refresh(now_s, is_serving=True)
        caches = self._serving.held.caches
        effects += self._routing.taken_notices() + self._quotas.taken_notices() + caches.taken_notices()
        routing, routing_here = self._routing.remembered()
        quotas, uses = self._quotas.remembered(now_s)
        kept = replace(
            self._serving.orders.kept(), routing=routing, routing_here=routing_here, quotas=quotas, quota_uses=uses,
            caches=caches.remembered,
        )  # fmt: skip
        if kept != self._kept and not is_leaving:
            self._kept = kept
            effects.append(KeepOrders(kept=kept))
        return effects

    def _judge(self, event: Event, now_s: float) -> list[Effect]:
        """Have trust take an event that concerns it, and membership break with whoever is expelled by it."""
        if not isinstance(event, TrustEvent):
            return []
        if isinstance(event, ev.MessageReceived) and not isinstance(event.message, TrustMessage):
            return []  # nearly all messages
        effects = self._trust.handle(event, now_s)
        revoked = self._trust.revoked
        if self._config.node in revoked:
            revoked |= frozenset(self._members.table.entries)  # it is this node that is out: of everybody's sight
        if revoked != self._shunned:
            self._shunned = revoked
            self._members.handle(ev.NodesRevoked(nodes=tuple(sorted(revoked))))
        self._picture.renew({"tokens": self._trust.tokens, "revocations": self._trust.revocations}, now_s)
        return effects

    def _dispatch(self, event: Event, now_s: float) -> list[Effect]:  # noqa: PLR0911, C901 - one line for each event
        serving = self._serving
        match event:
            case ev.ResourcesMeasured():
                return serving.on_resources(event)
            case ev.InventoryChanged():
                self._problems = event.problems
                return serving.on_inventory(event)
            case ev.EngineProbed():
                return serving.on_probed(event)
            case ev.EngineStarted():
                return serving.engines.on_started(event)
            case ev.EngineProgressed():
                return serving.engines.on_progressed(event)
            case ev.EngineReady():
                return serving.engines.on_ready(event, now_s)
            case ev.EngineHung():
                return serving.engines.on_hung(event)
            case ev.EngineDrained():
                return serving.on_drained(event)
            case ev.EngineExited():
                return serving.on_exited(event, now_s)
            case ev.RemoteProbed():
                return serving.adopted.on_probed(event, now_s)
            case ev.RemoteDoubted():
                return serving.adopted.on_doubted(event)
            case ev.ModelWanted():
                return serving.on_wanted(event, now_s)
            case ev.TrafficMeasured():
                return serving.on_traffic(event, now_s)
            case ev.RegistryChanged():
                return serving.on_look(event, now_s)
            case ev.HealthAsked():
                return serving.on_look(event, now_s) + self._health_questions(event.model)
            case ev.DownloadProgressed():
                return serving.fetching.on_download_progressed(event)
            case ev.DownloadFinished():
                return serving.fetching.on_download_finished(event)
            case ev.DownloadFailed():
                return serving.fetching.on_download_failed(event)
            case ev.ModelAsked():
                return serving.on_asked(event)
            case ev.IntentReceived():
                return self._orders.on_intent(event.intent, self.view, now_s)
            case ev.RoutingChangeAsked() | ev.QuotaChangeAsked() | ev.CacheChangeAsked():
                return self._chosen(event)
            case ev.QuotaUsed() | ev.CacheMeasured():
                return self._counted(event)
            case ev.LeaveRequested():
                return serving.leave(event.reason)
            case ev.RightsGranted() | ev.OwnAddressesChanged():
                return self._hear_of_itself(event)
            case ev.TaskFailed():
                said = (("task", event.task), ("error", event.message))
                return [Notify(level=Level.ERROR, message="task failed", fields=said)]
            case _:
                return []  # of members: handled before; or a moment that came

    def _hear_of_itself(self, event: ev.RightsGranted | ev.OwnAddressesChanged) -> list[Effect]:
        """Take what this node may do, or where it is."""
        if isinstance(event, ev.RightsGranted):
            self._trust.rights = event.rights
        else:
            self._addresses, self._bulk_port = event.addresses, event.bulk_port
        return []

    def _chosen(self, event: ev.RoutingChangeAsked | ev.QuotaChangeAsked | ev.CacheChangeAsked) -> list[Effect]:
        """Take what people choose about requests, and about the memory for their prompts."""
        if isinstance(event, ev.RoutingChangeAsked):
            outcome = self._routing.change(event.document)
        elif isinstance(event, ev.QuotaChangeAsked):
            outcome = self._quotas.change(event.model, event.document)
        else:
            outcome = self._serving.held.caches.change(event.document)
        return [Answer(request_id=event.request_id, outcome=outcome)]

    def _counted(self, event: ev.QuotaUsed | ev.CacheMeasured) -> list[Effect]:
        """Take what requests used."""
        if isinstance(event, ev.QuotaUsed):
            self._quotas.used = event.uses
            return []
        return self._serving.caches.on_measured(event)

    def _refresh(self, now_s: float, *, is_serving: bool) -> None:
        """Renew the own statement and the view, in the halves that may have changed."""
        own, members, picture = self._own, self._members, self._picture
        changes: dict[str, object] = {}
        has_news = is_serving or bool(members.table.changed)
        if not has_news and own.announcement is picture.view.me and self._joining_until_s is None:
            return  # nearly all events: somebody was asked whether they live, and does
        if is_serving:
            self._default.first_asked(self._serving.names, self._serving.fetching.unresolved)
            changes = picture.of_serving(self._serving, self._problems, now_s)
            said = self._serving.statement(own.announcement, now_s, is_client=self._config.is_client)
            self._serving.gap_filling.settled(said)
            for register in (self._routing, self._quotas):
                register.stand(is_admin=Rights.ADMIN in self._trust.rights)
                register.settle()
            rights, routing = _told(self._trust.rights, self._config), self._routing.announced
            whole = replace(
                said, addresses=self._addresses, bulk_port=self._bulk_port, quotas=self._quotas.announced,
                quota_uses=self._quotas.used, rights=rights, routing=routing,
            )  # fmt: skip
            if own.renew(whole, now_s):
                members.say()
            self._book.hear(self._config.node, own.announcement, is_live=True)
            self._book.settle()
        if is_serving or members.table.changed or own.announcement is not picture.view.me:
            changes |= picture.of_members(members, own.announcement, self._serving.names)
            changes |= picture.of_gap_filling(self._serving.gap_filling)
        names = found if isinstance(found := changes.get("names"), NameIndex) else picture.view.names
        changes |= {
            "orders": self._book.orders, "default_choice": self._book.default, "routing": self._routing.register,
            "quotas": self._quotas.register,
            "default_model": self._default.now(names, self._serving.held.default_model),
        }  # fmt: skip
        if self._joining_until_s is not None and (members.has_heard or now_s >= self._joining_until_s):
            self._joining_until_s = None
            changes["joining"] = False
            self._serving.gap_filling.joined(now_s)
            has_news = True
        if is_serving:
            self._serving.look_ahead()
        if has_news:
            self._retry_s = self._serving.next_s(now_s)
        picture.renew(changes, now_s)


def _told(rights: Rights, config: CoreConfig) -> Rights:
    """Return the rights that a node tells others: it may refuse to use one."""
    return rights if config.lends else rights & ~Rights.RPC
