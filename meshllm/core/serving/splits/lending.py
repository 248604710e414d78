"""This node as a worker: what it lends to the hosts of models that are shared, and when that ends.

Owns the loans and their fences. Decides which offers it agrees to, and which loan nobody needs any more. Doesn't know
how a server is run, nor who planned the split: whoever has the rights may ask, and gets a reason in words.

Invariants: what is lent never exceeds what is free here; of one model there is one loan at a time; a host is told that
a server is ready only while it is, and that it has ended unless that host asked for it.
"""

from meshllm.core import events as ev
from meshllm.core.announcement import ServedModel, ServingState
from meshllm.core.effects import EndLending, Lend, Level, Send
from meshllm.core.ids import ModelId, NodeId, short
from meshllm.core.messages import SplitAnswer, SplitEnded, SplitOffer, SplitRelease
from meshllm.core.resources import format_bytes
from meshllm.core.rights import Rights
from meshllm.core.serving.holdings import Holdings
from meshllm.core.serving.replies import Effects, notice
from meshllm.core.serving.splits.epochs import Fence, FenceVerdict
from meshllm.core.serving.splits.loans import Loan
from meshllm.core.serving.splits.neighbourhood import Neighbourhood, alone
from meshllm.core.split_limits import SPLIT_FENCES, SPLIT_FORGOTTEN_S

_LOADED = frozenset({ServingState.READY, ServingState.DRAINING})
_BORROWS = Rights.HOST | Rights.RPC


class Lending:
    """What this node lends."""

    def __init__(self, me: NodeId, held: Holdings) -> None:
        """Lend nothing yet."""
        self.around: Neighbourhood = alone()
        self.may_lend = False
        """This node has the right, and was not told to keep what it has."""
        self.is_leaving = False
        self._me = me
        self._held = held
        self._fences: dict[ModelId, Fence] = {}
        self._pending: dict[ModelId, tuple[NodeId, SplitOffer]] = {}
        """Offers that wait for the end of an earlier loan."""

    # -- what hosts say ----------------------------------------------------------------------------------------

    def on_offer(self, peer: NodeId, offer: SplitOffer, now_s: float) -> Effects:
        """A host asks for memory."""
        fence = self._fences.get(offer.model, Fence())
        refusal = self._refusal(peer)
        if refusal:
            return [self._refused(peer, offer, refusal)]
        taken, verdict = fence.offered(offer.epoch, peer)
        loan = self._held.lent.get(offer.model)
        match verdict:
            case FenceVerdict.BUSY if loan is not None:
                return self._make_way(peer, offer, loan)
            case FenceVerdict.AGREE if loan is not None and loan.memory_bytes != offer.memory_bytes:
                why = f"it agreed to something else in epoch {offer.epoch}"  # of the host's earlier life
                return [self._refused(peer, offer, why)]
            case FenceVerdict.AGREE if loan is not None:
                return [self._ready(peer, offer)] if loan.is_ready and not loan.is_ending else []  # asked twice
            case FenceVerdict.AGREE:
                pass
            case _:
                words = {
                    FenceVerdict.FORGED: "there is no such epoch",
                    FenceVerdict.TAKEN: "it agreed to this epoch of another host",
                }  # fmt: skip
                why = words.get(verdict, f"it agreed to epoch {fence.epoch} already")
                return [self._refused(peer, offer, why)]
        if (lack := self._lack(offer)) is not None:
            return [self._refused(peer, offer, lack)]
        return self._lend(peer, offer, taken, now_s)

    def on_release(self, peer: NodeId, release: SplitRelease) -> Effects:
        """A host does not need a loan any more."""
        pending = self._pending.get(release.model)
        if pending is not None and pending[0] == peer and pending[1].epoch <= release.epoch:
            del self._pending[release.model]
        loan = self._held.lent.get(release.model)
        if loan is None or (loan.host, loan.epoch) != (peer, release.epoch):
            return []
        return self._end(release.model, loan, "its host does not need it any more")

    # -- what the server does ------------------------------------------------------------------------------------

    def on_server(self, event: ev.LendingReady | ev.LendingEnded, now_s: float) -> Effects:
        """A server listens, or is gone."""
        return self._on_ready(event) if isinstance(event, ev.LendingReady) else self._on_ended(event, now_s)

    def _on_ready(self, event: ev.LendingReady) -> Effects:
        """A server listens: its host may use it."""
        loan = self._held.lent.get(event.model)
        if loan is None or loan.epoch != event.epoch or loan.is_ending:
            return []
        loan.is_ready = True
        answer = SplitAnswer(model=event.model, epoch=event.epoch, highest=event.epoch)
        return [Send(peer=loan.host, message=answer)]

    def _on_ended(self, event: ev.LendingEnded, now_s: float) -> Effects:
        """A server is gone, and its memory is free."""
        loan = self._held.lent.get(event.model)
        if loan is None or loan.epoch != event.epoch:
            return []
        del self._held.lent[event.model]
        self._held.note_freed(loan.memory_bytes)
        self._fences[event.model] = self._fences[event.model].released(event.epoch)
        effects: Effects = []
        if not loan.is_ending:
            reason = event.message or "its server ended"
            effects += [
                Send(peer=loan.host, message=SplitEnded(model=event.model, epoch=event.epoch, reason=reason)),
                notice(Level.WARNING, "a part of a shared model is lost", model=event.model, reason=reason),
            ]
        if (pending := self._pending.pop(event.model, None)) is not None:
            effects += self.on_offer(*pending, now_s)
        return effects

    def measured(self) -> None:
        """The machine was measured: what is loaded shows in what is free."""
        for loan in self._held.lent.values():
            loan.is_measured = loan.is_loaded

    # -- when nobody says anything ------------------------------------------------------------------------------

    def settle(self, now_s: float) -> Effects:
        """End what its host has forgotten, replaced, or died with."""
        effects: Effects = []
        for model, loan in sorted(self._held.lent.items()):
            if not loan.is_ending and (why := self._outlived(model, loan, now_s)):
                effects += self._end(model, loan, why)
        return effects

    def concerns(self, nodes: set[NodeId]) -> bool:
        """Tell whether any of these nodes has borrowed something."""
        return any(loan.host in nodes for loan in self._held.lent.values())

    def leave(self) -> Effects:
        """Lend nothing more: this node is about to go."""
        self.is_leaving = True
        self._pending.clear()
        effects: Effects = []
        for model, loan in sorted(self._held.lent.items()):
            if not loan.is_ending:
                ended = SplitEnded(model=model, epoch=loan.epoch, reason="the node is shutting down")
                effects += [Send(peer=loan.host, message=ended), *self._end(model, loan, "this node is leaving")]
        return effects

    def next_s(self) -> float | None:
        """Return when the next loan is forgotten, if its host says nothing of it."""
        loans = [loan for loan in self._held.lent.values() if not loan.is_ending]
        return min((loan.seen_s + SPLIT_FORGOTTEN_S for loan in loans), default=None)

    def _outlived(self, model: ModelId, loan: Loan, now_s: float) -> str:
        said = self.around.said(loan.host)
        if said is None:
            return "its host is gone"
        shared = next((one for one in said.serving if one.model == model and one.shared is not None), None)
        epoch = _epoch(shared)
        if epoch == loan.epoch and not self._is_part(shared):
            return "its host shares it with others"  # it has begun its numbers anew
        if epoch == loan.epoch:
            loan.seen_s = now_s
            loan.is_loaded = loan.is_loaded or (shared is not None and shared.state in _LOADED)
        elif epoch > loan.epoch:
            return f"its host is at epoch {epoch}"
        return "its host has forgotten it" if now_s - loan.seen_s >= SPLIT_FORGOTTEN_S else ""

    def _is_part(self, served: ServedModel | None) -> bool:
        parts = served.shared.parts if served is not None and served.shared is not None else ()
        return any(part.node == self._me for part in parts)

    # -- agreeing ------------------------------------------------------------------------------------------------

    def _refusal(self, peer: NodeId) -> str:
        """Return why a peer gets nothing, whatever it asks for; empty where it may ask."""
        rights, build = self.around.rights_of(peer), self._held.build
        if rights is None or _BORROWS & ~rights:
            return "the host has no right to borrow memory"
        if self.is_leaving:
            return "it is shutting down"
        if not self.may_lend:
            return "it lends nothing: its token carries no such right, or it was started with --no-rpc"
        if build is None or build.sharing is None:
            return "its engine cannot share models"
        return ""

    def _lack(self, offer: SplitOffer) -> str | None:
        if not self._held.can_plan:
            return "its machine is not known yet"
        room = self._held.room()
        free = room.gpu_bytes if self._held.whole().gpu_bytes else room.host_bytes
        if offer.memory_bytes <= free:
            return None
        return f"{format_bytes(offer.memory_bytes)} are asked for, {format_bytes(free)} are free"

    def _make_way(self, peer: NodeId, offer: SplitOffer, loan: Loan) -> Effects:
        """End an earlier loan for a later one of the same host, or of another one where that host is gone."""
        if loan.host != peer and not loan.is_ending and self.around.said(loan.host) is not None:
            return [self._refused(peer, offer, f"it lends to {self._name(loan.host)}")]
        self._pending[offer.model] = (peer, offer)
        return [] if loan.is_ending else self._end(offer.model, loan, f"epoch {offer.epoch} follows")

    def _lend(self, peer: NodeId, offer: SplitOffer, fence: Fence, now_s: float) -> Effects:
        self._remember(offer.model, fence)
        self._held.lent[offer.model] = Loan(
            epoch=offer.epoch, host=peer, memory_bytes=offer.memory_bytes, seen_s=now_s
        )  # fmt: skip
        record = self._held.records.get(offer.model)
        spec = record.spec if record is not None else None
        is_it = spec is not None and spec.digest == offer.digest and bool(offer.digest)
        resources = self._held.resources
        lend = Lend(
            model=offer.model, digest=offer.digest, epoch=offer.epoch, host=peer, first_layer=offer.first_layer,
            layers=offer.layers, memory_bytes=offer.memory_bytes,
            threads=self._held.wishes.threads or (resources.cores if resources is not None else 1),
            path=spec.path if spec is not None and is_it else "",
        )  # fmt: skip
        line = notice(
            Level.INFO, "lending memory", model=offer.model, host=self._name(peer), layers=offer.layers,
            memory=format_bytes(offer.memory_bytes),
        )  # fmt: skip
        return [lend, line]

    def _remember(self, model: ModelId, fence: Fence) -> None:
        self._fences.pop(model, None)
        self._fences[model] = fence
        surplus = max(len(self._fences) - SPLIT_FENCES, 0)
        for old in [one for one, known in self._fences.items() if not known.is_held][:surplus]:
            del self._fences[old]

    @staticmethod
    def _end(model: ModelId, loan: Loan, why: str) -> Effects:
        loan.is_ending = True
        line = notice(Level.INFO, "taking back what was lent", model=model, reason=why)
        return [EndLending(model=model, epoch=loan.epoch), line]

    def _refused(self, peer: NodeId, offer: SplitOffer, why: str) -> Send:
        highest = self._fences.get(offer.model, Fence()).epoch
        answer = SplitAnswer(model=offer.model, epoch=offer.epoch, refusal=why, highest=highest)
        return Send(peer=peer, message=answer)

    @staticmethod
    def _ready(peer: NodeId, offer: SplitOffer) -> Send:
        answer = SplitAnswer(model=offer.model, epoch=offer.epoch, highest=offer.epoch)
        return Send(peer=peer, message=answer)

    def _name(self, node: NodeId) -> str:
        said = self.around.said(node)
        return said.name if said is not None and said.name else short(node)


def _epoch(served: ServedModel | None) -> int:
    return served.shared.epoch if served is not None and served.shared is not None else 0
