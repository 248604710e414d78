"""Log lines for people and for collectors."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshllm.core.effects import Level, Notify
from meshllm.core.ids import EventId, NodeId
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


@pytest.mark.rows("LOG-1", "GEN-2")
def test_json_lines_have_the_keys_that_collectors_expect(tmp_path: Path) -> None:
    """One object a line, WARN and not WARNING; the node and the model under the names that are asked for."""
    logs.set_up("info", "json", tmp_path / "x.log")
    logs.name_node(NodeId("n1"))

    logs.write(NOTICE)

    line = json.loads((tmp_path / "x.log").read_text())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "WARN", "module": "core", "message": "engine ended", "model": "m", "model_id": "m", "node_id": "n1",
        "reason": 'it said "no"', "event": "e7",
    }  # fmt: skip


@pytest.mark.rows("GEN-2")
def test_a_line_about_no_model_says_so(tmp_path: Path) -> None:
    """Every record has the key, so that a collector needs no second form."""
    logs.set_up("info", "json", tmp_path / "x.log")

    logging.getLogger("meshllm.x").info("started")

    assert json.loads((tmp_path / "x.log").read_text())["model"] is None


@pytest.mark.rows("LOG-1")
def test_a_routed_request_has_every_key_of_its_line(tmp_path: Path) -> None:
    """Whatever is nested in it comes as JSON."""
    logs.set_up("debug", "json", tmp_path / "x.log")
    fields = {
        "model_id": "m", "strategy": "cache_aware", "score": 0.5, "routing_time_us": 3.1, "request_id": "r1",
        "trace_id": "a" * 32, "span_id": "b" * 16, "session": "s", "scores": {"n1": 0.5},
    }  # fmt: skip

    logging.getLogger("meshllm.request_router").debug("Routed request to model", extra={"fields": fields})

    line = json.loads((tmp_path / "x.log").read_text())
    assert line.items() >= fields.items()
    assert (line["module"], line["message"], line["level"]) == ("request_router", "Routed request to model", "DEBUG")
    assert line["timestamp"].endswith("Z")


@pytest.mark.rows("LOG-2")
@pytest.mark.parametrize("log_format", ["pretty", "json"])
def test_levels_have_their_usual_names(tmp_path: Path, log_format: str) -> None:
    """Five of them, WARN and FATAL among them; each is also what the least level may be called."""
    logs.set_up("debug", log_format, tmp_path / "x.log")

    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.getLogger("meshllm.x").log(level, "said")

    lines = (tmp_path / "x.log").read_text().splitlines()
    found = [json.loads(line)["level"] if log_format == "json" else line.split()[1] for line in lines]
    assert found == ["DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
    for number, name in enumerate(found):
        logs.set_up(name.lower(), log_format, tmp_path / name)
        assert logging.getLogger().level == (number + 1) * 10


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
