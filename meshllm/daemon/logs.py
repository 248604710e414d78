"""How the daemon's log looks: one line for each state change, `key=value` or JSON.

Owns formatting and destinations, and that no secret is written; what is worth a line is decided where it happens.
"""

import json
import logging
import logging.handlers
import sys
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

from meshllm.core.effects import Level, Notify
from meshllm.core.ids import NodeId
from meshllm.core.limits import LOG_LINE_BYTES
from meshllm.core.redaction import redacted
from meshllm.daemon.errors import StartError

_LEVELS = {
    Level.DEBUG: logging.DEBUG, Level.INFO: logging.INFO, Level.WARNING: logging.WARNING, Level.ERROR: logging.ERROR,
}  # fmt: skip
_NAMES = {"WARNING": "WARN", "CRITICAL": "FATAL"}
LOG_FILE_BYTES = 10 * 1024 * 1024
LOG_FILES_KEPT = 3

RING_LINES = 500

log = logging.getLogger("meshllm.core")


class Ring(logging.Handler):
    """Keeps the newest lines for `mesh-llm logs` and the console."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self._lines: deque[str] = deque(maxlen=RING_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self._lines.append(self.format(record))

    def lines(self) -> tuple[str, ...]:
        """Return the lines, oldest first."""
        return tuple(self._lines)


def write(notice: Notify) -> None:
    """Log what the core said."""
    log.log(_LEVELS[notice.level], notice.message, extra={"fields": dict(notice.fields), "event_id": notice.cause})


class PlainFormatter(logging.Formatter):
    """`12:00:01 INFO  model ready model=… load_s=1.3`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        level = _NAMES.get(record.levelname, record.levelname)
        fields = "".join(f" {key}={_quoted(value)}" for key, value in _fields(record).items())
        line = f"{self.formatTime(record, '%H:%M:%S')} {level:<5} {record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redacted(line)[:LOG_LINE_BYTES]


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the keys that log collectors expect; `model` in each, null where none is meant."""

    node_id = ""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": _NAMES.get(record.levelname, record.levelname),
            "module": record.name.removeprefix("meshllm."),
            "message": record.getMessage()[:LOG_LINE_BYTES],
            "node_id": self.node_id,
            **with_model(_fields(record)),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[:LOG_LINE_BYTES]
        return redacted(json.dumps(line, ensure_ascii=False, default=str))


def with_model(fields: dict[str, object]) -> dict[str, object]:
    """Return the fields of a line with its model under both names that are asked for: `model` and `model_id`."""
    model = fields.get("model_id", fields.get("model"))
    return {**fields, "model": model} | ({"model_id": model} if model is not None else {})


def name_node(node: NodeId) -> None:
    """Let every further line in JSON say which node wrote it."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonFormatter):
            handler.formatter.node_id = node


def set_up(level: str, log_format: str, file: Path | None) -> Ring:
    """Send the daemon's log to standard error, to a file that is turned over when it is full, and to a ring.

    Raises StartError where the file cannot be written.
    """
    formatter = JsonFormatter() if log_format == "json" else PlainFormatter()
    ring = Ring()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr), ring]
    if file is not None:
        handlers.append(_file_handler(file))
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    return ring


def _file_handler(file: Path) -> logging.Handler:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return logging.handlers.RotatingFileHandler(
            file, maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILES_KEPT, encoding="utf-8", errors="backslashreplace"
        )
    except OSError as error:
        raise StartError(f"cannot write the log file {file}: {error.strerror or error}") from None


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = dict(getattr(record, "fields", {}))
    if event_id := getattr(record, "event_id", ""):
        fields["event"] = event_id
    return fields


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(char in text for char in ' "=\n') else text
