"""Reading the node's status document, whoever wrote it."""

import pytest

from meshllm.cli.rows import number, part, problems_of, row_of_spec, rows_of, text
from tests.cli.scripted import document
from tests.core.builders import a_spec


def test_row_has_what_a_command_shows() -> None:
    """A failure and what a model waits for are one message."""
    rows = {row.id: row for row in rows_of(document("troubled"))}

    assert rows["bad"].message == "it is broken"
    assert rows["fresh"].progress == 0.41
    assert rows["shaky"].phase == "retrying"
    assert problems_of(document("troubled")) == [("/models/x.gguf", "ends too early")]


@pytest.mark.parametrize("damaged", [{}, {"models": None}, {"models": [1, None]}, {"models": {}, "problems": "x"}])
def test_document_of_another_version_does_no_harm(damaged: dict[str, object]) -> None:
    """What is not there is shown as nothing."""
    assert rows_of(damaged) == []
    assert problems_of(damaged) == []


def test_wrong_types_are_nothing() -> None:
    """No command ends with a traceback because of an answer."""
    odd: dict[str, object] = {"a": True, "b": [], "c": 1.5}

    assert (number(odd, "a"), number(odd, "b"), number(odd, "c")) == (0, 0, 1)
    assert (text(odd, "a"), part(odd, "b")) == ("", {})
    assert rows_of({"models": [{"id": 1, "pid": "x", "aliases": [1, "a"], "progress": 3}]})[0].aliases == ["a"]


def test_model_on_disk_is_a_row_too() -> None:
    """Without a node, nothing is loaded."""
    row = row_of_spec(a_spec("tiny"))

    assert (row.id, row.phase, row.capabilities) == ("tiny", "unloaded", ["chat", "completion"])
