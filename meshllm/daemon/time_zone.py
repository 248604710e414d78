"""Time zones, for quotas: how far a clock on the wall is ahead of UTC at a moment.

Owns the reading of the system's table of zones. Decides nothing. Doesn't know windows; `core.quotas.windows`
does.
"""

from datetime import datetime, timedelta

from meshllm.core.quotas.windows import Zone, utc


def zone_of(name: str) -> Zone:
    """Return the zone of a name that is known to exist."""
    if name == "UTC":
        return utc
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - with what it imports half a megabyte, which few need

    zone = ZoneInfo(name)

    def ahead_s(at_unix_s: float) -> int:
        ahead = datetime.fromtimestamp(at_unix_s, zone).utcoffset() or timedelta()
        return int(ahead.total_seconds())

    return ahead_s
