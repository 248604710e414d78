"""A stream whose engine was lost in the middle goes on at another one, as if nothing had happened.

Owns the steps to that: the prompt as text, the tokens that were said, then the rest. Decides whether a stream is
resumed: one plain text is, at most twice. Doesn't look for engines (`pursuit`), nor word what is told (`retelling`).

Invariant: what the client has stays what it is. Nothing of it is said again, and nothing is left out at the seam.
"""

from collections.abc import Callable
from enum import Enum, auto
from time import monotonic

import msgspec

from meshllm.core import limits
from meshllm.core.ids import short
from meshllm.core.routing.attempts import Setback
from meshllm.core.view import MeshView
from meshllm.proxy import sse, thoughts
from meshllm.proxy.forward import Exchange
from meshllm.proxy.framing import AnswerHead, payload_of
from meshllm.proxy.intake import Intake
from meshllm.proxy.journal import Journal, Story, events_of
from meshllm.proxy.openai import HOST_LOST, Problem
from meshllm.proxy.peek import Peek, with_model
from meshllm.proxy.pool import Relay, TunnelEnd
from meshllm.proxy.resumable import CHAT, MESSAGES, RESPONSES, RESUMABLE, TEXT, Wanted, read_wanted
from meshllm.proxy.retelling import Repeat, Rest, Retelling
from meshllm.proxy.story_chat import ChatStory
from meshllm.proxy.story_messages import MessageStory
from meshllm.proxy.story_responses import ResponseStory
from meshllm.proxy.target import Target, Trip
from meshllm.proxy.targets import Targets
from meshllm.proxy.traffic import Traffic
from meshllm.wire.tunnel_frames import TunnelProgress, TunnelRefusal

_HELD_BYTES = limits.HTTP_BODY_BYTES + limits.STREAM_JOURNAL_BYTES
_LINES = b"POST %b HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\nAccept: */*\r\nContent-Length: %d\r\n"
_FULL = 429
_CHANNELS = "<|start|>assistant"
"""How prompts end behind which an engine first says what is no text: what was said does not fit there."""


class Resumer:
    """Resumes the streams of one front door."""

    def __init__(self, targets: Targets, traffic: Traffic, pause_s: Callable[[], float]) -> None:
        """Find files and names where requests go; count in `traffic`; ask again after `pause_s`."""
        self._targets = targets
        self._views = targets.views
        self._traffic = traffic
        self.pause_s = pause_s

    def journal(self, intake: Intake, seen: Peek, target: Target) -> Journal | None:
        """Return what is to keep a stream that begins; None where it could not be resumed anyway."""
        if not (seen.may_resume and intake.may_resume):
            return None
        door, end = intake.inference, target.pool.endpoint
        if door is None or door.path not in RESUMABLE or (not isinstance(end, TunnelEnd) and end.is_adopted):
            return None
        return Journal(_story(door.path, target))

    def resume(self, exchange: Exchange, journal: Journal, problem: Problem) -> bool:
        """Let a stream go on elsewhere, or end it if nothing is missing; return False if neither can be."""
        again, story = exchange.again, journal.story()
        if story.is_done:
            exchange.say(b"")
            exchange.on_end()
            return True
        if not isinstance(again, Continuation):
            wanted = read_wanted(exchange.intake, exchange.body)
            name = name_of(exchange.target, self._views.newest)
            if wanted is None or not name:
                return False
            story.wants_usage = wanted.has_usage
            exchange.asked_model = name
            again = Continuation(exchange, wanted, story, self)
        return again.lose(problem)

    def has_other_way(self, exchange: Exchange) -> bool:
        """Tell whether a host is left that an exchange was not at, nor is."""
        door = exchange.intake.inference
        found = self._targets.find(exchange.asked_model, door, exchange.seen.wishes) if door is not None else None
        if not isinstance(found, Target) or exchange.trip is None:
            return False
        been = {exchange.target.node, *exchange.trip.trail.setbacks}
        return any(target.node not in been for target in (found, *found.others))

    def begun(self, target: Target) -> str:
        """Count a stream that goes on at a target; return that node's name."""
        self._traffic.resumed += 1
        view, node = self._views.newest, target.node
        if node == view.me.node:
            return view.me.name
        names = (replica.name for replica in view.replicas.get(target.model, ()) if replica.node == node)
        return next(names, None) or short(node)


def name_of(target: Target, view: MeshView) -> str:
    """Return the name that means exactly the file of a target; empty where there is none.

    A file of this node whose digest is not known yet has no replicas: its name is enough.
    """
    end, model = target.pool.endpoint, target.model
    if isinstance(end, TunnelEnd):
        return f"{model}@{end.digest}" if end.digest else ""
    local = view.local.get(model)
    if local is None or local.spec is None or end.is_adopted:
        return ""
    return f"{model}@{local.spec.digest}" if local.spec.digest else model


def _story(path: bytes, target: Target) -> Story:
    """Return the story that a door's stream begins."""
    if path == MESSAGES:
        return MessageStory()
    if path == RESPONSES:
        return ResponseStory(target.model)
    return ChatStory(is_chat=path == CHAT)


class _Leg(Enum):
    """What is asked of an engine next."""

    TEMPLATE = auto()  # the prompt as text
    MARK = auto()  # whether the end of thoughts is a token
    COUNT = auto()  # how many tokens were said
    TEXT = auto()  # what comes behind them
    AGAIN = auto()  # everything: nothing was said


class Continuation:
    """The rest of one stream; the `Relay` of every connection that it is asked over."""

    is_head = False

    def __init__(self, exchange: Exchange, wanted: Wanted, story: Story, house: Resumer) -> None:
        """Go on behind a story."""
        self._exchange = exchange
        self._wanted = wanted
        self._story = story
        self._house = house
        self._resumptions = 0
        self._lost: list[Target] = []
        self._loss: Problem
        self._ends_s = 0.0
        """Until when hosts that have no room are asked again."""
        self._leg = _Leg.AGAIN
        self._prompt = wanted.prompt if wanted.path == TEXT else ""
        self._counted = 0
        """Tokens of the text that was said before the present engine."""
        self._reason: str | None = None
        """Why the text ended, where that is known before the present engine is asked."""
        self._retelling: Retelling
        self._has_said = False
        """Words of the present engine are out."""
        self._target: Target
        self._head: AnswerHead
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._is_hung_up = False
        self._events = 0

    # -- for the exchange -----------------------------------------------------------------------------

    def lose(self, problem: Problem) -> bool:
        """Take note that an engine was lost, and why; return whether the stream goes on, or ended as it should."""
        exchange, story, wanted = self._exchange, self._story, self._wanted
        if story.reason is not None and (story.has_usage or not wanted.has_usage):
            self._end_without_usage(story.reason)
            return True
        if problem.code != HOST_LOST or self._resumptions >= limits.STREAM_RESUMPTIONS or not self._may_go_on:
            return False
        self._resumptions += 1
        self._loss = problem
        self._lost.append(exchange.target)
        self._leg = _Leg.AGAIN if not story.has_begun else _Leg.COUNT if self._prompt else _Leg.TEMPLATE
        self._reason, self._has_said, self._events = story.reason, False, 0
        exchange.again = self
        exchange.waits, exchange.wait_most_s = None, limits.STREAM_RESUME_WAIT_S
        self._ends_s = monotonic() + limits.STREAM_RESUME_ROOM_S
        self._look_elsewhere()
        exchange.next_leg(is_failure=True)
        return True

    @property
    def _may_go_on(self) -> bool:
        """Tell whether what was said can have more behind it; thoughts that have a bound of their own cannot."""
        story, wanted = self._story, self._wanted
        if story.is_odd or not story.has_begun:
            return not story.is_odd
        is_bound = bool(story.thoughts) and not story.text and wanted.has_budget
        return wanted.is_plain and not is_bound

    def _look_elsewhere(self) -> None:
        """Let the exchange go anywhere but where it was lost."""
        exchange, trip = self._exchange, Trip()
        if exchange.trip is not None:
            trip.trail.context_over = exchange.trip.trail.context_over
        for target in self._lost:
            trip.note(target, Setback.LOST)
        exchange.trip = trip

    def request(self, target: Target) -> tuple[Relay, bytes]:
        """Return what a target is asked now, and who takes the answer."""
        self._target, self._held, self._held_bytes, self._is_hung_up = target, [], 0, False
        path, body = self._asking(target.model)
        lines = _LINES % (path, len(body))
        return self, b"%b%b%b\r\n\r\n%b" % (lines, target.engine_lines, self._exchange.request_id, body)

    def told(self, problem: Problem) -> Problem | None:
        """Return what a client is told whose stream does not go on; None where only its end was missing."""
        if self._has_said:
            return problem
        if self._reason is not None:
            self._exchange.say(Rest(self._wanted, self._story, self._counted, self._reason).ending() or b"")
            return None
        message = f"{self._loss.message}; it could not be continued: {problem.message}"
        return Problem(status=502, code=HOST_LOST, message=message, type="server_error")

    # -- what is asked --------------------------------------------------------------------------------

    def _asking(self, model: str) -> tuple[bytes, bytes]:
        """Return path and body of the next request."""
        wanted, leg = self._wanted, self._leg
        if leg is _Leg.AGAIN:
            return wanted.path, with_model(self._exchange.body, wanted.model, model)
        if leg is _Leg.TEMPLATE:
            return b"/apply-template", msgspec.json.encode(wanted.for_template(model))
        if leg is _Leg.COUNT:
            return b"/tokenize", msgspec.json.encode({"model": model, "content": self._said, **self._with_marks})
        if leg is _Leg.MARK:
            return b"/tokenize", msgspec.json.encode({"model": model, "content": thoughts.CLOSES, **self._with_marks})
        text = self._said
        prompt: object = [*self._prompt, text] if isinstance(self._prompt, list) else self._prompt + text
        left = self._left if self._reason is None else 1
        return b"/v1/completions", msgspec.json.encode(wanted.for_rest(model, prompt, left))

    @property
    def _said(self) -> str:
        """Return what was said behind the prompt."""
        story = self._story
        prompt = self._prompt if isinstance(self._prompt, str) else ""
        return thoughts.behind_prompt(prompt, story.thoughts, story.text)

    @property
    def _with_marks(self) -> dict[str, object]:
        return {"parse_special": True} if self._story.thoughts else {}

    @property
    def _left(self) -> int | None:
        """Return how many tokens may still be said; None for any number."""
        most = self._wanted.most_tokens
        return None if most is None else most - self._counted

    # -- Relay: from the engine -----------------------------------------------------------------------

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        """Take the answer to a question, or an error."""
        if head.status != 200:
            self._failed(head.status, body)
        elif self._leg is _Leg.TEMPLATE:
            self._take_prompt(_field(body, "prompt"))
        elif self._leg is _Leg.COUNT:
            self._take_tokens(_field(body, "tokens"))
        elif self._leg is _Leg.MARK:
            self._take_mark(_field(body, "tokens"))
        else:
            self._failed(502, b"the answer is no stream")

    def _take_prompt(self, prompt: object) -> None:
        if not isinstance(prompt, str) or not prompt or self._hides_what_comes_first(prompt):
            self._failed(502, b"the template of the model leaves no place for what was said")
            return
        self._prompt, self._leg = prompt, _Leg.COUNT
        if self._story.thoughts and not thoughts.opens_thoughts(prompt):
            self._leg = _Leg.MARK
        self._exchange.next_leg()

    def _hides_what_comes_first(self, prompt: str) -> bool:
        """Tell whether what was told cannot be what came behind a prompt."""
        if prompt.rstrip().endswith(_CHANNELS):
            return True
        return thoughts.opens_thoughts(prompt) and not self._story.thoughts and not self._wanted.thinks_aloud

    def _take_mark(self, tokens: object) -> None:
        """Go on where thoughts end with a token of the model's own; other marks are not known."""
        if not isinstance(tokens, list) or len(tokens) != 1:
            self._failed(502, b"how the model marks its thoughts is not known")
            return
        self._leg = _Leg.COUNT
        self._exchange.next_leg()

    def _take_tokens(self, tokens: object) -> None:
        if not isinstance(tokens, list):
            self._failed(502, b"what was said could not be counted")
            return
        self._counted, self._leg = len(tokens), _Leg.TEXT
        left = self._left
        if self._reason is None and left is not None and left <= 0:
            self._reason = "length"
        if self._reason is None and self._story.is_closed:
            self._reason = "stop"
        self._ask_for_rest()

    def _ask_for_rest(self) -> None:
        """Ask for what is missing; that may be no more than how much the whole was."""
        if self._reason is not None and self._wanted.path != TEXT and not self._wanted.has_usage:
            self._end_without_usage(self._reason)
        else:
            self._exchange.next_leg()

    def _end_without_usage(self, reason: str) -> None:
        self._exchange.say(Rest(self._wanted, self._story, self._counted, reason).ending() or b"")
        self._exchange.on_end()

    def on_head(self, head: AnswerHead) -> "Continuation":
        """Say where the stream goes on, as it begins to."""
        self._head = head
        if head.status == 200 and self._is_stream:
            if self._reason is None:
                name = self._house.begun(self._target)
                self._exchange.say(sse.comment(f"resumed on {name} after {self._counted} tokens"))
            is_rest = self._leg is _Leg.TEXT
            self._retelling = (
                Rest(self._wanted, self._story, self._counted, self._reason) if is_rest else Repeat(self._story)
            )
        return self

    @property
    def _is_stream(self) -> bool:
        return self._leg in {_Leg.TEXT, _Leg.AGAIN}

    def on_piece(self, data: bytes) -> None:
        """Take a piece of the text, told on as it comes, or of another answer."""
        payload = payload_of(data) if self._head.is_chunked else data
        if self._head.status != 200 or not self._is_stream:
            self._held_bytes += len(payload)
            if self._held_bytes <= _HELD_BYTES:
                self._held.append(payload)
            return
        events = events_of(payload)
        self._events += len(events)
        if told := b"".join(map(self._retelling.tell, events)):
            self._has_said = True
            self._exchange.say(told)
        if self._retelling.has_stopped and self._reason is None:
            self._reason = "stop"
            self._is_hung_up = True
            self._exchange.hang_up()
            self._ask_for_rest()

    def on_suspect_piece(self, data: bytes) -> None:
        """Take a piece as any other: every event is read anyway."""
        self.on_piece(data)

    def on_end(self) -> None:
        """Finish: the engine has said everything."""
        if self._is_hung_up:
            return  # the rest of its text came together with the words that ended it
        if self._head.status != 200 or not self._is_stream:
            self.on_whole(self._head, b"".join(self._held))
        elif self._retelling.error:
            self._failed(500, self._retelling.error)
        elif (last := self._retelling.ending()) is None:
            self._failed(502, b"the engine did not say why its text ended")
        else:
            self._exchange.say(last)
            self._exchange.on_end()

    def _failed(self, status: int, body: bytes) -> None:
        if status == _FULL and self.asks_again():
            return
        self._exchange.failed(status, body, is_final=self._has_said)

    def on_lost(self, *, was_stale: bool, is_between: bool, chunks: int) -> None:  # noqa: ARG002 - only whole events went out
        """Go on at the next engine, as long as that may be."""
        if self._has_said:
            self._exchange.on_lost(was_stale=was_stale, is_between=True, chunks=self._events)
        else:
            self._exchange.lost_before(was_stale=was_stale)

    def on_refused(self, refusal: TunnelRefusal) -> None:
        """Try elsewhere; where there is no room anywhere, there may be in a moment."""
        if refusal.code != "busy" or not self.asks_again():
            self._exchange.on_refused(refusal)

    def asks_again(self) -> bool:
        """Ask all hosts again after a pause, if none is left to be asked now; tell whether that is done."""
        if monotonic() >= self._ends_s or self._has_said or self._house.has_other_way(self._exchange):
            return False
        self._look_elsewhere()
        self._exchange.waits = None  # hosts answered: the time for which none may be there begins anew
        self._exchange.next_leg(after_s=self._house.pause_s())
        return True

    def on_progress(self, progress: TunnelProgress) -> None:
        """Do nothing: the client has begun to read."""


def _field(body: bytes, name: str) -> object:
    """Return a field of a JSON object; None where there is none."""
    try:
        return msgspec.json.decode(body, type=dict[str, object]).get(name)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
