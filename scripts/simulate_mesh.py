"""Measure simulated meshes and compare with what was kept: `scripts/simulate`, `--rewrite`, or `--seeds 1000`.

With `--serving small --seeds 100` or `--serving large --seeds 100 --jobs 2` it is about who serves what.

Owns the choice of what is measured and the files of kept numbers. Decides nothing about meshes:
`meshllm.testing.sim_report` and `serving_report` measure, `chaos` and `serving_runs` break things.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import repeat
from pathlib import Path

from meshllm.core.members.times import lan, wan
from meshllm.testing import chaos, serving_report, serving_runs, sim_report
from meshllm.testing.invariants import InvariantError
from meshllm.testing.serving_runs import Scale, ServingOutcome

SCALES = {"short": serving_runs.SHORT, "small": Scale(), "large": serving_runs.LARGE}
SERVING_SEEDS = {"short": 4, "small": 100, "large": 3}
"""How many runs the kept numbers are of."""
KEPT_SERVING = Path(__file__).resolve().parents[1] / "tests" / "sim" / "serving_baseline.json"
KEPT = Path(__file__).resolve().parents[1] / "tests" / "sim" / "baseline.json"
LOSSES = (0.0, 0.01, 0.05, 0.20, 0.40)
REST_NODES = (10, 50, 200, 1000)
_TOLD_SEEDS = 50
"""After so many, a run of many tells how far it is."""

# The same question, asked of a prototype in October 2026: eight nodes that each watch all others in an asyncio loop
# with virtual time, independent loss in both directions, 20 ms round trip; 336 pair-hours in each row.
# (rule, loss) -> false deaths, median and longest detection in seconds.
PROTOTYPE = {
    ("one miss, 15 s / 5 s", 0.01): (0, 11.4, 21.0), ("one miss, 15 s / 5 s", 0.05): (1, 11.4, 21.0),
    ("one miss, 15 s / 5 s", 0.20): (187, 11.9, 21.0), ("one miss, 15 s / 5 s", 0.40): (4981, 12.0, 21.0),
    ("5 s / 5 s + 5 s", 0.01): (0, 12.3, 15.5), ("5 s / 5 s + 5 s", 0.05): (0, 12.3, 15.5),
    ("5 s / 5 s + 5 s", 0.20): (0, 12.6, 15.5), ("5 s / 5 s + 5 s", 0.40): (6, 12.9, 18.7),
    ("2 s / 2 s + 3 s", 0.01): (0, 6.0, 7.2), ("2 s / 2 s + 3 s", 0.05): (0, 6.0, 7.2),
    ("2 s / 2 s + 3 s", 0.20): (0, 6.0, 9.4), ("2 s / 2 s + 3 s", 0.40): (89, 6.0, 9.4),
}  # fmt: skip


def measurements(seeds: int) -> dict[str, Callable[[], object]]:
    """Return everything that is measured, by name, cheapest first."""
    found: dict[str, Callable[[], object]] = {
        f"converge {nodes}": partial(sim_report.convergence, nodes) for nodes in (10, 50, 200)
    }
    for name, times in (("wan", wan()), ("lan", lan())):
        for loss in LOSSES:
            found[f"detect {name} {loss:.0%}"] = partial(sim_report.detection, loss, range(seeds), times)
    found |= {f"rest {nodes}": partial(sim_report.rest, nodes) for nodes in REST_NODES}
    return found


def report(*, seeds: int, rewrite: bool, only: str) -> int:
    """Measure, print beside the kept numbers, keep them if asked to. Return the exit status: 1 where they differ."""
    kept: dict[str, dict[str, object]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    fresh: dict[str, dict[str, object]] = {}
    every = measurements(seeds)
    for name, measure in every.items():
        if only not in name or (only in every and only != name):
            continue
        began_s = time.perf_counter()
        fresh[name] = asdict(measure())  # type: ignore[call-overload]
        print(sim_report.compared(name, fresh[name], kept.get(name)), f"[{time.perf_counter() - began_s:.0f} s]")
        sys.stdout.flush()
        if rewrite:  # after each: the last ones take minutes
            KEPT.write_text(json.dumps(kept | fresh, indent=1) + "\n")
    print("\nA prototype's numbers for the same question (see the comment in this script):")
    for (rule, loss), (deaths, median_s, most_s) in PROTOTYPE.items():
        print(f"  {rule:22s} loss {loss:4.0%}  false deaths {deaths:5d}  detection p50 {median_s} s, most {most_s} s")
    return int(not rewrite and any(kept.get(name) != values for name, values in fresh.items()))


def misfortune(seeds: int, first: int) -> int:
    """Run seeds; print every one that breaks an invariant. Return the exit status."""
    began_s, broken, slowest_s, deaths = time.perf_counter(), 0, 0.0, 0
    for seed in range(first, first + seeds):
        try:
            outcome = chaos.play(seed)
        except InvariantError as error:
            broken += 1
            print(error, "\n")
        else:
            slowest_s = max(slowest_s, outcome.heal_s)
            deaths += outcome.counts.deaths
        if (seed - first) % _TOLD_SEEDS == _TOLD_SEEDS - 1:
            print(f"up to seed {seed}: {broken} broken, longest heal {slowest_s:.2f} s")
            sys.stdout.flush()
    wall_s = time.perf_counter() - began_s
    print(
        f"{seeds} seeds, {broken} broke an invariant, {deaths} verdicts, longest heal {slowest_s:.2f} s, {wall_s:.0f} s"
    )
    return int(broken > 0)


def _served(seed: int, scale: Scale) -> ServingOutcome | str:
    """Play one seed of serving; return what came of it, or the story of what broke."""
    gc.disable()  # cores make no cycles, and to look for some takes a seventh of the time
    try:
        return serving_runs.play(seed, scale)
    except InvariantError as error:
        return str(error)
    finally:
        gc.collect()


def serving(scale: str, seeds: range, *, jobs: int, rewrite: bool) -> int:
    """Run seeds of serving; print what broke and the numbers beside the kept ones. Return the exit status."""
    began_s = time.perf_counter()
    outcomes: list[ServingOutcome] = []
    broken = 0
    with ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(_served, seeds, repeat(SCALES[scale])):
            if isinstance(found, str):
                broken += 1
                print(found, "\n")
            else:
                outcomes.append(found)
                print(f"seed {found.seed}: {found.simulated_s:.0f} s simulated, {found.events} events", end="\r")
            sys.stdout.flush()
    kept: dict[str, dict[str, object]] = json.loads(KEPT_SERVING.read_text()) if KEPT_SERVING.exists() else {}
    fresh = asdict(serving_report.summed(outcomes)) if outcomes else {}
    is_comparable = seeds == range(SERVING_SEEDS[scale])
    print(sim_report.compared(f"serving {scale}", fresh, kept.get(scale) if is_comparable else None))
    print(f"{len(seeds)} seeds, {broken} broke an invariant, {time.perf_counter() - began_s:.0f} s")
    if rewrite and is_comparable and not broken:
        KEPT_SERVING.write_text(json.dumps(kept | {scale: fresh}, indent=1) + "\n")
        return 0
    is_changed = is_comparable and scale in kept and kept[scale] != fresh
    return int(broken > 0 or is_changed)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, help="run this many seeds of misfortune instead of measuring")
    parser.add_argument("--serving", choices=SCALES, help="run meshes that serve: of 8, 12 or 200 nodes")
    parser.add_argument("--jobs", type=int, default=1, help="processes that run seeds of serving side by side")
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--detect-seeds", type=int, default=3, help="runs of half an hour for each row of detection")
    parser.add_argument("--only", default="", help="the measurement of this name, or those with it in theirs")
    parser.add_argument("--rewrite", action="store_true", help="keep the new numbers")
    options = parser.parse_args()
    if options.serving is not None:
        count = options.seeds if options.seeds is not None else SERVING_SEEDS[options.serving]
        seeds = range(options.first, options.first + count)
        return serving(options.serving, seeds, jobs=options.jobs, rewrite=options.rewrite)
    if options.seeds is not None:
        return misfortune(options.seeds, options.first)
    return report(seeds=options.detect_seeds, rewrite=options.rewrite, only=options.only)


if __name__ == "__main__":
    sys.exit(main())
