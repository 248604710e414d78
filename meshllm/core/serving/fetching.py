"""From a name or a reference to a file on this disk.

Owns the requested names that no model was found for yet, and the downloads' progress. Decides where a
model comes from: the disk, the catalogue, or whatever the outside finds under that name.
"""

from typing import Protocol

from meshllm.core import events as ev
from meshllm.core.catalog import ModelReference
from meshllm.core.effects import Download, Level, ResolveModel
from meshllm.core.engines import EngineFailure, EngineFault, EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Outcome, OutcomeCode
from meshllm.core.known_models import choose_file, find, is_hub_name, reference_of, unknown_model
from meshllm.core.limits import GIB
from meshllm.core.names import Ambiguous, NameIndex, Unknown
from meshllm.core.resources import format_bytes
from meshllm.core.serving.engine_state import Signal
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.records import Record
from meshllm.core.serving.replies import Effects, answers, notice, taken
from meshllm.core.serving.sources import own_file_reference, sources_of
from meshllm.core.serving.stock import Stock
from meshllm.core.view import LoadProgress

NOBODY = NodeId("")


class AdoptedNames(Protocol):
    """What is known of the models of adopted servers."""

    @property
    def is_awaited(self) -> bool:
        """Tell whether a server has yet to say which models it has."""

    @property
    def may_return(self) -> bool:
        """Tell whether a server was never reached that may have models of any name."""

    def find(self, asked: str) -> ModelId | None:
        """Return the model that a name means there."""


class Fetching:
    """Finds models' files and brings them here."""

    def __init__(
        self, held: Holdings, requested: tuple[str, ...], eager: tuple[str, ...] = (), *,
        me: NodeId = NOBODY, stock: Stock | None = None,
    ) -> None:  # fmt: skip
        """Have these names to find models for; it matters less when none of the `eager` ones can be found.

        `stock` knows what members have.
        """
        self._me = me
        self._stock = stock if stock is not None else Stock()
        self._held = held
        self._requested = requested
        self.names = tuple(dict.fromkeys((*requested, *eager)))
        """All of them, in order."""
        self._pending: list[str] = list(self.names)
        """Requested names that no model has been found for yet."""
        self.found: dict[str, ModelId] = {}
        """What the requested names turned out to mean."""
        self._asking: set[str] = set()
        """Names being resolved outside."""
        self.unresolved: dict[str, str] = {}
        """Names asked for that stand for nothing, with the reason."""

    @property
    def is_in_vain(self) -> bool:
        """Tell whether every requested name turned out to stand for nothing."""
        return bool(self._requested) and all(name in self.unresolved for name in self._requested)

    def on_download_progressed(self, event: ev.DownloadProgressed) -> Effects:
        """Show how far a download is."""
        record = self._held.records.get(event.model)
        if record is not None and record.is_downloading:
            total = event.total_bytes or (record.reference.size_bytes if record.reference else 0)
            share = event.done_bytes / total if total else 0.0
            record.progress = LoadProgress(
                stage="downloading",
                share=min(share, 1.0),
                done_bytes=event.done_bytes,
                total_bytes=total,
                peers=event.peers,
            )
        return []

    def on_download_finished(self, event: ev.DownloadFinished) -> Effects:
        """A file is complete; the inventory will say what is in it."""
        record = self._held.records.get(event.model)
        if record is None:
            return []
        # Without a reference it is not fetched again while the inventory has yet to see the file.
        record.is_downloading, record.progress, record.reference = False, None, None
        done = Outcome(code=OutcomeCode.DONE, message=f"pulled {record.id}", model=record.id)
        return [*answers(taken(record.pull_waiters), done), notice(Level.INFO, "model downloaded", model=record.id)]

    def on_download_failed(self, event: ev.DownloadFailed) -> Effects:
        """There is no file: whoever waited for it is told why."""
        record = self._held.records.get(event.model)
        if record is None:
            return []
        record.is_downloading, record.progress = False, None
        record.failure = EngineFailure(fault=EngineFault.DOWNLOAD_FAILED, message=event.message)
        if record.state is EngineState.STOPPED and record.wanted:
            record.signal(Signal.GAVE_UP)
            record.wanted = False
        outcome = Outcome(code=OutcomeCode.DOWNLOAD_FAILED, message=event.message, model=record.id)
        waiters = taken(record.pull_waiters) + taken(record.load_waiters)
        return [
            *answers(waiters, outcome),
            notice(Level.WARNING, "download failed", model=record.id, code=event.code, reason=event.message),
        ]

    def unknown(self, asked: str) -> str:
        """Say that a name stands for nothing."""
        found = self._held.names.resolve(asked)
        return unknown_model(asked, found.near if isinstance(found, Unknown) else ())

    def ask_outside(self, asked: str) -> Effects:
        """Have a hub's name resolved, unless that is already under way."""
        if asked in self._asking:
            return []
        self._asking.add(asked)
        return [ResolveModel(asked=asked)]

    def on_asked(self, event: ev.ModelAsked) -> Effects:
        """The outside found out what a name stands for."""
        self._asking.discard(event.asked)
        if event.reference is None:
            if event.asked in self._pending:
                self.unresolved[event.asked] = event.message
            return [notice(Level.WARNING, "model not found", asked=event.asked, reason=event.message)]
        record = self._held.record_of(event.reference)
        self._held.rename()
        if event.asked in self._pending:
            self._find(event.asked, record)
        return []

    def download(self, record: Record) -> Effects:
        """Fetch a model's file, unless it is here or on its way."""
        if record.is_downloading or record.reference is None or record.spec is not None:
            return []
        most_gb = self._held.quotas.of(record.id).max_ssd_gb
        if most_gb and record.reference.size_bytes > most_gb * GIB:
            size = format_bytes(record.reference.size_bytes)
            message = f"its file has {size}, and its quota allows it {most_gb:g} GB of the disk"
            return self.on_download_failed(ev.DownloadFailed(model=record.id, code="quota_exceeded", message=message))
        record.is_downloading = True
        record.progress = LoadProgress(stage="downloading", share=0.0, total_bytes=record.reference.size_bytes)
        size = format_bytes(record.reference.size_bytes)
        peers = sources_of(record.reference, self._stock.everybody(), self._me)
        said = {"model": record.id, "size": size}
        if peers:
            said["peers"] = ", ".join(peer.name for peer in peers)
        return [Download(reference=record.reference, peers=peers), notice(Level.INFO, "downloading", **said)]

    def of_peers(self, asked: str) -> ModelReference | None:
        """Return the file that a name stands for on the disks of members, where it is clear which."""
        givers = {model: entry for model, entry in self._stock.entries.items() if entry.givers}
        found = NameIndex(tuple(givers)).resolve(asked)
        entry = givers.get(found) if isinstance(found, str) else None
        if entry is None:
            return None
        return own_file_reference(entry.model, entry.files, entry.wishes.values(), entry.givers)

    def find_pending(self, adopted: AdoptedNames) -> Effects:
        """Find models for the requested names; ask outside for those that nothing here knows.

        What an adopted server has is served already; while one may yet say that it has it, nothing is fetched.
        """
        effects: Effects = []
        for asked in list(self._pending):
            found = self._held.names.resolve(asked)
            if isinstance(found, str):
                record = self._held.records[found]
            elif isinstance(found, Ambiguous):
                self.unresolved[asked] = f"could mean any of: {', '.join(found.candidates)}"
                continue
            elif (served := adopted.find(asked)) is not None:
                self._pending.remove(asked)
                self.unresolved.pop(asked, None)
                self.found[asked] = served
                continue
            elif adopted.is_awaited:
                continue
            elif self._held.resources is None:
                continue  # a catalogue name without a quantisation needs to know the machine's size
            elif (reference := self.catalogued(asked)) is not None:
                record = self._held.record_of(reference)
            else:
                effects += [] if adopted.may_return and not is_hub_name(asked) else self._seek(asked)
                continue
            self._find(asked, record)
        self._held.rename()
        return effects

    def _find(self, asked: str, record: Record) -> None:
        """A requested name means this model: it is wanted here."""
        self._pending.remove(asked)
        self.unresolved.pop(asked, None)
        self.found[asked] = record.id
        self._held.want(record)

    def _seek(self, asked: str) -> Effects:
        """Look outside for a requested name that may be there; refuse one that cannot."""
        if asked in self.unresolved:
            return []
        if is_hub_name(asked):
            return self.ask_outside(asked)
        self.unresolved[asked] = self.unknown(asked)
        return [notice(Level.WARNING, "model not found", asked=asked, reason=self.unresolved[asked])]

    def catalogued(self, asked: str) -> ModelReference | None:
        """Return where a catalogue name's file is: as named, or the largest quantisation that fits."""
        found = find(asked)
        if found is None or self._held.resources is None:
            return None
        model, file = found
        if file is None:
            # Where none fits, the smallest: the lack of room is then explained in bytes.
            file = choose_file(model, self._held.usable_bytes()) or model.files[-1]
        return reference_of(model, file, asked)
