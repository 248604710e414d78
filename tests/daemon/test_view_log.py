"""What is new of this node's models, for who reads the log at DEBUG."""

import logging
from typing import Any

import pytest

from meshllm.core.engines import EngineState
from meshllm.core.health import HealthChecks, Integrity
from meshllm.core.view import LoadProgress
from meshllm.daemon.view_log import tell_changes
from tests.proxy.builders import a_model, a_view

BEFORE = a_view(a_model())


def told(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    """Return the fields of the lines of one module."""
    records: list[Any] = caplog.records
    return [record.fields for record in records if record.name == f"meshllm.{name}"]


@pytest.mark.rows("LOG-3")
def test_debug_shows_how_health_was_found(caplog: pytest.LogCaptureFixture) -> None:
    """The measurements, not only the verdict; nothing where they are as before."""
    caplog.set_level(logging.DEBUG, "meshllm")
    checks = HealthChecks(file_integrity=Integrity.OK, response_time_s=9.0, error_rate=0.0)
    view = a_view(a_model(checks=checks), epoch=2)

    tell_changes(BEFORE, view)
    tell_changes(view, a_view(*view.local.values(), epoch=3))

    (line,) = told(caplog, "health")
    assert line == {
        "model_id": "tiny", "health": "degraded", "file_integrity": "ok", "memory": "unknown",
        "response_time_s": 9.0, "error_rate": 0.0, "reason": "",
    }  # fmt: skip


@pytest.mark.rows("LOG-3")
def test_debug_shows_how_far_a_load_is(caplog: pytest.LogCaptureFixture) -> None:
    """Each step of it, by stage."""
    caplog.set_level(logging.DEBUG, "meshllm")
    steps = [
        LoadProgress(stage="downloading", share=0.25, done_bytes=1, total_bytes=4),
        LoadProgress(stage="loading", share=0.5),
    ]
    views = [a_view(a_model(state=EngineState.STARTING, progress=step), epoch=2) for step in steps]

    for before, view in zip([BEFORE, *views], views, strict=False):
        tell_changes(before, view)

    lines = told(caplog, "loading")
    assert [(line["model_id"], line["stage"], line["share"]) for line in lines] == [
        ("tiny", "downloading", 0.25), ("tiny", "loading", 0.5),
    ]  # fmt: skip


def test_nothing_is_told_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    """The usual level costs one question."""
    caplog.set_level(logging.INFO, "meshllm")

    tell_changes(BEFORE, a_view(a_model(checks=HealthChecks()), epoch=2))

    assert caplog.records == []
