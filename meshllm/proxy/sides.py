"""Who stands around an exchange: its client, the house that helps it, and what goes on with its answer.

Owns the shapes alone, so that neither side has to know the other's module. Decides nothing. Doesn't know how any of
them does its part.
"""

from typing import TYPE_CHECKING, Protocol

from meshllm.core.ids import ModelId
from meshllm.proxy.framing import AnswerHead
from meshllm.proxy.intake import Intake
from meshllm.proxy.journal import Journal
from meshllm.proxy.openai import Problem
from meshllm.proxy.peek import Peek
from meshllm.proxy.pool import Relay
from meshllm.proxy.target import Target
from meshllm.wire.tunnel_frames import TunnelProgress, TunnelRefusal

if TYPE_CHECKING:
    from meshllm.proxy.forward import Exchange


class ClientSide(Protocol):
    """The client's connection, as an exchange sees it."""

    is_paused: bool

    def send(self, data: bytes) -> None:
        """Write bytes of the answer."""

    def exchange_done(self, status: int, *, keeps_alive: bool) -> None:
        """Count the answer, which is complete; read the next request or close."""

    def cut(self) -> None:
        """Break the connection, so that an incomplete answer cannot be taken for a whole one."""


class Recovery(Protocol):
    """Who finds another way when an engine is lost before the first byte."""

    def recover(self, exchange: "Exchange") -> None:
        """Send the request again, now or when the model is back, or answer that it cannot be."""

    def turns_elsewhere(self, exchange: "Exchange", problem: Problem) -> bool:
        """Tell whether a request that was answered with an error is to be sent elsewhere; `recover` follows."""

    def refused(self, exchange: "Exchange", refusal: TunnelRefusal) -> None:
        """Send a request elsewhere that a far end does not take, or answer that it cannot be."""

    def progressed(self, exchange: "Exchange", progress: TunnelProgress) -> None:
        """Let a waiting client know that a far end works on its request."""

    def lost(self, exchange: "Exchange", events: int) -> Problem:
        """Count an answer that broke off after so many events; return what its client is told, if it still can be."""

    def settled(self, exchange: "Exchange", *, is_ok: bool) -> None:
        """Count a request that is over."""

    def breaks_off(self, problem: Problem) -> bool:
        """Tell whether an answer is better broken off than ended with that error: somebody can go on with it."""

    def journal(self, intake: Intake, seen: Peek, target: Target) -> Journal | None:
        """Return what is to keep a stream that begins now, so that it can be resumed; None where it is not."""

    def resume(self, exchange: "Exchange", journal: Journal, problem: Problem) -> bool:
        """Let a stream go on elsewhere, or end it if nothing is missing; tell whether it is taken care of."""

    def go_on(self, exchange: "Exchange", after_s: float = 0.0) -> None:
        """Find an engine for the next thing that a resumed stream asks, now or after a pause."""


class Gauge(Protocol):
    """What keeps count of one request whose model has quotas."""

    model: ModelId

    def answered(self, document: bytes) -> None:
        """Take a whole answer."""

    def piece(self, data: bytes) -> None:
        """Take a piece of a stream, as it came."""

    def settle(self) -> None:
        """Say what was used of what is set aside here, if anything is."""

    def end(self) -> None:
        """Say what the whole request used, at whichever host."""

    def retry_after_s(self) -> int:
        """Return when it may be better, where another node has said that its model's quotas are used up."""

    def lines(self) -> bytes:
        """Return the fields of an answer that say how much is left."""


class Listener(Protocol):
    """What keeps the answer of one request, so that it can be told again."""

    def answered(self, target: Target, body: bytes) -> None:
        """Take a whole answer of that target."""

    def piece(self, data: bytes, head: AnswerHead | None) -> None:
        """Take a piece of an answer, in the chunks that it came in; the first one with its head."""

    def ended(self, target: Target) -> None:
        """Take the end of a stream that came whole from that target."""


class Rejoinder(Protocol):
    """What an exchange asks after its engine was lost in the middle of its answer."""

    def request(self, target: Target) -> tuple[Relay, bytes]:
        """Return who takes the answer of a target's engine, and what that is asked."""

    def asks_again(self) -> bool:
        """Ask all hosts again after a pause, where none has room and there is time left; tell whether that is done."""

    def told(self, problem: Problem) -> Problem | None:
        """Return what the client is told where no engine can be found; None where nothing but the end was missing."""
