"""Log lines for people and for collectors."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshllm.core.effects import Level, Notify
from meshllm.core.ids import EventId
from meshllm.daemon import logs
from meshllm.daemon.errors import StartError

NOTICE = Notify(
    level=Level.WARNING,
    message="engine ended",
    fields=(("model", "m"), ("reason", 'it said "no"')),
    cause=EventId("e7"),
)


@pytest.fixture(autouse=True)
def root_as_before() -> Iterator[None]:
    """Put the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers, root.level = handlers, level


def test_json_lines_have_the_keys_that_collectors_expect(tmp_path: Path) -> None:
    """One object a line, WARN and not WARNING."""
    logs.set_up("info", "json", tmp_path / "x.log")

    logs.write(NOTICE)

    line = json.loads((tmp_path / "x.log").read_text())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "WARN", "module": "core", "message": "engine ended", "model": "m", "reason": 'it said "no"',
        "event": "e7",
    }  # fmt: skip


def test_plain_lines_are_key_value_and_quote_what_needs_it(tmp_path: Path) -> None:
    """Readable, and still easy to take apart."""
    logs.set_up("info", "pretty", tmp_path / "x.log")

    logs.write(NOTICE)

    text = (tmp_path / "x.log").read_text()
    assert text.endswith('WARN  engine ended model=m reason="it said \\"no\\"" event=e7\n')


def test_lines_below_the_level_are_not_written(tmp_path: Path) -> None:
    """`--log-level warning` means it."""
    logs.set_up("error", "pretty", tmp_path / "x.log")

    logs.write(NOTICE)

    assert (tmp_path / "x.log").read_text() == ""


@pytest.mark.parametrize("name", ["is/a/file/x.log", "folder"])
def test_file_that_cannot_be_written_ends_the_start_with_a_reason(tmp_path: Path, name: str) -> None:
    """A log that silently isn't there is missed when it is needed."""
    (tmp_path / "is").mkdir()
    (tmp_path / "is" / "a").write_text("")
    (tmp_path / "folder").mkdir()

    with pytest.raises(StartError, match=r"cannot write the log file .*: (Not a directory|Is a directory)"):
        logs.set_up("info", "pretty", tmp_path / name)


@pytest.mark.parametrize("log_format", ["pretty", "json"])
def test_no_token_is_written(tmp_path: Path, log_format: str) -> None:
    """Whoever reads a log must not be able to join by it."""
    ring = logs.set_up("info", log_format, tmp_path / "x.log")

    logging.getLogger("meshllm").warning("bad token %s", "meshllm1-abcdefgh")

    assert "abcdefgh" not in (tmp_path / "x.log").read_text() + "".join(ring.lines())
    assert "meshllm1-" in (tmp_path / "x.log").read_text()
