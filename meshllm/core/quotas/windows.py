"""The hours and days by which quotas are counted: those of the clock on the wall, in a zone that people choose.

Owns the arithmetic of windows. Decides when one begins and ends. Doesn't know what is counted, nor zones: the time is
handed in, and a function that says how far a zone is ahead of UTC at a moment. Pure.

Invariant: a window contains the moment that it was asked for, so that what is reset is reset in the future.
"""

from collections.abc import Callable
from typing import NamedTuple

HOUR_S = 3600
DAY_S = 24 * HOUR_S
_DAYS_OF_ERA, _YEARS_OF_ERA = 146_097, 400
_DAYS_TO_1970 = 719_468
"""From the first of March of the year 0, with which the calendar is easiest to count."""

Zone = Callable[[float], int]
"""From a moment, in Unix seconds, to the seconds by which a clock on the wall is ahead of UTC then."""


def utc(_at_unix_s: float) -> int:
    """Return 0: the zone that is ahead of nothing."""
    return 0


class Window(NamedTuple):
    """A stretch of time, in Unix seconds: from its begin up to its end, which is not part of it."""

    starts_unix_s: int
    ends_unix_s: int


def hour_at(at_unix_s: float, zone: Zone = utc) -> Window:
    """Return the hour of the clock in which a moment lies."""
    ahead_s = zone(at_unix_s)
    starts = int((at_unix_s + ahead_s) // HOUR_S) * HOUR_S - ahead_s
    return Window(starts, starts + HOUR_S)


def day_at(at_unix_s: float, zone: Zone = utc) -> Window:
    """Return the day, from midnight to midnight, in which a moment lies; it may have 23 or 25 hours."""
    ahead_s = zone(at_unix_s)
    midnight = int((at_unix_s + ahead_s) // DAY_S) * DAY_S
    starts, ends = (local - zone(local - ahead_s) for local in (midnight, midnight + DAY_S))
    now = int(at_unix_s // 1)
    return Window(min(starts, now), max(ends, now + 1))


def as_text(at_unix_s: float) -> str:
    """Return a moment as people and programs read it: ISO 8601 in UTC."""
    days, second = divmod(int(at_unix_s), DAY_S)
    era, day = divmod(days + _DAYS_TO_1970, _DAYS_OF_ERA)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    of_year = day - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    date = of_year - (153 * month + 2) // 5 + 1
    is_next = month >= 10
    month = month - 9 if is_next else month + 3
    year += era * _YEARS_OF_ERA + is_next
    return f"{year:04}-{month:02}-{date:02}T{second // HOUR_S:02}:{second // 60 % 60:02}:{second % 60:02}Z"
