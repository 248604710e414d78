"""Why a model is not in memory: memory, file, killer, another try, a smaller file."""

from dataclasses import replace

import pytest

from meshllm.core.doctor.findings import Finding, Result
from meshllm.core.doctor.loading import LoadCase, MemoryHere, loading
from meshllm.core.doctor.smaller import FileOnDisk
from meshllm.core.limits import GIB

STEPS = ["memory", "file integrity", "out of memory", "another try", "smaller quantisation"]
HERE = MemoryHere(usable_bytes=14 * GIB, free_bytes=10 * GIB)
READY = LoadCase(model="Foo-Q8_0", phase="ready", size_bytes=7 * GIB, integrity="ok", load_timeout_s=300.0)
SMALLER = FileOnDisk(model="Foo-Q4_K_M", size_bytes=4 * GIB, quantization="Q4_K_M")


def steps(case: LoadCase, here: MemoryHere = HERE, *on_disk: FileOnDisk) -> dict[str, Finding]:
    """Return the findings by step."""
    return {one.name: one for one in loading(case, here, on_disk)}


@pytest.mark.rows("OPS-5")
def test_a_model_in_memory_passes_every_step() -> None:
    """All five."""
    found = steps(READY, replace(HERE, free_bytes=0))

    assert list(found) == STEPS
    assert {one.result for one in found.values()} == {Result.OK}


@pytest.mark.rows("OPS-5")
def test_a_model_that_waits_for_memory_hears_what_would_fit() -> None:
    """What is missing, whom to unload, which file to take instead."""
    waiting = "capacity: needs 8.0 GB, 5.0 GB are free; unloading another model would help"
    case = replace(READY, phase="queued", waiting=waiting)

    found = steps(case, replace(HERE, free_bytes=5 * GIB), SMALLER)

    assert found["memory"].result is Result.FAIL
    assert found["memory"].message == waiting
    assert found["smaller quantisation"].advice == "`mesh-llm load Foo-Q4_K_M`"
    assert "on this disk" in found["smaller quantisation"].message


def test_a_file_that_fits_only_without_others_is_said_to() -> None:
    """Then something has to be unloaded first."""
    case = replace(READY, phase="queued")

    found = steps(case, replace(HERE, free_bytes=GIB), SMALLER)["smaller quantisation"]

    assert "fits when other models are unloaded" in found.message
    assert found.advice == "then `mesh-llm load Foo-Q4_K_M`"


def test_a_model_larger_than_the_machine_is_told_of_others() -> None:
    """Unloading does not help there."""
    case = replace(READY, phase="queued", size_bytes=40 * GIB)

    found = steps(case)

    assert "another machine of the mesh" in found["memory"].advice
    assert "--max-vram" in found["memory"].message
    assert "no" in found["smaller quantisation"].message
    assert "USER/REPO:Q4_K_M" in found["smaller quantisation"].advice


@pytest.mark.rows("OPS-5")
@pytest.mark.parametrize(
    "case",
    [
        replace(READY, phase="failed", fault="out_of_memory", failure="it ran out of memory"),
        replace(READY, phase="retrying", fault="crashed", failure="it was killed by signal 9 (SIGKILL) from outside"),
        replace(READY, phase="failed", failure="it exited", log=("llama: failed to allocate buffer", "bye")),
    ],
)
def test_an_engine_that_ran_out_of_memory_is_told_from_others(case: LoadCase) -> None:
    """By its fault, by who killed it, by its own last words; and a smaller file is suggested though memory is free."""
    found = steps(case, HERE, SMALLER)

    assert found["out of memory"].result is Result.FAIL
    assert found["memory"].result is Result.FAIL
    assert found["smaller quantisation"].advice == "`mesh-llm load Foo-Q4_K_M`"


@pytest.mark.rows("OPS-5")
@pytest.mark.parametrize(
    ("changes", "result", "words"),
    [
        ({"fault": "bad_file", "failure": "its header is cut off"}, Result.FAIL, "its header is cut off"),
        ({"integrity": "failed"}, Result.FAIL, "not what its digest says"),
        ({"integrity": "missing"}, Result.FAIL, "its file is gone"),
        ({"integrity": "unknown"}, Result.NOTE, "not compared"),
        ({}, Result.OK, "is what its digest says"),
    ],
)
def test_its_file_is_judged(changes: dict[str, str], result: Result, words: str) -> None:
    """As the engine found it, else as its digest says."""
    found = steps(replace(READY, phase="failed", **changes))["file integrity"]  # type: ignore[arg-type]

    assert found.result is result
    assert words in found.message


@pytest.mark.rows("OPS-5")
@pytest.mark.parametrize(
    ("changes", "result", "words"),
    [
        ({"phase": "failed", "failure": "it hung"}, Result.FAIL, "gave up: it hung: `mesh-llm load Foo-Q8_0`"),
        ({"phase": "retrying", "retry_in_s": 8.0, "restarts": 2}, Result.NOTE, "by itself in 8 s, after 2 restarts"),
        ({"phase": "retrying"}, Result.NOTE, "tries again by itself, after 0"),
        ({"phase": "loading", "progress": 0.4}, Result.NOTE, "40% done; without progress for 300 s the node ends it"),
        ({"phase": "downloading"}, Result.NOTE, "it is downloading; without progress"),
        ({"phase": "queued"}, Result.NOTE, "when there is room"),
        ({"phase": "held"}, Result.NOTE, "nothing is under way, it is held"),
    ],
)
def test_another_try_is_told_by_what_goes_on(changes: dict[str, object], result: Result, words: str) -> None:
    """Who waits for nothing tries again."""
    found = steps(replace(READY, **changes))["another try"]  # type: ignore[arg-type]

    assert found.result is result
    assert words in found.line


@pytest.mark.parametrize(
    ("phase", "failure", "stuck"),
    [
        ("failed", "", True), ("retrying", "", True), ("queued", "", True), ("unloaded", "no file", True),
        ("unloaded", "", False), ("ready", "", False), ("loading", "", False), ("held", "", False),
    ],
)  # fmt: skip
def test_what_gets_no_further_is_stuck(phase: str, failure: str, stuck: bool) -> None:
    """`doctor` looks at those unasked."""
    assert replace(READY, phase=phase, failure=failure).is_stuck is stuck
