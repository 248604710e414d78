"""When an engine that answers its port no longer does its work."""

import dataclasses

import pytest

from meshllm.core.routing.stall import Hung, StallBudget, StallClock, StallSample, observe, start_clock

BUDGET = StallBudget(idle_s=15.0, busy_s=120.0, gap_s=10.0)
STUCK = StallSample(at_s=0.0, in_flight=1, progress=(7, 3), busy_slots=1, cpu_s=50.0)


def run(samples: list[StallSample]) -> Hung | None:
    """Return the first verdict that is not fine, over samples in order."""
    clock: StallClock = start_clock(samples[0])
    for sample in samples[1:]:
        clock, hung = observe(clock, sample, BUDGET)
        if hung is not None:
            return hung
    return None


def every_2_s(until_s: float, **changes: object) -> list[StallSample]:
    """Return samples of a stuck engine; a change is a value or a function of the time."""
    times = [float(at_s) for at_s in range(0, int(until_s) + 1, 2)]
    return [
        dataclasses.replace(
            STUCK, at_s=at_s, **{name: value(at_s) if callable(value) else value for name, value in changes.items()}
        )
        for at_s in times
    ]


def test_idle_silence_is_a_hang_after_the_short_budget() -> None:
    """A deadlocked or stopped engine takes no processor time: fifteen seconds are enough."""
    assert run(every_2_s(14)) is None

    hung = run(every_2_s(16))

    assert hung == Hung(reason="1 request is in flight and nothing has moved for 16 s, and it takes no processor time")


def test_busy_silence_is_a_hang_only_after_the_long_budget() -> None:
    """A long prompt on a slow machine moves no counter for a while."""
    assert run(every_2_s(118, cpu_s=lambda at_s: at_s)) is None

    hung = run(every_2_s(122, cpu_s=lambda at_s: at_s, in_flight=2))

    assert hung is not None
    assert hung.reason == "2 requests are in flight and nothing has moved for 120 s, although it is busy"


@pytest.mark.parametrize(
    "changes",
    [
        {"progress": lambda at_s: (7, at_s)},
        {"progress": None, "busy_slots": None, "last_byte_s": lambda at_s: at_s},
        {"in_flight": 0},
        {"busy_slots": 0},
        {"in_flight": lambda at_s: int(at_s % 4)},
    ],
    ids=["slots move", "bytes come", "no work", "slow client", "work ends now and then"],
)
def test_what_moves_or_has_no_reason_to_is_fine(changes: dict[str, object]) -> None:
    """Counters that move, bytes where counters are unread, no work, or a client that reads slowly."""
    assert run(every_2_s(400, **changes)) is None


def test_bytes_do_not_count_where_slots_can_be_read() -> None:
    """An engine's keep-alive comments are bytes too."""
    assert run(every_2_s(30, last_byte_s=lambda at_s: at_s)) is not None


def test_slots_that_become_unreadable_are_no_progress() -> None:
    """A stuck main loop answers no `/slots`; its HTTP threads may still send comments."""
    samples = [STUCK, *every_2_s(30, progress=None, busy_slots=None, last_byte_s=lambda at_s: at_s)[1:]]

    assert run(samples) is not None


def test_a_machine_that_slept_forgets_what_was_timed() -> None:
    """After a gap nothing is late: not the engine stood still but all."""
    before = every_2_s(12)
    after = [dataclasses.replace(STUCK, at_s=3600.0 + at_s) for at_s in (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0)]

    assert run([*before, *after]) is None
    assert run([*before, *after, dataclasses.replace(STUCK, at_s=3616.0)]) is not None


def test_unknown_processor_time_counts_as_busy() -> None:
    """Where the system doesn't tell, only the long budget applies."""
    assert run(every_2_s(118, cpu_s=None)) is None
    assert run(every_2_s(122, cpu_s=None)) is not None


def test_a_request_that_just_came_has_the_whole_budget() -> None:
    """Idle time before it is not held against it."""
    idle = [dataclasses.replace(STUCK, at_s=float(at_s), in_flight=0) for at_s in range(0, 100, 2)]
    working = [dataclasses.replace(STUCK, at_s=float(at_s)) for at_s in range(100, 114, 2)]

    assert run([*idle, *working]) is None
