"""Orders that concern more than this node: sent to those who have to obey, taken from those who may give them.

Owns the orders under way between nodes, in both directions, and the answers given lately. Decides who has a part in an
intent by its scope, who may order this node about, and when a part counts as unreachable. Doesn't know engines:
`orders` carries out what is for this node; `order_book` remembers what holds for the whole mesh.

Invariants: every intent is answered exactly once; an order from a peer is carried out once, however often it comes, and
never leads to an order to somebody else.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from meshllm.core.effects import Answer, Effect, Level, Send
from meshllm.core.ids import ModelId, NodeId, short
from meshllm.core.intents import Intent, Outcome, OutcomeCode, Verb
from meshllm.core.limits import (
    LOAD_WAIT_S,
    MODEL_ID_CHARS,
    ORDER_ANSWER_S,
    ORDER_LOAD_S,
    ORDER_REACH_S,
    ORDER_WANTED_INTERVAL_S,
    ORDERS_OF_PEERS,
)
from meshllm.core.messages import Order, OrderResult
from meshllm.core.names import RESERVED_NAMES, Ambiguous, Unknown
from meshllm.core.rights import Rights
from meshllm.core.routing.meaning import is_known
from meshllm.core.serving import scopes
from meshllm.core.serving.early_orders import EarlyOrders, unknown_yet
from meshllm.core.serving.order_book import OrderBook
from meshllm.core.serving.replies import Effects, answer, notice
from meshllm.core.standing import LIVE
from meshllm.core.view import MeshView

_LEAVING = "this node is shutting down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What remote orders need of the rest of the core."""

    carry_out: Callable[[Intent], Effects]
    """Does what an intent asks of this node alone."""
    want: Callable[[ModelId, float], Effects]
    """Has somebody of the mesh load a model, as a request for it would."""
    reach: Callable[[NodeId, float], None]
    """Wishes for a connection to a node, for some seconds."""
    is_connected: Callable[[NodeId], bool]


@dataclass(slots=True)
class _Job:
    """An intent of this node's that several nodes have a part in."""

    intent: Intent
    model: ModelId
    open: int = 0
    """Parts without an outcome."""
    then: Callable[[], Effects] | None = None
    """What this node does itself when all others have done their part: it may end with it."""
    outcomes: dict[NodeId, Outcome] = field(default_factory=dict)


@dataclass(slots=True)
class _Part:
    """What one other node is to do."""

    job: _Job
    node: NodeId
    order: Order
    reach_by_s: float
    ends_s: float
    is_sent: bool = False


@dataclass(slots=True)
class _Watch:
    """An order to load something somewhere in the mesh: who does it is nobody's order."""

    intent: Intent
    model: ModelId
    ends_s: float
    remind_s: float


class RemoteOrders:
    """Orders to and from other nodes."""

    def __init__(self, me: NodeId, incarnation: int, book: OrderBook, around: Surroundings) -> None:
        """Have nothing under way. The incarnation makes the names of orders differ from those of earlier runs."""
        self._me = me
        self._prefix = str(incarnation)
        self._book = book
        self._around = around
        self._count = 0
        self._parts: dict[str, _Part] = {}
        self._here: dict[str, _Job] = {}
        """This node's own parts, by the request id of the intent that does them."""
        self._tries: dict[str, Intent] = {}
        """Orders to load that this node tries to carry out itself."""
        self._watches: list[_Watch] = []
        self._taken: OrderedDict[tuple[NodeId, str], Outcome | None] = OrderedDict()
        """Orders of peers, with how they ended; None while they have not."""
        self._answering: dict[str, tuple[NodeId, str]] = {}
        self.early = EarlyOrders()
        """Orders that mean nothing yet."""

    def next_s(self) -> float | None:
        """Return when something is due."""
        early_s = self.early.next_s()
        if self.is_idle:
            return early_s
        due = [] if early_s is None else [early_s]
        due += [part.ends_s if part.is_sent else min(part.reach_by_s, part.ends_s) for part in self._parts.values()]
        due += [min(watch.ends_s, watch.remind_s) for watch in self._watches]
        return min(due, default=None)

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing is under way that a change of the mesh could end."""
        return not (self._parts or self._watches)

    # -- intents of this node --------------------------------------------------------------------------

    def on_intent(self, intent: Intent, view: MeshView, now_s: float) -> Effects:
        """Carry out an intent here, elsewhere, or everywhere; one that means nothing yet, later."""
        if view.leaving:
            return self._do_here(intent, view)
        if intent.scope not in (scopes.NODE, scopes.MESH):
            return self._elsewhere(intent, view, now_s)
        if intent.scope == scopes.MESH and Rights.ADMIN not in view.me.rights:
            message = "this node may not order other nodes about: it lacks the right to administer the mesh"
            return [answer(intent, OutcomeCode.NOT_ALLOWED, message)]
        if unknown_yet(view, intent):
            self.early.keep(intent, now_s)
            return []
        return self._do_here(intent, view) if intent.scope == scopes.NODE else self._do_in_mesh(intent, view, now_s)

    def _do_in_mesh(self, intent: Intent, view: MeshView, now_s: float) -> Effects:
        """Carry out what is for no node alone."""
        found = _resolved(view, intent)
        match intent.verb:
            case Verb.LOAD | Verb.UNLOAD | Verb.DROP if _is_adopted(view, found):
                return self._do_here(intent, view)  # which says why not
            case Verb.LOAD:
                return self._load(intent, found, view, now_s)
            case Verb.PULL:
                return self._do_here(intent, view)
            case Verb.PIN | Verb.UNPIN:
                message = "what stays in memory is chosen for one node: this one, or the one that the scope names"
                outcome = Outcome(code=OutcomeCode.INVALID_VALUE, message=message, param="scope")
                return [Answer(request_id=intent.request_id, outcome=outcome)]
            case _ if isinstance(found, Outcome):
                return [Answer(request_id=intent.request_id, outcome=found)]
            case Verb.DEFAULT:
                self._book.choose(found)
                return [answer(intent, OutcomeCode.DONE, f"{found} is the default of the mesh", found)]
            case _:
                return self._end_everywhere(intent, found, view, now_s)

    def _do_here(self, intent: Intent, view: MeshView) -> Effects:
        if intent.verb is not Verb.DEFAULT or view.leaving:
            return self._around.carry_out(intent)
        if not intent.model:
            self._book.override = None
            return [answer(intent, OutcomeCode.DONE, "this node has the default of the mesh")]
        found = _resolved(view, intent)
        if isinstance(found, Outcome):
            return [Answer(request_id=intent.request_id, outcome=found)]
        self._book.override = found
        return [answer(intent, OutcomeCode.DONE, f"{found} is the default of this node", found)]

    def _elsewhere(self, intent: Intent, view: MeshView, now_s: float) -> Effects:
        node = scopes.find_node(view, intent.scope)
        if node == self._me:
            return self.on_intent(replace(intent, scope=scopes.NODE), view, now_s)
        if node not in view.members:
            return [answer(intent, OutcomeCode.UNREACHABLE, node)]
        if Rights.ADMIN not in view.me.rights:
            message = "this node may not order other nodes about: it lacks the right to administer the mesh"
            return [answer(intent, OutcomeCode.NOT_ALLOWED, message)]
        return self._send(_Job(intent, ModelId(intent.model)), NodeId(node), intent.model, view, now_s)

    def _end_everywhere(self, intent: Intent, model: ModelId, view: MeshView, now_s: float) -> Effects:
        """Unload or drop a model at all nodes, and see to it that it stays so where nobody can be told now."""
        job = _Job(intent, model, open=1)  # one more, until all parts are begun

        def end_here() -> Effects:
            effects = self._begin_here(job) if model in view.local else []
            self._book.order(model, Verb.UNLOAD, hold=intent.hold)
            return effects

        effects: Effects = []
        if intent.verb is Verb.DROP:
            job.then = end_here
        else:
            effects += end_here()
        for node in scopes.serving_nodes(view, model):
            effects += self._send(job, node, model, view, now_s)
        return effects + self._part_done(job, view)

    def _begin_here(self, job: _Job) -> Effects:
        request_id = self._name()
        self._here[request_id] = job
        job.open += 1
        own = replace(job.intent, model=job.model, scope=scopes.NODE, request_id=request_id, hold=False)
        return self._around.carry_out(own)

    def _send(self, job: _Job, node: NodeId, model: str, view: MeshView, now_s: float) -> Effects:
        """Have another node do something, connected or not."""
        job.open += 1
        intent = job.intent
        if not (model.isprintable() and len(model) <= MODEL_ID_CHARS):
            outcome = Outcome(code=OutcomeCode.UNKNOWN_MODEL, message="no model has such a name")
            return self._note(job, node, outcome, view)
        is_all = intent.scope == scopes.MESH
        name = self._name()
        order = Order(intent=replace(
            intent, model=model, request_id=name, scope=scopes.NODE, hold=intent.hold and not is_all,
            keep_running=intent.keep_running or is_all,
        ))  # fmt: skip
        answer_s = ORDER_LOAD_S if intent.verb in (Verb.LOAD, Verb.PULL) else ORDER_ANSWER_S
        part = self._parts[name] = _Part(job, node, order, now_s + ORDER_REACH_S, now_s + answer_s)
        self._around.reach(node, answer_s)
        if not self._around.is_connected(node):
            return []
        part.is_sent = True
        return [Send(peer=node, message=order)]

    # -- loading somewhere -----------------------------------------------------------------------------

    def _load(self, intent: Intent, found: ModelId | Outcome, view: MeshView, now_s: float) -> Effects:
        """Load a model in the mesh: here where its file is, else wherever it is given to."""
        if isinstance(found, Outcome):
            if found.code is OutcomeCode.AMBIGUOUS_MODEL:
                return [Answer(request_id=intent.request_id, outcome=found)]
            return self._do_here(intent, view)  # the catalogue or a hub may know it
        if self._book.is_unloaded(found):
            self._book.order(found, Verb.LOAD)
        if scopes.is_ready_somewhere(view, found):
            return [answer(intent, OutcomeCode.DONE, f"{found} is loaded", found)]
        local = view.local.get(found)
        if local is not None and (local.on_disk is not None or not scopes.is_coming_somewhere(view, found)):
            self._tries[intent.request_id] = replace(intent, model=found)
            return self._do_here(replace(intent, model=found), view)
        return self._load_elsewhere(intent, found, now_s)

    def _load_elsewhere(self, intent: Intent, found: ModelId, now_s: float) -> Effects:
        self._watches.append(_Watch(intent, found, now_s + LOAD_WAIT_S, now_s + ORDER_WANTED_INTERVAL_S))
        return self._around.want(found, now_s)

    def _look(self, watch: _Watch, view: MeshView, now_s: float) -> Effects:
        """Answer an order to load if it can be; else go on."""
        cold, model = view.cold.get(watch.model), watch.model
        if scopes.is_ready_somewhere(view, model):
            outcome = Outcome(code=OutcomeCode.DONE, message=f"{model} is loaded", model=model)
        elif cold is not None and cold.lack:
            outcome = Outcome(code=OutcomeCode.NO_CAPACITY, message=cold.lack, model=model)
        elif now_s >= watch.ends_s:
            message = f"no node has loaded {model} within {LOAD_WAIT_S:.0f} s"
            outcome = Outcome(code=OutcomeCode.NO_CAPACITY, message=message, model=model)
        else:
            if scopes.is_coming_somewhere(view, model):
                watch.ends_s = now_s + LOAD_WAIT_S  # as long as somebody is at it
            if now_s < watch.remind_s:
                return []
            watch.remind_s = now_s + ORDER_WANTED_INTERVAL_S
            return self._around.want(model, now_s)
        self._watches.remove(watch)
        return [Answer(request_id=watch.intent.request_id, outcome=outcome)]

    # -- orders of peers -------------------------------------------------------------------------------

    def on_order(self, peer: NodeId, rights: Rights, order: Order, view: MeshView, now_s: float) -> Effects:
        """Do as a peer says, if it may say so."""
        key = (peer, order.intent.request_id)
        if key in self._taken:
            outcome = self._taken[key]
            return [] if outcome is None else [_result(peer, key[1], outcome)]
        refusal = self._refusal(rights, view)
        if refusal is not None:
            return [_result(peer, key[1], refusal)]
        self._taken[key] = None
        self._forget_old()
        request_id = self._name()
        self._answering[request_id] = key
        intent = replace(order.intent, request_id=request_id, scope=scopes.NODE, author=peer)
        what = notice(Level.INFO, "ordered by another node", node=short(peer), verb=intent.verb, model=intent.model)
        return [what, *self.on_intent(intent, view, now_s)]

    def _refusal(self, rights: Rights, view: MeshView) -> Outcome | None:
        if not view.me.is_controllable:
            message = "this node lets no other node load and unload its models"
        elif Rights.ADMIN not in rights:
            message = "the node that orders this lacks the right to administer the mesh"
        elif len(self._answering) >= ORDERS_OF_PEERS:
            message = f"{ORDERS_OF_PEERS} orders are under way at this node"
        else:
            return None
        return Outcome(code=OutcomeCode.NOT_ALLOWED, message=message)

    def _forget_old(self) -> None:
        for key in [key for key, outcome in self._taken.items() if outcome is not None]:
            if len(self._taken) <= ORDERS_OF_PEERS:
                return
            del self._taken[key]

    def on_result(self, peer: NodeId, result: OrderResult, view: MeshView) -> Effects:
        """Take a peer's answer to an order."""
        part = self._parts.get(result.request_id)
        if part is None or part.node != peer:
            return []
        del self._parts[result.request_id]
        return self._note(part.job, peer, result.outcome, view)

    # -- the mesh and time -----------------------------------------------------------------------------

    def on_connected(self, peer: NodeId) -> Effects:
        """Tell a peer what it is to do, again if the connection was lost meanwhile: it does it once."""
        mine = [part for part in self._parts.values() if part.node == peer]
        for part in mine:
            part.is_sent = True
        return [Send(peer=peer, message=part.order) for part in mine]

    def advance(self, view: MeshView, now_s: float, *, is_leaving: bool) -> Effects:
        """See to what is due, and to what a change of the mesh has ended."""
        if is_leaving:
            return self._give_up_all(view, now_s)
        effects: Effects = []
        for intent, outcome in self.early.expired(view, now_s):
            effects.append(Answer(request_id=intent.request_id, outcome=outcome))
        for name, part in list(self._parts.items()):
            if problem := _problem(part, view, now_s):
                del self._parts[name]
                effects += self._note(part.job, part.node, problem, view)
        for watch in list(self._watches):
            effects += self._look(watch, view, now_s)
        return effects

    def sorted_out(self, effects: Iterable[Effect], view: MeshView, now_s: float) -> Effects:
        """Return effects with the answers to parts of orders replaced by what follows from them."""
        out: Effects = []
        for effect in effects:
            if isinstance(effect, Answer):
                out += self._sorted(effect, view, now_s)
            else:
                out.append(effect)
        return out

    def _sorted(self, effect: Answer, view: MeshView, now_s: float) -> Effects:
        request_id, outcome = effect.request_id, effect.outcome
        if (key := self._answering.pop(request_id, None)) is not None:
            self._taken[key] = outcome
            return [_result(*key, outcome)]
        if (job := self._here.pop(request_id, None)) is not None:
            follows = self._note(job, self._me, outcome, view)
            return self.sorted_out(follows, view, now_s)
        tried = self._tries.pop(request_id, None)
        if tried is not None and outcome.code is OutcomeCode.NO_CAPACITY and _others_having(view, tried.model):
            return self._load_elsewhere(tried, ModelId(tried.model), now_s)
        return [effect]

    def _note(self, job: _Job, node: NodeId, outcome: Outcome, view: MeshView) -> Effects:
        job.outcomes[node] = outcome
        return self._part_done(job, view)

    def _part_done(self, job: _Job, view: MeshView) -> Effects:
        job.open -= 1
        if job.open:
            return []
        if job.then is not None:
            last, job.then, job.open = job.then, None, 1
            begun = last()
            return begun + self._part_done(job, view)
        if job.intent.scope == scopes.MESH:
            outcome = scopes.combined(view, job.intent.verb, job.model, job.outcomes)
        else:
            (outcome,) = job.outcomes.values()  # of the one node that it was for
        return [Answer(request_id=job.intent.request_id, outcome=outcome)]

    def _give_up_all(self, view: MeshView, now_s: float) -> Effects:
        """This node leaves: whoever waits here is told so."""
        early = [answer(intent, OutcomeCode.LEAVING, _LEAVING) for intent in self.early.given_up()]
        jobs = {id(part.job): part.job for part in self._parts.values()}
        waiting = [job.intent for job in jobs.values()] + [watch.intent for watch in self._watches]
        self._here = {name: job for name, job in self._here.items() if id(job) not in jobs}
        self._parts.clear()
        self._watches.clear()
        late = [answer(intent, OutcomeCode.LEAVING, _LEAVING) for intent in waiting]
        return late + self.sorted_out(early, view, now_s)

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}.{self._count}"


def _resolved(view: MeshView, intent: Intent) -> ModelId | Outcome:
    """Return the model of the mesh that an intent names, or why it names none."""
    asked = intent.model
    found = view.names.resolve(asked) if asked not in RESERVED_NAMES else Unknown(asked, ())
    if isinstance(found, Ambiguous):
        message = f"{asked!r} could mean any of: {', '.join(found.candidates)}"
        return Outcome(code=OutcomeCode.AMBIGUOUS_MODEL, message=message)
    if isinstance(found, Unknown):
        exact = ModelId(asked)
        if is_known(view, exact):
            return exact
        hint = f"; did you mean {' or '.join(found.near)}?" if found.near else ""
        return Outcome(code=OutcomeCode.UNKNOWN_MODEL, message=f"no node has a model {asked!r}{hint}")
    return found


def _others_having(view: MeshView, model: str) -> bool:
    """Tell whether another live node has a model's file."""
    return any(
        each.model == model
        for node, member in view.members.items()
        if node != view.me.node and member.state in LIVE
        for each in member.announcement.models_on_disk
    )


def _problem(part: _Part, view: MeshView, now_s: float) -> Outcome | None:
    """Return why no answer is to be expected any more."""
    member = view.members.get(part.node)
    if member is None or member.state not in LIVE:
        message = "it is gone from the mesh"
    elif now_s >= part.ends_s:
        message = "it did not answer in time"
    elif not part.is_sent and now_s >= part.reach_by_s:
        message = f"it cannot be reached{f' ({member.why})' if member.why else ''}"
    else:
        return None
    if part.job.intent.scope == scopes.MESH:
        message += "; it hears of this order when it comes back"
    return Outcome(code=OutcomeCode.UNREACHABLE, message=message)


def _result(peer: NodeId, request_id: str, outcome: Outcome) -> Send:
    return Send(peer=peer, message=OrderResult(request_id=request_id, outcome=outcome))


def _is_adopted(view: MeshView, found: ModelId | Outcome) -> bool:
    """Tell whether a name means a model of a server that this node adopted."""
    local = None if isinstance(found, Outcome) else view.local.get(found)
    return local is not None and local.adopted_from != ""
