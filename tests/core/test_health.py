"""From measurements to a verdict."""

import pytest

from meshllm.core.health import (
    FIRST_TOKEN_STEPS_S,
    RESPONSE_TIME_MOST_S,
    Allocation,
    HealthChecks,
    HealthState,
    Integrity,
    first_token_step,
    percentile_s,
)

OK, DEGRADED, UNHEALTHY = HealthState.HEALTHY, HealthState.DEGRADED, HealthState.UNHEALTHY


@pytest.mark.rows("HLT-2", "HLT-3")
@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        ({}, OK), ({"file_integrity": Integrity.OK, "memory": Allocation.OK}, OK),
        ({"response_time_s": 5.0}, OK), ({"response_time_s": 5.1}, DEGRADED),
        ({"error_rate": 0.0099}, OK), ({"error_rate": 0.01}, DEGRADED),
        ({"memory": Allocation.FAILED}, DEGRADED), ({"file_integrity": Integrity.MISSING}, DEGRADED),
        ({"file_integrity": Integrity.FAILED}, UNHEALTHY),
        ({"file_integrity": Integrity.FAILED, "error_rate": 0.5}, UNHEALTHY),
    ],
)  # fmt: skip
def test_one_threshold_missed_degrades_and_a_broken_file_ends_it(
    measured: dict[str, object], verdict: HealthState
) -> None:
    """Degraded is still asked, unhealthy never."""
    checks = HealthChecks(**measured)

    assert checks.verdict is verdict
    assert checks.is_broken == (verdict is UNHEALTHY)


def test_the_limit_is_the_end_of_a_step_so_that_it_is_judged_exactly() -> None:
    """A step across it would call five and six seconds the same."""
    assert RESPONSE_TIME_MOST_S in FIRST_TOKEN_STEPS_S
    assert FIRST_TOKEN_STEPS_S[first_token_step(5.0)] == 5.0
    assert FIRST_TOKEN_STEPS_S[first_token_step(5.01)] > 5.0
    assert first_token_step(1e9) == len(FIRST_TOKEN_STEPS_S) - 1
    assert first_token_step(0.0) == 0


def test_percentile_is_where_that_share_has_begun() -> None:
    """Nineteen quick ones and a slow one are quick; eighteen and two are not."""
    quick, slow = first_token_step(0.2), first_token_step(20.0)

    assert percentile_s({}, 0.95) is None
    assert percentile_s({quick: 19, slow: 1}, 0.95) == FIRST_TOKEN_STEPS_S[quick]
    assert percentile_s({quick: 18, slow: 2}, 0.95) == FIRST_TOKEN_STEPS_S[slow]
    assert percentile_s({quick: 1}, 1.01) == FIRST_TOKEN_STEPS_S[-1]
