"""Why a model is not found: every step says pass, note or fail, and what to do."""

from dataclasses import replace

import pytest

from meshllm.core.catalog import ModelProblem
from meshllm.core.doctor.discovery import Search, Stray, discovery
from meshllm.core.doctor.findings import Result

STEPS = ["location", "permissions", "file", "log", "rescan", "register by hand"]
NOWHERE = Search(asked="mine", folders=("/models", "/more"))
FOUND = replace(NOWHERE, found="mine", path="/models/mine.gguf", listed=True, log=())


def results(search: Search) -> dict[str, str]:
    """Return the result of each step."""
    return {one.name: str(one.result) for one in discovery(search)}


def line(search: Search, step: str) -> str:
    """Return what one step says."""
    return next(one.line for one in discovery(search) if one.name == step)


@pytest.mark.rows("OPS-1")
def test_a_model_that_is_there_passes_every_step() -> None:
    """Location, permissions, log, rescan, registering by hand."""
    found = discovery(FOUND)

    assert [one.name for one in found] == STEPS
    assert {one.result for one in found} == {Result.OK}
    assert {one.model for one in found} == {"mine"}


@pytest.mark.rows("OPS-1")
def test_a_model_that_lies_nowhere_fails_where_it_is_missed() -> None:
    """The folders are named, and how it would get there."""
    search = replace(NOWHERE, listed=False, log=())

    found = results(search)

    assert found["location"] == found["rescan"] == found["register by hand"] == "fail"
    assert found["permissions"] == found["log"] == "pass"
    assert "/models, /more" in line(search, "location")
    assert "put the file into /models" in line(search, "location")


@pytest.mark.parametrize(
    ("asked", "near", "advice"),
    [
        ("qwen3-8b", (), "`mesh-llm pull qwen3-8b` fetches it"),
        ("me/my-model:Q4_K_M", (), "`mesh-llm pull me/my-model:Q4_K_M` fetches it"),
        ("mime", ("mine",), "did you mean mine?"),
        ("qwen3-8c", (), "did you mean qwen3-8b"),
    ],
)
def test_what_is_known_elsewhere_is_said(asked: str, near: tuple[str, ...], advice: str) -> None:
    """A catalogue name, a hub's, a slip of the finger."""
    assert advice in line(replace(NOWHERE, asked=asked, near=near), "location")


@pytest.mark.rows("OPS-1")
@pytest.mark.parametrize(
    ("path", "why", "advice"),
    [
        ("/models/mine.gguf.part", Stray.UNFINISHED, "goes on with it"),
        ("/models/mine.safetensors", Stray.FORMAT, "engines read GGUF files"),
        ("/models/.mine.gguf", Stray.HIDDEN, "rename it without the dot"),
        ("/models/a/b/c/d/e/mine.gguf", Stray.DEEP, "move it to /models/NAME.gguf"),
        ("/home/me/mine.gguf", Stray.OUTSIDE, "--models-dir /home/me"),
        ("/mine.gguf", Stray.OUTSIDE, "--models-dir /"),
    ],
)
def test_a_file_that_no_scan_takes_is_named_with_its_reason(path: str, why: Stray, advice: str) -> None:
    """Most models that are missed are there, in the wrong place or form."""
    said = line(replace(NOWHERE, strays=((path, why),)), "location")

    assert said.startswith(f"{path} {why}: ")
    assert advice in said


@pytest.mark.rows("OPS-1")
@pytest.mark.parametrize(("path", "mode"), [("/models/mine.gguf", "644"), ("/models/private", "755")])
def test_what_may_not_be_read_comes_with_the_command_that_opens_it(path: str, mode: str) -> None:
    """Files and folders have other modes."""
    problem = ModelProblem(path=path, code="unreadable", message="cannot be read: Permission denied")
    search = replace(NOWHERE, problems=(problem,))

    assert results(search)["permissions"] == "fail"
    assert f"`chmod {mode} {path}`" in line(search, "permissions")


def test_a_file_that_is_no_model_is_in_its_place_and_bad() -> None:
    """Moving it would not help."""
    problem = ModelProblem(path="/models/mine.gguf", code="truncated", message="ends too early")
    search = replace(NOWHERE, problems=(problem,))

    assert results(search)["location"] == "pass"
    assert results(search)["file"] == "fail"
    assert "ends too early" in line(search, "file")


@pytest.mark.rows("OPS-1")
def test_complaints_of_the_log_are_shown() -> None:
    """The newest one."""
    search = replace(NOWHERE, log=("12:00 WARN  mine is odd", "12:01 WARN  mine is still odd"))

    assert results(search)["log"] == "fail"
    assert "mine is still odd" in line(search, "log")


@pytest.mark.rows("OPS-1")
def test_a_file_that_the_node_does_not_list_can_be_registered_by_hand() -> None:
    """The whole request is written out."""
    search = replace(FOUND, listed=False)

    assert results(search)["rescan"] == "fail"
    assert "--models-dir" in line(search, "rescan")
    assert 'POST /v1/models/register with {"id":"mine","version":"1.0.0","path":"/models/mine.gguf"}' in line(
        search, "register by hand"
    )


def test_without_a_node_the_look_at_the_folders_is_the_scan() -> None:
    """There is no log then, which is no fault."""
    alone = replace(FOUND, listed=None, log=None)

    assert results(alone) | {"log": ""} == dict.fromkeys(STEPS, "pass") | {"log": ""}
    assert results(alone)["log"] == "note"
    assert results(NOWHERE)["rescan"] == "fail"
