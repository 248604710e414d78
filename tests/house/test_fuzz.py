"""`scripts/fuzz`: every decoder bears some seconds of damaged input, and the search finds what it looks for."""

import json
import random
import subprocess
import sys

import pytest

from scripts.fuzz_decoders import FaultFoundError, Search, Target, damaged, judge, search
from scripts.fuzz_targets import targets
from tests.house.tree import ROOT

SEED = 20
SECONDS = 2.0
CASES = 3_000  # a fast machine stops here


@pytest.mark.slow
@pytest.mark.parametrize("target", list(targets()), ids=lambda target: target.name)
def test_decoder_bears_damaged_input(target: Target) -> None:
    """A good input is taken, and any other leads to one of our errors, in time."""
    found = search(target, SEED, seconds=SECONDS, cases=CASES)

    assert found.cases > 0
    assert len(found.answers) > 1


def brittle(data: bytes) -> None:
    """Fail in a way that takes two steps to find."""
    document = json.loads(data)
    if document.get("a", 0) > 9:
        raise KeyError("b")


def test_the_search_finds_a_fault_and_says_how_to_repeat_it() -> None:
    """Otherwise it would prove nothing."""
    target = Target("brittle", (b'{"a": 1}',), brittle, (ValueError, AttributeError, TypeError))

    with pytest.raises(FaultFoundError, match=r"(?s)seed 1.*KeyError.*--repeat brittle 7b") as caught:
        search(target, 1, cases=20_000)
    repeated = bytes.fromhex(str(caught.value).rsplit(" ", 1)[1])

    assert "KeyError" in (judge(target, repeated)[1] or "")


def test_a_good_input_that_is_refused_is_a_fault() -> None:
    """A target whose seeds do not fit would search in the dark."""
    with pytest.raises(FaultFoundError, match="a good input was refused: ValueError"):
        search(Target("strict", (b"x",), lambda data: int(data), (ValueError,)), 1, cases=1)  # noqa: PLW0108


def test_an_input_that_takes_long_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is a resource of ours, too."""
    monkeypatch.setattr("scripts.fuzz_decoders.SLOW_S", -1.0)

    answer, fault = judge(Target("slow", (), len, ()), b"")

    assert answer == "taken"
    assert "it took" in (fault or "")


def test_new_answers_lead_on() -> None:
    """Inputs that were answered as none before are damaged further."""
    found = Search(
        Target("lengths", (b"abc",), lambda data: 1 // (len(data) - 4), (ZeroDivisionError,)), random.Random(1)
    )

    while len(found.answers) < 2:
        found.step()

    assert len(found.corpus) == 3
    assert {len(data) == 4 for data in found.corpus[1:]} == {True, False}


def test_the_same_seed_damages_in_the_same_way() -> None:
    """A run can be repeated."""
    one, two = ([damaged([b"abc", b"def"], rng) for _ in range(50)] for rng in (random.Random(1), random.Random(1)))

    assert one == two
    assert len(set(one)) > 20


def test_the_script_repeats_one_input() -> None:
    """As its report says."""
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "fuzz_decoders.py", "--repeat", "msgpack", "c1"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip

    assert "FormatError" in run.stdout
