"""Feed decoders with damaged input: `scripts/fuzz --seconds 300`, `--target NAME`, `--repeat NAME HEX`.

Owns the damage and the search: inputs that lead to an answer not seen before are kept and damaged further. Decides
what counts as a fault: an exception that is none of ours, or more than a second for one input. The decoders and what
they may raise stand in `fuzz_targets.py`.

The same seed gives the same inputs, as long as the same time is enough for them: a fault is repeated by its bytes.
"""

import argparse
import random
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CORPUS_MAX = 400
INPUT_MAX_BYTES = 300_000
SLOW_S = 1.0  # of processor time
INTERESTING = (
    b"\x00", b"\xff", b"\x7f", b"\x80", b"\xc0", b"\xc1", b"\xc3", b"\xc4\x00", b"\xcb\x7f\xf8" + bytes(6),
    b"\xcf" + b"\xff" * 8, b"\xd3" + b"\xff" * 8, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xd6\xff" + bytes(4), b"\x91" * 40, b"\x1b[2J", b"\r\n", b"\n", b"\xed\xa0\x80", b"\xe2\x80\xae", b"../", b"=",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A decoder: inputs that it takes, a call that may raise `ours` and nothing else."""

    name: str
    seeds: tuple[bytes, ...]
    run: Callable[[bytes], object]
    ours: tuple[type[Exception], ...]


@dataclass
class Search:
    """What one target has answered so far."""

    target: Target
    rng: random.Random
    corpus: list[bytes] = field(default_factory=list)
    answers: set[str] = field(default_factory=set)
    cases: int = 0

    def __post_init__(self) -> None:
        """Begin with the inputs that are known to be good."""
        self.corpus.extend(self.target.seeds)

    def step(self) -> tuple[bytes, str] | None:
        """Try one input; return it with what is wrong about its answer, or None when all is well."""
        data = damaged(self.corpus, self.rng)
        self.cases += 1
        answer, fault = judge(self.target, data)
        if answer not in self.answers and len(self.corpus) < CORPUS_MAX:
            self.answers.add(answer)
            self.corpus.append(data)
        return None if fault is None else (data, fault)


def judge(target: Target, data: bytes) -> tuple[str, str | None]:
    """Return what a decoder answers to an input, in short, and the fault in it if there is one."""
    began_s = time.process_time()
    try:
        target.run(data)
        answer = "taken"
    except target.ours as error:
        answer = re.sub(r"\d+", "#", f"{type(error).__name__} {error}")[:200]
    except Exception:  # noqa: BLE001 - what is looked for
        return "fault", traceback.format_exc()
    taken_s = time.process_time() - began_s
    return answer, f"it took {taken_s:.1f} s" if taken_s > SLOW_S else None


def damaged(corpus: list[bytes], rng: random.Random) -> bytes:
    """Return an input of the corpus with one to eight things done to it."""
    data = bytearray(rng.choice(corpus))
    for _ in range(min(1 + int(rng.expovariate(0.7)), 8)):
        rng.choice(_DAMAGE)(data, corpus, rng)
    return bytes(data[:INPUT_MAX_BYTES])


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


def _flip(data: bytearray, _corpus: list[bytes], rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(data: bytearray, _corpus: list[bytes], rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _count(data: bytearray, _corpus: list[bytes], rng: random.Random) -> None:
    """Make a length or a small number one larger or smaller."""
    if data:
        at = rng.randrange(len(data))
        data[at] = (data[at] + rng.choice((-1, 1))) % 256


def _cut(data: bytearray, _corpus: list[bytes], rng: random.Random) -> None:
    start = _place(data, rng)
    del data[start : start + 1 + int(rng.expovariate(0.1))]


def _end(data: bytearray, _corpus: list[bytes], rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _insert(data: bytearray, _corpus: list[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = rng.choice(INTERESTING)


def _overwrite(data: bytearray, _corpus: list[bytes], rng: random.Random) -> None:
    piece = rng.choice(INTERESTING)
    at = _place(data, rng)
    data[at : at + len(piece)] = piece


def _repeat(data: bytearray, _corpus: list[bytes], rng: random.Random) -> None:
    start = _place(data, rng)
    piece = bytes(data[start : start + 1 + rng.randrange(64)])
    data[start:start] = piece * rng.choice((1, 2, 8, 300))


def _splice(data: bytearray, corpus: list[bytes], rng: random.Random) -> None:
    other = rng.choice(corpus)
    start, at = rng.randrange(len(other) + 1), _place(data, rng)
    data[at:] = other[start:]


_DAMAGE = (_flip, _set, _count, _cut, _end, _insert, _overwrite, _repeat, _splice)


def search(target: Target, seed: int, *, seconds: float | None = None, cases: int | None = None) -> Search:
    """Try inputs for so long or so many times. Raises FaultFoundError at the first fault."""
    found = Search(target, random.Random(f"{seed} {target.name}"))
    until_s = None if seconds is None else time.monotonic() + seconds
    for data in target.seeds:
        answer, fault = judge(target, data)
        if answer != "taken":
            raise FaultFoundError(target, seed, data, fault or f"a good input was refused: {answer}")
    while (cases is None or found.cases < cases) and (until_s is None or time.monotonic() < until_s):
        if (fault_found := found.step()) is not None:
            raise FaultFoundError(target, seed, *fault_found)
    return found


class FaultFoundError(Exception):
    """A decoder did what it must not do."""

    def __init__(self, target: Target, seed: int, data: bytes, fault: str) -> None:
        """Say all that is needed to repeat it."""
        repeat = f"scripts/fuzz --repeat {target.name} {data.hex()}"
        super().__init__(f"target {target.name}, seed {seed}, {len(data)} bytes\n{fault}\nto repeat it:\n{repeat}")


def main() -> int:
    """Search all targets, or repeat one input. Return an exit status."""
    from scripts.fuzz_targets import targets  # noqa: PLC0415 - the path is set above

    parser = argparse.ArgumentParser(description="Feed every decoder with damaged input.")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each target")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--target", action="append", help="only this one; several times for several")
    parser.add_argument("--repeat", nargs=2, metavar=("TARGET", "HEX"), help="try one input")
    asked = parser.parse_args()
    known = {target.name: target for target in targets()}
    if asked.repeat is not None:
        name, text = asked.repeat
        answer, fault = judge(known[name], bytes.fromhex(text))
        print(fault or answer)
        return 0 if fault is None else 1
    for name in asked.target or known:
        try:
            found = search(known[name], asked.seed, seconds=asked.seconds)
        except FaultFoundError as error:
            print(error)
            return 1
        print(f"{name}: {found.cases} inputs, {len(found.answers)} kinds of answers, no fault (seed {asked.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
