"""How far a clock on the wall is ahead of UTC."""

from datetime import UTC, datetime

from meshllm.daemon.time_zone import zone_of


def test_a_zone_is_ahead_by_the_season() -> None:
    """An hour in winter, two in summer; UTC never."""
    winter, summer = (datetime(2026, month, 1, tzinfo=UTC).timestamp() for month in (1, 7))

    assert [zone_of("Europe/Berlin")(at_s) for at_s in (winter, summer)] == [3600, 7200]
    assert [zone_of("UTC")(at_s) for at_s in (winter, summer)] == [0, 0]
