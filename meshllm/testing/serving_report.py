"""What a simulated mesh achieves in serving, in numbers that can be kept and compared.

Owns the sums over many runs. Decides nothing. A run follows from its seed alone, so a number that changed means
that assignment, gossip or routing changed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshllm.testing.serving_runs import ServingOutcome
from meshllm.testing.sim_requests import BROKEN, COMPLETE, GONE


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingNumbers:
    """Runs of one scale, together."""

    runs: int
    served_p50_s: float
    """From the moment that a model is wanted and fits until it is ready."""
    served_most_s: float
    reserved: int
    """Models whose hosts all died, and that were served again."""
    reserved_p50_s: float
    """From the moment that everybody knows of the death of a model's last host until it is ready again, where all
    that time somebody with its file had room for it."""
    reserved_most_s: float
    refetched: int
    refetched_p50_s: float
    """The same where it had to be fetched first."""
    refetched_most_s: float
    moves_per_change: float
    """Starts and stops of engines for each change of who is there and what is wanted."""
    yields: int
    """Claims that gave way to better ones."""
    flaps: int
    """Models that their node stopped and started again within two minutes."""
    requests: int
    complete_share: float
    refused_capacity: int
    broken: int
    """Answers that had begun when their host was lost."""
    failed: int
    """Requests that ended with any other error."""


def summed(outcomes: Iterable[ServingOutcome]) -> ServingNumbers:
    """Return the numbers of some runs. Raises ValueError for none."""
    runs = list(outcomes)
    if not runs:
        raise ValueError("there are no runs to sum up")
    served = sorted(took_s for run in runs for took_s in run.counts.served_s)
    reserved = sorted(took_s for run in runs for took_s in run.counts.reserved_s)
    refetched = sorted(took_s for run in runs for took_s in run.counts.refetched_s)
    moves = sum(run.counts.starts + run.counts.stops for run in runs)
    accepted = sum(run.accepted for run in runs)
    ends = {how: sum(run.ends.get(how, 0) for run in runs) for how in {how for run in runs for how in run.ends}}
    known = {how: ends.get(how, 0) for how in (COMPLETE, GONE, BROKEN, "no_capacity")}
    return ServingNumbers(
        runs=len(runs), served_p50_s=_middle(served), served_most_s=_most(served),
        reserved=len(reserved), reserved_p50_s=_middle(reserved), reserved_most_s=_most(reserved),
        refetched=len(refetched), refetched_p50_s=_middle(refetched), refetched_most_s=_most(refetched),
        moves_per_change=round(moves / max(sum(run.counts.changes for run in runs), 1), 2),
        yields=sum(run.counts.yields for run in runs), flaps=sum(run.counts.flaps for run in runs),
        requests=accepted, complete_share=round(known[COMPLETE] / max(accepted - known[GONE], 1), 4),
        refused_capacity=known["no_capacity"], broken=known[BROKEN], failed=sum(ends.values()) - sum(known.values()),
    )  # fmt: skip


def _middle(values: Sequence[float]) -> float:
    return round(values[len(values) // 2], 1) if values else 0.0


def _most(values: Sequence[float]) -> float:
    return round(values[-1], 1) if values else 0.0
