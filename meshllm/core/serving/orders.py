"""Intents: what people and programs ask of this node, carried out now or answered when their end is known.

Owns the intents that wait for a name to be resolved, and the marks of held and dropped models from earlier runs.
Decides what an intent means for one model, and what the orders of the whole mesh do to this node's wishes; what follows
from that is `fetching`'s and `engine_life`'s. Doesn't know other nodes: `remote_orders` does.
"""

from collections.abc import Callable
from dataclasses import replace

from meshllm.core import events as ev
from meshllm.core.effects import CancelDownload, KeptOrders, Level
from meshllm.core.engines import EngineState
from meshllm.core.ids import short
from meshllm.core.intents import Intent, Outcome, OutcomeCode, Verb
from meshllm.core.known_models import is_hub_name
from meshllm.core.limits import MODELS_PER_NODE
from meshllm.core.names import Ambiguous
from meshllm.core.serving.engine_life import EngineLife
from meshllm.core.serving.engine_state import Signal
from meshllm.core.serving.fetching import Fetching
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.order_book import NOTHING_KEPT
from meshllm.core.serving.records import Record
from meshllm.core.serving.replies import Effects, answer, answers, notice, taken

_OF_WHAT_IS_HERE = frozenset({Verb.UNLOAD, Verb.DROP, Verb.PIN, Verb.UNPIN})
"""Orders that fetch nothing."""


class Orders:
    """Carries out intents."""

    def __init__(
        self, held: Holdings, fetching: Fetching, engines: EngineLife, leave: Callable[[str], Effects],
        kept: KeptOrders = NOTHING_KEPT,
    ) -> None:  # fmt: skip
        """Act on these; `leave` ends the node."""
        self._held = held
        self._fetching = fetching
        self._engines = engines
        self._leave = leave
        self._asking: dict[str, list[Intent]] = {}
        """Names being resolved outside, with the intents that wait for the answer."""
        self._held_before = set(kept.held)
        self._dropped_before = set(kept.dropped)
        self._pins_before = dict(kept.pins)
        """Models of earlier runs that are not on this disk now."""

    def on_intent(self, event: ev.IntentReceived) -> Effects:
        """Carry out what somebody asked for, now or when its answer is known."""
        intent = event.intent
        found = self._held.names.resolve(intent.model)
        if isinstance(found, Ambiguous):
            message = f"{intent.model!r} could mean any of: {', '.join(found.candidates)}"
            return [answer(intent, OutcomeCode.AMBIGUOUS_MODEL, message)]
        record = self._held.records.get(found) if isinstance(found, str) else None
        if record is not None and _is_known(record, intent):
            return self._act(record, intent)
        if intent.verb in _OF_WHAT_IS_HERE:
            near = f"; did you mean {' or '.join(found.near)}?" if not isinstance(found, str) and found.near else ""
            return [answer(intent, OutcomeCode.UNKNOWN_MODEL, f"this node has no model {intent.model!r}{near}")]
        if (reference := self._fetching.catalogued(intent.model)) is not None:
            record = self._held.record_of(reference)
            self._held.rename()
            return self._act(record, intent)
        if intent.verb is Verb.PULL and (reference := self._fetching.of_peers(intent.model)) is not None:
            record = self._held.record_of(reference)
            self._held.rename()
            return self._act(record, intent)
        if not is_hub_name(intent.model):
            return [answer(intent, OutcomeCode.UNKNOWN_MODEL, self._fetching.unknown(intent.model))]
        self._asking.setdefault(intent.model, []).append(intent)
        return self._fetching.ask_outside(intent.model)

    def on_asked(self, event: ev.ModelAsked) -> Effects:
        """Go on with the intents that waited for a name. `Fetching` has made the record before."""
        intents = self._asking.pop(event.asked, [])
        if event.reference is None:
            return [answer(intent, OutcomeCode.UNKNOWN_MODEL, event.message) for intent in intents]
        record = self._held.record_of(event.reference)
        return [effect for intent in intents for effect in self._act(record, intent)]

    def _act(self, record: Record, intent: Intent) -> Effects:
        match intent.verb:
            case Verb.LOAD:
                return self._load(record, intent)
            case Verb.PULL:
                return self._pull(record, intent)
            case Verb.UNLOAD:
                return self._unload(record, intent)
            case Verb.DROP:
                return self._drop(record, intent)
            case Verb.PIN | Verb.UNPIN:
                return self._pin(record, intent)
            case Verb.DEFAULT:
                raise AssertionError("a default is chosen for nodes, not done to a model")

    def _load(self, record: Record, intent: Intent) -> Effects:
        if record.state is EngineState.READY:
            self._held.want(record)
            return [answer(intent, OutcomeCode.DONE, f"{record.id} is loaded", record.id)]
        record.held = record.dropped = False
        record.order = self._held.book.version(record.id)
        record.forgive()
        record.retry_at_s = None  # a person does not wait for a back-off
        is_new = record.is_lazy or not record.wanted
        self._held.want(record)
        record.is_lazy = is_new  # an order that is refused for want of room is over
        record.load_waiters.append(intent.request_id)
        return []

    def _pull(self, record: Record, intent: Intent) -> Effects:
        if record.spec is not None:
            return [answer(intent, OutcomeCode.DONE, f"{record.id} is on this disk", record.id)]
        record.pull_waiters.append(intent.request_id)
        return self._fetching.download(record)

    def _unload(self, record: Record, intent: Intent) -> Effects:
        record.held |= intent.hold  # what was held stays held until somebody loads it
        return self._withdraw(record, intent)

    def _drop(self, record: Record, intent: Intent) -> Effects:
        if not record.is_served:
            message = f"this node does not serve {record.id}"
            return [answer(intent, OutcomeCode.NOT_SERVED, message, record.id)]
        record.dropped = True
        effects = self._withdraw(record, intent)
        if not intent.keep_running and not any(
            other.is_served for other in self._held.records.values() if other is not record
        ):
            effects += self._leave(f"{record.id} was dropped and was the only model")
        return effects

    @staticmethod
    def _pin(record: Record, intent: Intent) -> Effects:
        """Let a model stay in memory once it is there, or no longer: neither loads nor unloads it."""
        record.pin = intent.verb is Verb.PIN
        word = "stays in memory once it is there" if record.pin else "may make room for others"
        return [answer(intent, OutcomeCode.DONE, f"{record.id} {word}", record.id)]

    def _withdraw(self, record: Record, intent: Intent) -> Effects:
        """Take a model out of memory and answer when its process is gone."""
        effects = self._take_out(record, f"{intent.verb} of {record.id} came in between", force=intent.force)
        if not record.has_process:
            return [*effects, answer(intent, OutcomeCode.DONE, f"{record.id} is unloaded", record.id)]
        record.stop_waiters.append(intent.request_id)
        return effects

    def _take_out(self, record: Record, why: str, *, force: bool = False) -> Effects:
        """Want a model no more, and end what is done for it."""
        record.wanted, record.waiting, record.withdrawn = False, "", True
        superseded = Outcome(code=OutcomeCode.SUPERSEDED, message=why, model=record.id)
        effects: Effects = list(answers(taken(record.load_waiters), superseded))
        if record.is_downloading and not record.pull_waiters:
            record.is_downloading, record.progress = False, None
            effects.append(CancelDownload(model=record.id))
        if record.has_process:
            return effects + self._engines.stop(record, force=force)
        if record.state is not EngineState.STOPPED:
            record.signal(Signal.STOP_ASKED)
        return effects

    # -- what holds without being asked again ------------------------------------------------------------

    def obey(self) -> Effects:
        """Take out of memory what is wanted against an order: late joiners bring nothing back, nor do healed meshes."""
        effects: Effects = []
        for record in self._held.records.values():
            if not record.wanted:
                continue
            order = self._held.book.forbids(record.id, record.order)
            if order is not None:
                why = f"{record.id} was unloaded in the whole mesh, by {short(order.author)}"
            elif record.held or record.dropped:
                why = f"{record.id} was {'held' if record.held else 'dropped'} at this node"
            else:
                continue
            effects += self._take_out(record, why)
            effects.append(notice(Level.INFO, "model stays unloaded", model=record.id, reason=why))
        return effects

    def withholds(self, record: Record) -> bool:
        """Tell whether a request may not bring a model back at this node."""
        return record.held or record.dropped or self._held.book.holds(record.id, record.order)

    def remember(self) -> None:
        """Give models that came to this disk the marks that they had in an earlier run."""
        records = self._held.records
        for model in self._held_before & records.keys():
            records[model].held = True
        for model in self._dropped_before & records.keys():
            records[model].dropped = True
        for model in self._pins_before.keys() & records.keys():
            records[model].pin = self._pins_before.pop(model)
        self._held_before -= records.keys()
        self._dropped_before -= records.keys()

    def kept(self) -> KeptOrders:
        """Return what is to be remembered of orders at the next start."""
        records = self._held.records.values()
        held = self._held_before | {record.id for record in records if record.held}
        dropped = self._dropped_before | {record.id for record in records if record.dropped}
        pins = self._pins_before | {record.id: record.pin for record in records if record.pin is not None}
        return replace(
            self._held.book.kept(), held=tuple(sorted(held)[:MODELS_PER_NODE]),
            dropped=tuple(sorted(dropped)[:MODELS_PER_NODE]), pins=tuple(sorted(pins.items())[:MODELS_PER_NODE]),
        )  # fmt: skip


def _is_known(record: Record, intent: Intent) -> bool:
    """Tell whether there is something to act on: a file, the way to one, or an engine that outlives its file."""
    has_engine = record.has_process and intent.verb is not Verb.PULL
    return record.spec is not None or record.reference is not None or has_engine
