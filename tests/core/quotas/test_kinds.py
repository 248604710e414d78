"""How serious it is to be so near to a limit, and for how long requests wait then."""

import pytest

from meshllm.core.effects import Level
from meshllm.core.quota_config import UNLIMITED, Quotas
from meshllm.core.quotas.kinds import Kind, Mode, crossed, delay_s, limit_of, mode_of, severity

LEVELS = UNLIMITED.soft_limits


@pytest.mark.parametrize(
    ("percent", "mode", "level"),
    [
        (79.9, Mode.NORMAL, 0), (80, Mode.SOFT_LIMIT, 1), (85, Mode.SOFT_LIMIT, 2), (89.9, Mode.SOFT_LIMIT, 2),
        (90, Mode.THROTTLED, 3), (95, Mode.THROTTLED, 4), (99.9, Mode.THROTTLED, 4), (100, Mode.HARD_LIMIT, 5),
        (140, Mode.HARD_LIMIT, 5),
    ],
)  # fmt: skip
def test_a_percentage_has_its_mode_and_its_level(percent: float, mode: Mode, level: int) -> None:
    """Emergency is no percentage; the ledger says it."""
    assert mode_of(percent, LEVELS) is mode
    assert crossed(percent, LEVELS) == level


def test_each_level_is_as_serious_as_people_expect() -> None:
    """Noted, warned of twice, then an error."""
    assert [severity(level) for level in range(1, 6)] == [
        Level.INFO, Level.WARNING, Level.WARNING, Level.ERROR, Level.ERROR,
    ]  # fmt: skip


def test_the_nearer_to_a_limit_the_longer_the_wait() -> None:
    """Within bounds, and none below the third level."""
    waits = [delay_s(percent, LEVELS) for percent in range(80, 101)]

    assert waits[:10] == [0.0] * 10
    assert 0 < waits[10] < waits[14] <= 2.0 < 10 * waits[10] + 2
    assert waits == sorted(waits)
    assert max(waits) <= 10.0
    assert delay_s(94.9, (10, 20, 30, 95)) == 2.0
    assert delay_s(100, (10, 20, 30, 40)) == 10.0


def test_every_limit_has_a_kind() -> None:
    """By its own field."""
    quotas = Quotas(
        hourly_token_limit=1, hourly_request_limit=2, daily_token_limit=3, daily_request_limit=4,
        max_concurrent_requests=5, burst_token_limit=6,
    )  # fmt: skip

    assert [limit_of(quotas, kind) for kind in Kind] == [1, 2, 3, 4, 5, 6, 0, 0]
