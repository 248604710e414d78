"""One request on its way: sent to an engine, its answer spliced to the client, accounted for.

Owns what has been sent to the client so far, and so what may still be done when an engine is lost:
before the first byte the request is tried again, after it the stream ends with one error event or is
cut, never silently. Doesn't read bodies, choose routes or wait; the front door does.
"""

import asyncio
from enum import IntEnum
from time import monotonic

from meshllm.core import limits
from meshllm.core.routing.attempts import Setback
from meshllm.proxy import openai, sse
from meshllm.proxy.attempts import Attempts
from meshllm.proxy.engine_errors import Asked, engine_problem, error_in_stream
from meshllm.proxy.framing import LAST_CHUNK, AnswerHead, chunk, payload_of
from meshllm.proxy.intake import Intake, connection_line
from meshllm.proxy.journal import Journal
from meshllm.proxy.openai import Problem
from meshllm.proxy.peek import NOTHING_SEEN, with_model
from meshllm.proxy.pool import EngineConnection
from meshllm.proxy.problem_answers import problem_answer
from meshllm.proxy.sides import ClientSide, Gauge, Listener, Recovery, Rejoinder
from meshllm.proxy.target import Target
from meshllm.wire.tunnel_frames import TunnelProgress, TunnelRefusal

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_EVENT_END = b"\n\n"
_COLLECTED_BYTES = limits.REMOTE_ERROR_TEXT_BYTES * 64
_EVENT_STREAM = AnswerHead(
    status=200, length=None, is_chunked=True, keeps_alive=True, is_event_stream=True,
    lines=b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n", sized_lines=b"",
)  # fmt: skip


class _Mode(IntEnum):
    """How a body goes out, from how it came in and what the client knows."""

    PASS = 0  # as it came
    WRAP = 1  # without chunks in, with chunks out
    UNWRAP = 2  # with chunks in, without out: HTTP/1.0
    COLLECT = 3  # an error after comments went out: it becomes an event


_PASS, _WRAP, _UNWRAP, _COLLECT = _Mode.PASS, _Mode.WRAP, _Mode.UNWRAP, _Mode.COLLECT


class Exchange(Attempts):
    """One request and its answer; the `Relay` of an engine's connection.

    Made for every request, so what only trouble needs is not set by then: it stands below, as defaults.
    """

    asked_model: str | None = None
    """As the client wrote it; meaningless for the management app, which is not routed."""
    is_stream = False
    seen = NOTHING_SEEN
    trace = b""
    since_s = 0.0
    """Monotonic time from which its own time runs."""
    first_piece_s = 0.0
    """When its answer began to come, if that comes in pieces."""
    events = 0
    """Of a stream, so far."""
    sent_s = 0.0
    """When a stream was sent to its engine, until that begins to answer; 0 for what is no stream."""
    comment_at_s = 0.0
    """When a stream that waits hears the next comment."""
    meter: Gauge | None = None
    """What keeps count, where its model has quotas."""
    keeper: Listener | None = None
    """What keeps the answer, where it may be told again."""
    again: Rejoinder | None = None
    """What it asks since its engine was lost in the middle of its answer."""
    has_begun = False
    """The head of the answer is out: only its body can still say that something failed."""
    task: asyncio.Task[None] | None = None
    """What looks for a way, while there is none."""
    _connection: EngineConnection | None = None
    _head: AnswerHead | None = None
    """A head that came and is not out yet: it goes with the first bytes of the body."""
    _has_body = False
    """Bytes of an engine's answer are out: it cannot be tried again."""
    _mode = _PASS
    _passes = False
    """The head is out and the body goes out as it comes: nothing is left to think about."""
    _journal: Journal | None = None
    _is_event_stream = False
    _is_sized = False
    """The client was told how many bytes come."""
    _failed: Problem | None = None
    """What the engine said in an event of its stream: the end of it, in our words."""
    _collected: list[bytes] | None = None
    _is_settled = False
    _status = 0

    def __init__(
        self, client: ClientSide, intake: Intake, body: bytes, request_id: bytes, house: Recovery, target: Target
    ) -> None:
        """Begin with a complete request and its first target."""
        self.began_s = monotonic()
        self.client = client
        self.intake = intake
        self.body = body
        self.request_id = request_id
        super().__init__(target)
        self.is_head = intake.is_head
        self.keeps_alive = intake.keeps_alive
        self._house = house

    # -- to the engine --------------------------------------------------------------------------------

    def begin(self, connection: EngineConnection) -> None:
        """Send the request over a connection to the target's engine."""
        target = self.target
        self.attempts += 1
        self.count()
        if self.is_stream:
            self.sent_s = monotonic()
        self._connection = connection
        relay, request = (self, self._request()) if self.again is None else self.again.request(target)
        connection.send(relay, request)
        if self.client.is_paused:
            connection.pause()

    def _request(self) -> bytes:
        target, intake, body = self.target, self.intake, self.body
        if intake.inference is not None and self.asked_model != target.model:
            body = with_model(body, self.asked_model, target.model)
        length = b"Content-Length: %d\r\n" % len(body) if intake.has_body else b""
        return b"".join((intake.engine_lines, length, target.engine_lines, self.request_id, b"\r\n\r\n", body))

    def take_over(self, connection: EngineConnection) -> None:
        """Go on with a request that was counted and sent over a connection already, under its own model's name."""
        self.asked_model = self.target.model
        self.began_s = 0.0  # nobody knows
        self.attempts = 1
        self.is_counted = True
        self._connection = connection

    def go_on_with(self, journal: Journal | None) -> None:
        """Take over in the middle of an answer, a stream of events that went out as it came."""
        self.sent_s, self._status = 0.0, 200
        self.has_begun = self._has_body = self._is_event_stream = self._passes = True
        self._journal = journal

    # -- Relay: from the engine -----------------------------------------------------------------------

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        """Pass a complete answer on in one write; errors of engines in our own words."""
        self._connection = None
        self._status = head.status
        if self.watch is not None:
            self.watch.begins()
        if self.plan is not None and head.status < 400:
            self.plan.answered(body)
        if self.meter is not None and head.status < 400:
            self.meter.answered(body)
        if self.keeper is not None and head.status == 200 and not self._has_body:
            self.keeper.answered(self.target, body)
        if self.intake.inference is not None and head.status >= 400:
            self._answer_or_turn(self._problem(head.status, body))
            return
        if self.has_begun:
            self.client.send(self._framed(body) + self._ending())
        else:
            self.client.send(b"%b%b\r\n%b" % (head.sized_lines, self._lines(), body))
        self._finish(is_failure=head.status >= 500)

    def on_head(self, head: AnswerHead) -> "Exchange":
        """Keep the head until bytes of the body come: until then the request can be tried again."""
        self._head = head
        return self

    def on_piece(self, data: bytes) -> None:
        """Pass a piece of the body on."""
        self.events += data.count(_EVENT_END)
        if self._passes:
            if self._journal is not None:
                self._journal.keep(data)
            self.client.send(data)
        elif self._failed is None:
            self._pass_piece(data)

    def on_suspect_piece(self, data: bytes) -> None:
        """Pass a piece of an event stream on up to the engine's own error, if it holds one."""
        if self.target.peer is not None:
            self.on_piece(data)  # its own node has put it into our words already
        elif self._failed is None and (before := self._before_error(data)):
            self._pass_piece(before)

    def _pass_piece(self, data: bytes) -> None:
        """Do what `on_piece` does, for the first piece and those that are not only passed on as they are."""
        if self.plan is not None:
            self.plan.tail.append(data)
        if self.meter is not None:
            self.meter.piece(data)
        if self.keeper is not None:
            self.keeper.piece(data, self._head)
        if self._head is not None:
            self.first_piece_s = monotonic()
            if self.sent_s:
                self.traffic.first_token(self.first_piece_s - self.sent_s)
                self.sent_s = 0.0
            if self.plan is not None:
                self.plan.begun(is_chunked=self._head.is_chunked)
            if self.watch is not None:
                self.watch.begins()
            if self._head.is_event_stream and self._head.is_chunked and self._head.status == 200:
                self._journal = self._house.journal(self.intake, self.seen, self.target)
        if self._journal is not None:
            self._journal.keep(data)
        if self._head is not None:
            data = self._opening(self._head) + self._framed(data)
            self._head = None
            self._has_body = True
            self._passes = self._mode is _PASS and self._failed is None and self.plan is None
            self._passes = self._passes and self.meter is None and self.keeper is None
        else:
            data = self._framed(data)
        if data:
            self.client.send(data)

    def _before_error(self, data: bytes) -> bytes:
        """Return what comes before the engine's own error event, if there is one; that is told at the end, as ours."""
        payload = payload_of(data)
        found = error_in_stream(payload, self._asked)
        if found is None:
            return data
        start, self._failed = found
        self.keeper = None
        self._passes = False
        return chunk(payload[:start]) if start else b""

    def on_end(self) -> None:
        """Finish: everything was passed on."""
        self._connection = None
        if self._failed is not None:
            self.answer(self._failed)
            return
        if self._head is not None:
            self.on_piece(b"")
        if self._mode is _COLLECT:
            self.answer(self._problem(502, b"".join(self._collected or [])))
            return
        if self._mode is _WRAP:
            self.client.send(LAST_CHUNK)
        if self.plan is not None and self._is_event_stream:
            self.plan.told()
        if self.keeper is not None and self.again is None:
            self.keeper.ended(self.target)
        self._finish(is_failure=self._status >= 500)

    def on_lost(self, *, was_stale: bool, is_between: bool, chunks: int) -> None:
        """Try again before the first byte; after it, go on elsewhere, end the stream with an error or break it."""
        connection, self._connection = self._connection, None
        if self._failed is not None:
            self.answer(self._failed)
            return
        if not self._has_body:
            self.lost_before(was_stale=was_stale)
            return
        self._head = None
        self.note_failure(was_stale=False)
        self.losses += connection is not None and connection.has_lost_engine
        problem = self._house.lost(self, chunks)
        if self._journal is not None and is_between and self._house.resume(self, self._journal, problem):
            return
        if not self._can_say_more or self._house.breaks_off(problem):
            self.uncount(is_failure=True)
            self._settle(is_ok=False)
            self.client.cut()
            return
        self.answer(problem, gap=b"" if is_between else _EVENT_END)

    def lost_before(self, *, was_stale: bool) -> None:
        """Try again: nothing came of this engine."""
        self._connection = self._head = None
        is_known = self.again is not None and self.failed_at == self.target.pool.endpoint
        self.note_failure(was_stale=was_stale, is_known=is_known)
        self.uncount(is_failure=not was_stale)
        if self.intake.is_repeatable:
            self._house.recover(self)
        else:
            message = "the management app broke off; whether it did what was asked is not known"
            self.answer(Problem(status=502, code="management_lost", message=message))

    @property
    def _asked(self) -> Asked:
        door = self.intake.inference
        return Asked(
            prompt_field=door.prompt_field if door is not None else "", context_tokens=self.target.context_tokens
        )

    def on_refused(self, refusal: TunnelRefusal) -> None:
        """Try elsewhere: the far end of a tunnel has not begun."""
        self._connection = None
        self.uncount(is_failure=False)
        self._house.refused(self, refusal)

    def on_progress(self, progress: TunnelProgress) -> None:
        """Pass on that a far end works, as long as it has not begun to answer."""
        if self._head is None and not self._has_body:
            self._house.progressed(self, progress)

    def _problem(self, status: int, body: bytes) -> Problem:
        """Read an error: another node's as it is, an engine's in our own words."""
        if self.target.peer is not None and (told := openai.far_problem(status, body)) is not None:
            return told
        return engine_problem(status, body, self._asked)

    def failed(self, status: int, body: bytes, *, is_final: bool) -> None:
        """Take an engine's error in place of what an answer goes on with; another host may do better, unless final."""
        self.hang_up()
        problem = self._problem(status, body)
        if is_final or self.target.peer is None:
            self.answer(problem)
            return
        if not self._house.turns_elsewhere(self, problem):
            self.note(Setback.FAILED, problem)
        self.uncount(is_failure=False)
        self._house.recover(self)

    def next_leg(self, *, is_failure: bool = False, after_s: float = 0.0) -> None:
        """Ask the next thing that its answer goes on with."""
        self._connection = None
        self.uncount(is_failure=is_failure)
        self._house.go_on(self, after_s)

    def hang_up(self) -> None:
        """End what the engine is at, if it still is."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.relay is not None:
            connection.cancel()

    def _answer_or_turn(self, problem: Problem) -> None:
        """Answer with an error, or try where it may be better."""
        if self._house.turns_elsewhere(self, problem):
            self.uncount(is_failure=False)
            self._house.recover(self)
        else:
            self.answer(problem)

    # -- to the client --------------------------------------------------------------------------------

    @property
    def _can_say_more(self) -> bool:
        """Tell whether the answer can still be ended with an event: it is a stream of them, of no announced length."""
        return self._is_event_stream and not self._is_sized

    def answer(self, problem: Problem, gap: bytes = b"") -> None:
        """End with an error: as an answer, or as one event once the answer has begun. No `[DONE]`, no silence.

        `gap` ends half an event, which is no JSON and so an error to its reader, too.
        """
        told = problem if self.again is None else self.again.told(problem)
        if told is None:
            self.on_end()
            return
        problem = told
        if self.has_begun:
            self._mode = _WRAP if self.intake.head.minor else _PASS
            document = openai.error_document(problem, anthropic=self.intake.is_anthropic)
            event = sse.anthropic_error_event if self.intake.is_anthropic else sse.error_event
            self.client.send(self._framed(gap + event(document)) + self._ending())
        else:
            self._status = problem.status
            self.client.send(problem_answer(problem, self.intake, self._lines()))
        self._finish(is_failure=problem.status >= 500)

    def send_comment(self, text: str) -> None:
        """Tell a waiting stream how far its model is, and so keep the connection alive. Anthropic's are only pinged."""
        opening = b""
        if not self.has_begun:
            opening = self._opening(_EVENT_STREAM)
        self._mode = _WRAP if self.intake.head.minor else _PASS
        news = sse.anthropic_ping() if self.intake.is_anthropic else sse.comment(text)
        self.client.send(opening + self._framed(news))

    def say(self, events: bytes) -> None:
        """Send whole events of our own wording, in an answer that has begun."""
        self._mode = _WRAP if self.intake.head.minor else _PASS
        self.client.send(self._framed(events))

    def ask_if_alive(self) -> None:
        """Write something harmless: a client that is gone, not only done sending, resets the connection."""
        if self.intake.head.minor == 0:
            return
        if not self.has_begun:
            self.client.send(_CONTINUE)
        elif self.again is not None:
            self.say(sse.comment(""))
        elif self._is_event_stream and self._mode is _PASS and self._is_between_events:
            self.client.send(chunk(sse.comment("")))

    @property
    def _is_between_events(self) -> bool:
        return self._connection is not None and self._connection.is_between_events

    def pause(self) -> None:
        """Stop reading from the engine."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read from the engine again."""
        if self._connection is not None:
            self._connection.resume()

    def cancel(self) -> None:
        """The client is gone: hang up on the engine and stop waiting."""
        if self._connection is not None:
            self._connection.cancel()
            self._connection = None
        if self.task is not None:
            self.task.cancel()
        self.uncount(is_failure=False)
        self._settle(is_ok=self.attempts > 0)

    def end_early(self, problem: Problem) -> None:
        """The node leaves: hang up on the engine and end the answer as well as it still can be ended."""
        is_between = self._is_between_events
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.cancel()
        if self.task is not None:
            self.task.cancel()
        if not self._has_body or (self._can_say_more and not self._house.breaks_off(problem)):
            self.answer(problem, gap=b"" if is_between or not self._has_body else _EVENT_END)
        else:
            self.uncount(is_failure=True)
            self._settle(is_ok=False)
            self.client.cut()

    def _lines(self) -> bytes:
        """Return our own fields of the answer."""
        intake, plan = self.intake, self.plan
        lines = self.target.client_lines if plan is None else plan.lines(self.target)
        if self.meter is not None:
            lines += self.meter.lines()
        return b"X-Request-ID: %b\r\n%bX-Mesh-Attempts: %d\r\n%b%b" % (
            self.request_id, lines, max(self.attempts, 1), intake.cors_lines,
            connection_line(intake.head.minor, keeps_alive=self.keeps_alive),
        )  # fmt: skip

    def _opening(self, head: AnswerHead) -> bytes:
        """Return the head as it goes out, and settle how the body goes out. Empty if one is out already."""
        is_modern = self.intake.head.minor == 1
        lines = head.lines
        if head.length is not None:
            self._mode = _PASS if not self.has_begun or not is_modern else _WRAP
            self._is_sized = not self.has_begun
            lines = head.sized_lines
        else:
            self._mode = _PASS if head.is_chunked == is_modern else _WRAP if is_modern else _UNWRAP
            lines = head.lines + b"Transfer-Encoding: chunked\r\n" if is_modern else head.lines
            self.keeps_alive = self.keeps_alive and is_modern
        self._is_event_stream = head.is_event_stream
        if self.has_begun:
            if head.status != 200:
                self._mode = _COLLECT
            return b""
        self.has_begun = True
        self._status = head.status
        return b"%b%b\r\n" % (lines, self._lines())

    def _framed(self, data: bytes) -> bytes:
        """Return a piece of the body as it goes out."""
        if not data or self._mode is _PASS:
            return data
        if self._mode is _WRAP:
            return chunk(data)
        if self._mode is _UNWRAP:
            return payload_of(data)
        collected = self._collected = self._collected or []
        if sum(map(len, collected)) < _COLLECTED_BYTES:
            collected.append(data)
        return b""

    def _ending(self) -> bytes:
        return LAST_CHUNK if self._mode is _WRAP else b""

    # -- accounting -----------------------------------------------------------------------------------

    @property
    def status(self) -> int:
        """Return the status that went out; 0 before one did."""
        return self._status

    def _settle(self, *, is_ok: bool) -> None:
        """Say once how the whole request ended."""
        is_settled, self._is_settled = self._is_settled, True
        if not is_settled:
            self._house.settled(self, is_ok=is_ok)

    def _finish(self, *, is_failure: bool) -> None:
        self.uncount(is_failure=is_failure)
        self._settle(is_ok=not is_failure and self._status != 429)
        self.client.exchange_done(self._status, keeps_alive=self.keeps_alive)
