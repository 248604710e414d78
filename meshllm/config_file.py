"""The configuration file: from bytes on disk to values, each with the line it stands on.

Owns reading within bounds, and the shape that all formats become. Doesn't know which keys exist: `config` does;
nor other formats than TOML: `config_import` does.
"""

import errno
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meshllm.config_lines import parent, toml_lines
from meshllm.core.limits import CONFIG_FILE_BYTES

_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_AT_END = " (at end of document)"


class ConfigError(Exception):
    """A setting that cannot be used: what is wrong, and where it was given."""

    def __init__(self, message: str, *, file: Path | None = None, line: int | None = None, key: str = "") -> None:
        """Keep the message and its place: file, line from 1, key."""
        super().__init__(message)
        self.message, self.file, self.line, self.key = message, file, line, key

    def __str__(self) -> str:
        """Return `file:line: key: message`, as far as each is known."""
        place = "" if self.file is None else f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        return f"{place}{self.key}: {self.message}" if self.key else f"{place}{self.message}"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says, and where."""

    path: Path
    values: Mapping[str, object]
    lines: Mapping[str, int]
    """Line of each place, such as `port` or `models[0].engine.threads`; from 1. Unusual notations may be absent."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """What a place is called in the file, where it was read from elsewhere."""

    def error(self, place: str, message: str) -> ConfigError:
        """Return the error that a value of this file deserves."""
        name = found = self._called(place)
        while found and found not in self.lines:
            found = parent(found)
        return ConfigError(message, file=self.path, line=self.lines.get(found), key=name)

    def _called(self, place: str) -> str:
        """Return what the file calls a place, by the nearest part of it that has another name."""
        part = place
        while part and part not in self.shown:
            part = parent(part)
        return self.shown[part] + place[len(part) :] if part else place


def read(path: Path) -> ConfigFile:
    """Read a TOML file. Raises ConfigError."""
    text = text_of(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, str(error)) from None
    except RecursionError:
        raise nested_too_deeply(path) from None
    return ConfigFile(path, values, toml_lines(text))


def nested_too_deeply(path: Path) -> ConfigError:
    """Return the error of a file that no parser should follow."""
    return ConfigError("is nested too deeply", file=path)


def text_of(path: Path) -> str:
    """Return a file's text, checked for size, kind and encoding. Raises ConfigError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(CONFIG_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(_unreadable(path, error), file=path) from None
    if len(content) > CONFIG_FILE_BYTES:
        raise ConfigError(f"is larger than {CONFIG_FILE_BYTES // 1024} KiB; a configuration is not", file=path)
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise ConfigError("contains a NUL byte; this is not a text file", file=path, line=line)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError("is not UTF-8 text", file=path, line=line) from None


def _unreadable(path: Path, error: OSError) -> str:
    if error.errno == errno.EISDIR or (path.exists() and stat.S_ISDIR(path.stat().st_mode)):
        return "is a folder, not a file"
    if error.errno == errno.ENOENT:
        return "does not exist"
    return f"cannot be read: {error.strerror or error}"


def _syntax_error(path: Path, text: str, message: str) -> ConfigError:
    if (match := _AT_LINE.search(message)) is not None:
        return ConfigError(message[: match.start()], file=path, line=int(match[1]))
    # The parser says "at end of document" also for a mistake in the last line.
    return ConfigError(message.removesuffix(_AT_END), file=path, line=max(len(text.splitlines()), 1))
