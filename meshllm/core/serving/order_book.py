"""What was ordered for the whole mesh: the newest order about each model, and which model is the default.

Owns this node's own entries of the two registers, and those that it took over from authors that are gone. Decides which
entry counts: the highest (version, author) that a member with the right to administer carries. Doesn't know engines nor
connections; `remote_orders` gives orders, `orders` obeys them, and announcements carry them.

Invariants: entries of one model only ever rise in rank; an order that a request has ended (it is spent) turns into a
`load` of the same version, which outranks it, so that no late copy of it counts again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from meshllm.core.announcement import Announcement, DefaultChoice, ModelOrder
from meshllm.core.effects import KeptOrders
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.limits import ANNOUNCED_ORDERS, ORDER_VERSION_MAX
from meshllm.core.rights import Rights

NOTHING_KEPT = KeptOrders()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What one member says about orders."""

    is_live: bool
    is_admin: bool
    orders: tuple[ModelOrder, ...] = ()
    default: DefaultChoice | None = None
    served: tuple[tuple[ModelId, int], ...] = ()
    """Models that it serves although they were ordered away before, with the order that it knew."""


class OrderBook:
    """The registers of orders and of the default."""

    def __init__(self, me: NodeId, kept: KeptOrders = NOTHING_KEPT, *, is_controllable: bool = True) -> None:
        """Begin with what was written down. A node that is not controllable obeys nobody else's orders."""
        self._me = me
        self._is_controllable = is_controllable
        self._own = {order.model: order for order in kept.orders}
        self._own_default = kept.default
        self._clock = kept.clock
        self._kept_versions = {order.model: order.version for order in kept.orders if not order.hold}
        self._said: dict[NodeId, _Said] = {}
        self._admins: set[NodeId] = set()
        """Live members with the right to administer."""
        self._has_news = True
        self.override = kept.override
        """What answers at this node where no model is named, whatever the mesh says; None for what the mesh says."""
        self.orders: Mapping[ModelId, ModelOrder] = MappingProxyType({})
        """The newest order about each model."""
        self.default: DefaultChoice | None = None
        """What was chosen mesh-wide; at version 0, what its founder was started with."""

    # -- questions -------------------------------------------------------------------------------------

    def newest(self, model: ModelId) -> ModelOrder | None:
        """Return the newest order about a model."""
        return self.orders.get(model)

    def version(self, model: ModelId) -> int:
        """Return the version of the newest order about a model; 0 where there is none."""
        order = self.orders.get(model)
        return order.version if order is not None else 0

    def kept_version(self, model: ModelId) -> int:
        """Return the version of this node's own order about a model from an earlier run; 0 where it holds the model.

        Whoever names that model again when starting the node has changed their mind.
        """
        return self._kept_versions.get(model, 0)

    def is_unloaded(self, model: ModelId) -> bool:
        """Tell whether a model is to stay out of memory until a request or an order brings it back."""
        order = self.orders.get(model)
        return order is not None and order.verb is Verb.UNLOAD

    def is_held(self, model: ModelId) -> bool:
        """Tell whether only an order brings a model back."""
        order = self.orders.get(model)
        return order is not None and order.verb is Verb.UNLOAD and order.hold

    def forbids(self, model: ModelId, known: int = 0) -> ModelOrder | None:
        """Return the order that ends a wish for a model at this node which knew orders up to the version `known`."""
        order = self.orders.get(model)
        if order is None or order.verb is not Verb.UNLOAD or order.version <= known:
            return None
        return order if self._is_controllable or order.author == self._me else None

    def holds(self, model: ModelId, known: int = 0) -> bool:
        """Tell whether requests may not bring a model back here; the same for a wish."""
        order = self.forbids(model, known)
        return order is not None and order.hold

    # -- what is announced and kept --------------------------------------------------------------------

    @property
    def announced(self) -> tuple[ModelOrder, ...]:
        """Return the entries that this node carries, by model."""
        return tuple(order for _, order in sorted(self._own.items()))

    @property
    def announced_default(self) -> DefaultChoice | None:
        """Return the choice of the default that this node carries."""
        return self._own_default

    def kept(self) -> KeptOrders:
        """Return what is to be written down, without what else a node remembers."""
        default = self._own_default if self._own_default is not None and self._own_default.version else None
        return KeptOrders(orders=self.announced, default=default, override=self.override, clock=self._clock)

    # -- changes ---------------------------------------------------------------------------------------

    def order(self, model: ModelId, verb: Verb, *, hold: bool = False) -> ModelOrder:
        """Order something for the whole mesh. What is held stays held until somebody loads it."""
        hold = verb is Verb.UNLOAD and (hold or self.is_held(model))
        made = ModelOrder(model=model, verb=verb, version=self._next(), author=self._me, hold=hold)
        self._own[model] = made
        self._bound()
        self._count()
        return made

    def choose(self, model: ModelId) -> DefaultChoice:
        """Choose the default of the whole mesh."""
        self._own_default = DefaultChoice(model=model, version=self._next(), author=self._me)
        self._count()
        return self._own_default

    def found(self, model: ModelId) -> None:
        """Say which model the mesh was founded with: the default until somebody chooses one."""
        if self._own_default is None:
            self._own_default = DefaultChoice(model=model, version=0, author=self._me)
            self._has_news = True

    def hear(self, node: NodeId, said: Announcement | None, *, is_live: bool) -> None:
        """Take what a member says; None when it is forgotten."""
        new = None if said is None else _said(said, is_live=is_live)
        if new == self._said.get(node):
            return
        if new is None:
            del self._said[node]
        else:
            self._said[node] = new
            if new.is_admin:
                self._clock = max(self._clock, _newest(new))
        if new is not None and new.is_live and new.is_admin:
            self._admins.add(node)
        else:
            self._admins.discard(node)
        self._has_news = True

    def settle(self) -> bool:
        """Count what was heard, and see to the own entries; tell whether anything counts differently than before."""
        if not self._has_news:
            return False
        self._has_news = False
        before = (self.orders, self.default, self.announced, self._own_default)
        self._count()
        if self._me in self._admins:
            if self._me == min(self._admins):
                self._adopt()
            self._spend()
            self._prune()
            self._count()
        return before != (self.orders, self.default, self.announced, self._own_default)

    # -- the rules -------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._clock = min(self._clock + 1, ORDER_VERSION_MAX)
        return self._clock

    def _count(self) -> None:
        """Find the entries that count. One's own do only with the right to administer, like everybody's."""
        orders: dict[ModelId, ModelOrder] = {}
        default: DefaultChoice | None = None
        for said in self._carriers():
            for order in said.orders:
                known = orders.get(order.model)
                if known is None or _rank(order) > _rank(known):
                    orders[order.model] = order
            if said.default is not None and (default is None or _choice(said.default) > _choice(default)):
                default = said.default
        if orders != self.orders:
            self.orders = MappingProxyType(orders)
        self.default = default

    def _carriers(self) -> list[_Said]:
        others = [said for node, said in self._said.items() if said.is_admin and node != self._me]
        mine = self._said.get(self._me)
        if mine is not None and mine.is_admin:
            others.append(replace(mine, orders=tuple(self._own.values()), default=self._own_default))
        return others

    def _others(self, *, are_live: bool) -> list[_Said]:
        return [
            said for node, said in self._said.items()
            if node != self._me and said.is_admin and said.is_live is are_live
        ]  # fmt: skip

    def _adopt(self) -> None:
        """Take over what only members carry that are gone: somebody has to, and it is the live admin of smallest id."""
        live = self._others(are_live=True)
        carried = {_rank(order): order.model for said in live for order in said.orders}
        chosen = [_choice(said.default) for said in live if said.default is not None]
        for said in self._others(are_live=False):
            for order in said.orders:
                if self.orders.get(order.model) == order and carried.get(_rank(order)) != order.model:
                    self._own[order.model] = order
            default = said.default
            if default is not None and default == self.default and _choice(default) not in chosen:
                self._own_default = default

    def _spend(self) -> None:
        """End the own orders that a request has ended: a live member serves the model again and knew the order."""
        served: dict[ModelId, int] = {}
        for said in self._said.values():
            if said.is_live:
                for model, known in said.served:
                    served[model] = max(served.get(model, 0), known)
        for model, order in self._own.items():
            if order.verb is Verb.UNLOAD and not order.hold and served.get(model, 0) >= order.version:
                self._own[model] = replace(order, verb=Verb.LOAD)

    def _prune(self) -> None:
        """Drop own entries that a live admin outranks, and those of others whose author carries them again."""
        for said in self._others(are_live=True):
            for order in said.orders:
                mine = self._own.get(order.model)
                if mine is not None and (_rank(order) > _rank(mine) or self._came_home(mine)):
                    del self._own[order.model]
            mine_too = self._own_default
            if said.default is not None and mine_too is not None and _choice(said.default) > _choice(mine_too):
                self._own_default = None
        self._bound()

    def _came_home(self, order: ModelOrder) -> bool:
        said = self._said.get(order.author)
        return order.author != self._me and said is not None and said.is_live and order in said.orders

    def _bound(self) -> None:
        """Keep as many as an announcement holds: spent ones go first, then the oldest."""
        while len(self._own) > ANNOUNCED_ORDERS:
            least = min(self._own.values(), key=lambda order: (order.verb is Verb.UNLOAD, order.version))
            del self._own[least.model]


def _said(said: Announcement, *, is_live: bool) -> _Said:
    default = said.default
    return _Said(
        is_live=is_live, is_admin=Rights.ADMIN in said.rights,
        orders=tuple(order for order in said.orders if order.version <= ORDER_VERSION_MAX),
        default=default if default is not None and default.version <= ORDER_VERSION_MAX else None,
        served=tuple((served.model, served.order) for served in said.serving if served.order),
    )  # fmt: skip


def _newest(said: _Said) -> int:
    versions = [order.version for order in said.orders]
    return max(versions + ([said.default.version] if said.default is not None else []), default=0)


def _rank(order: ModelOrder) -> tuple[int, NodeId, bool]:
    return order.version, order.author, order.verb is Verb.LOAD


def _choice(default: DefaultChoice) -> tuple[int, NodeId, ModelId]:
    return default.version, default.author, default.model
