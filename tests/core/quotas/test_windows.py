"""Hours and days by the clock on the wall: they contain the moment, follow one another, and end at midnight."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.quotas.windows import HOUR_S, Zone, as_text, day_at, hour_at, utc

MOMENTS = st.floats(0, 4_000_000_000, allow_nan=False)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])


def zone(name: str) -> Zone:
    """Return a zone of the system's table."""
    known = ZoneInfo(name)
    return lambda at_s: int(datetime.fromtimestamp(at_s, known).utcoffset().total_seconds())  # type: ignore[union-attr]


@given(MOMENTS, ZONES)
def test_a_moment_lies_in_its_hour_and_its_day(at_s: float, name: str) -> None:
    """So that what is reset is reset in the future."""
    hour, day = hour_at(at_s, zone(name)), day_at(at_s, zone(name))

    assert hour.starts_unix_s <= at_s < hour.ends_unix_s
    assert day.starts_unix_s <= at_s < day.ends_unix_s
    assert hour.ends_unix_s - hour.starts_unix_s == HOUR_S
    assert 23 * HOUR_S - 1 <= day.ends_unix_s - day.starts_unix_s <= 25 * HOUR_S + 1


@given(MOMENTS)
def test_the_same_hour_is_called_the_same_by_everybody(at_s: float) -> None:
    """By when it begins: the counters of all nodes meet there."""
    hour, day = hour_at(at_s), day_at(at_s)

    assert hour_at(hour.starts_unix_s) == hour_at(hour.ends_unix_s - 1) == hour
    assert day_at(day.starts_unix_s) == day_at(day.ends_unix_s - 1) == day
    assert (hour.starts_unix_s % HOUR_S, day.starts_unix_s % (24 * HOUR_S)) == (0, 0)


@pytest.mark.rows("QTA-3")
@pytest.mark.parametrize(
    ("moment", "begins", "hours"),
    [
        ("2026-11-22T12:00", "2026-11-22", 24),
        ("2026-03-29T12:00", "2026-03-29", 23),
        ("2026-10-25T12:00", "2026-10-25", 25),
    ],
)
def test_a_day_ends_at_midnight_also_when_clocks_are_changed(moment: str, begins: str, hours: int) -> None:
    """In Berlin."""
    berlin = ZoneInfo("Europe/Berlin")
    at_s = datetime.fromisoformat(moment).replace(tzinfo=berlin).timestamp()

    day = day_at(at_s, zone("Europe/Berlin"))

    assert datetime.fromtimestamp(day.starts_unix_s, berlin) == datetime.fromisoformat(begins).replace(tzinfo=berlin)
    assert (day.ends_unix_s - day.starts_unix_s) / HOUR_S == hours


@given(MOMENTS)
def test_a_moment_is_written_as_everybody_reads_it(at_s: float) -> None:
    """ISO 8601, by the calendar that the standard library knows."""
    assert as_text(at_s) == datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert utc(at_s) == 0
