"""What single requests are in the numbers about HTTP: under which names, and what is timed of them.

Owns the labels. Decides that a path is one of a few, and that a model has the name that it goes by in the mesh,
whatever a client wrote. Doesn't know who reads the numbers.
"""

from time import monotonic

from meshllm.core.http_numbers import UNKNOWN_MODEL, HttpNumbers, HttpReport
from meshllm.proxy.forward import Exchange
from meshllm.proxy.intake import Door, Intake
from meshllm.proxy.resumable import CHAT
from meshllm.proxy.target import Target
from meshllm.proxy.traffic import Traffic

MANAGEMENT = "(management)"
MODELS = "/v1/models"
OTHER = "(other)"
LANE = ("POST", CHAT.decode())
"""Method and path of all that the straight lane takes."""
LEFT = 499
"""In the place of a status, where the client left before any was sent."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def count_exchange(numbers: HttpNumbers, exchange: Exchange, management: Target) -> None:
    """Count a request that is over."""
    intake, target = exchange.intake, exchange.target
    is_asked = intake.inference is not None
    model = "" if not is_asked else UNKNOWN_MODEL if target is management else target.model
    method, path = _names(intake)
    now_s = monotonic()
    is_timed = exchange.began_s > 0
    numbers.answered(method, path, model, exchange.status or LEFT, now_s - exchange.began_s if is_timed else None)
    if exchange.is_stream and exchange.first_piece_s and is_asked and is_timed:
        numbers.streamed(model, now_s - exchange.first_piece_s, exchange.events)


def report_of(numbers: HttpNumbers, traffic: Traffic) -> HttpReport:
    """Return the numbers, with those of the straight lane."""
    lane = (((*LANE, model, 200), count) for model, count in traffic.on_lane())
    return numbers.report(lane, traffic.first_tokens())


def count_answer(numbers: HttpNumbers, intake: Intake, status: int) -> None:
    """Count an answer that this node gave at once."""
    method, path = _names(intake)
    numbers.answered(method, path, "" if intake.inference is None else UNKNOWN_MODEL, status)


def _names(intake: Intake) -> tuple[str, str]:
    method = intake.head.method if intake.head.method in _METHODS else OTHER
    if intake.inference is not None:
        return method, intake.inference.path.decode()
    return method, {Door.MODELS: MODELS, Door.MANAGEMENT: MANAGEMENT}.get(intake.door, OTHER)
