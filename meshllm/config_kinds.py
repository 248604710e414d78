"""What values the settings take: for each one how it is read from text and from TOML.

Owns the checks of single values and the sentences that say what was expected. Doesn't know where a value
came from.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from meshllm.core.addresses import parse_address, parse_peer
from meshllm.core.announcement import Address
from meshllm.core.quantization import level_of
from meshllm.core.resources import MemoryLimit

_WHOLE = re.compile(r"[+-]?[0-9]+")
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueKind:
    """One kind of value."""

    read_text: Callable[[str], object]
    """From a flag or a variable. Raises ValueError saying what was expected."""
    types: tuple[type, ...] = (str,)
    """What TOML may give."""
    toml_name: str = "a string"
    is_list: bool = False
    is_path: bool = False
    schema: Mapping[str, object] = field(default_factory=lambda: {"type": "string"})
    """What a JSON schema says of one value."""

    def read(self, given: object, *, is_text: bool) -> object:
        """Return the value; a tuple for a list. Raises ValueError."""
        if not self.is_list:
            return self._one(given, is_text=is_text)
        if isinstance(given, str):
            items: list[object] = [item.strip() for item in given.split(",")] if is_text else [given]
        elif isinstance(given, list | tuple):
            items = list(given)
        else:
            raise ValueError(f"expected a list of strings, not {_shown(given)}")  # noqa: TRY004 - a user's value
        return tuple(self._one(item, is_text=is_text) for item in items if item != "")

    def _one(self, given: object, *, is_text: bool) -> object:
        is_bool_for_number = isinstance(given, bool) and bool not in self.types
        if is_bool_for_number or not isinstance(given, self.types):
            if is_text and isinstance(given, str):
                return self.read_text(given.strip())
            raise ValueError(f"expected {self.toml_name}, not {_shown(given)}")
        return self.read_text(given.strip() if isinstance(given, str) else str(given))


def _shown(value: object) -> str:
    """Name a value's TOML type and show a little of it."""
    kinds = {bool: "the boolean", int: "the number", float: "the number", str: "the string", list: "the list"}
    name = kinds.get(type(value), "a table" if isinstance(value, dict) else "a date or time")
    if isinstance(value, dict):
        return name
    return f"{name} {str(value)[:40]!r}" if isinstance(value, str) else f"{name} {str(value).lower()[:40]}"


def whole(least: int, most: int) -> ValueKind:
    """Return the kind of whole numbers in a range."""

    def read(text: str) -> int:
        if not _WHOLE.fullmatch(text):
            raise ValueError(f"expected a whole number, not {text[:40]!r}")
        number = int(text) if len(text) < 20 else most + 1
        if not least <= number <= most:
            raise ValueError(f"expected a number from {least} to {most}, not {text[:40]}")
        return number

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return ValueKind(read_text=read, types=(int,), toml_name="a whole number", schema=schema)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"expected a number of seconds, not {text[:40]!r}") from None
    if not 0 < number <= 86_400:
        raise ValueError(f"expected more than 0 and at most 86400 seconds, not {text[:40]}")
    return number


def _switch(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(f"expected true or false, not {text[:40]!r}")


def number(least: float, most: float) -> ValueKind:
    """Return the kind of numbers in a range."""

    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            raise ValueError(f"expected a number, not {text[:40]!r}") from None
        if not least <= found <= most:
            raise ValueError(f"expected a number from {least:g} to {most:g}, not {text[:40]}")
        return found

    schema = {"type": "number", "minimum": least, "maximum": most}
    return ValueKind(read_text=read, types=(int, float), toml_name="a number", schema=schema)


def choice(*choices: str) -> ValueKind:
    """Return the kind of words out of a few, in any case."""

    def read(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}; not {text[:40]!r}")
        return text.lower()

    return ValueKind(read_text=read, schema={"enum": list(choices)})


def words(least: int = 1, most: int = 4096) -> Callable[[str], str]:
    """Return what reads text of a length that can be printed."""

    def read(text: str) -> str:
        if not least <= len(text) <= most:
            raise ValueError(f"expected {least} to {most} characters")
        if not text.isprintable():
            raise ValueError("contains characters that cannot be printed")
        return text

    return read


def _no_spaces(text: str) -> str:
    if any(char.isspace() for char in text) or not text.isascii():
        raise ValueError("expected ASCII characters without spaces")
    return words()(text)


def _any_text(text: str) -> str:
    """Take what stands there: a token says itself what is wrong with it."""
    return text


def _ip_address(text: str) -> str:
    return parse_address(f"[{text}]:1").host if ":" in text else parse_address(f"{text}:1").host


def _web_address(text: str) -> str:
    """Read where something is on the web."""
    address = _no_spaces(text)
    scheme, separator, rest = address.partition("://")
    if scheme not in {"http", "https"} or not separator or not rest.strip("/"):
        raise ValueError(f"expected http://host:port or https://host:port, not {address[:80]!r}")
    return address


def _advertised(text: str) -> Address:
    return parse_address(text, 0)


def _host(text: str) -> str:
    """Read an address or a name to listen on; IPv6 also in the brackets that addresses with a port need."""
    host = _no_spaces(text)
    if not host.startswith("["):
        return host
    inner = host[1:].removesuffix("]") if host.endswith("]") else ""
    from ipaddress import IPv6Address  # noqa: PLC0415 - costs start-up time that few have to pay

    try:
        return str(IPv6Address(inner))
    except ValueError:
        raise ValueError("expected an IPv6 address between brackets, and nothing behind them") from None


SECONDS = ValueKind(
    read_text=_seconds, types=(int, float), toml_name="a number of seconds",
    schema={"type": "number", "exclusiveMinimum": 0, "maximum": 86_400},
)  # fmt: skip
SWITCH = ValueKind(read_text=_switch, types=(bool,), toml_name="true or false", schema={"type": "boolean"})
PATH = ValueKind(read_text=words(), types=(str, Path), is_path=True)

KINDS: Mapping[str, ValueKind] = MappingProxyType({
    "models": ValueKind(read_text=words(most=512), is_list=True),
    "models_dirs": ValueKind(read_text=words(), types=(str, Path), is_list=True, is_path=True),
    "state_dir": PATH,
    "runtime_dir": PATH,
    "cache_dir": PATH,
    "host": ValueKind(read_text=_host),
    "port": whole(1, 65_535),
    "name": ValueKind(read_text=words(most=63)),
    "max_vram": ValueKind(read_text=MemoryLimit.parse),
    "ctx_size": whole(256, 16_777_216),
    "parallel": whole(1, 256),
    "threads": whole(1, 1024),
    "engine": ValueKind(read_text=words()),
    "api_key": ValueKind(read_text=_no_spaces),
    "admin_key": ValueKind(read_text=_no_spaces),
    "insecure_no_auth": SWITCH,
    "insecure_local_admin": SWITCH,
    "allowed_hosts": ValueKind(read_text=_no_spaces, is_list=True),
    "allowed_origins": ValueKind(read_text=_no_spaces, is_list=True),
    "unknown_model": choice("reject", "fallback"),
    "offline": SWITCH,
    "min_model_mb": whole(0, 1_000_000),
    "load_wait_s": SECONDS,
    "load_timeout_s": SECONDS,
    "drain_s": SECONDS,
    "engine_stall_s": SECONDS,
    "join": ValueKind(read_text=_any_text, is_list=True),
    "join_file": PATH,
    "require_join": SWITCH,
    "client": SWITCH,
    "mesh_name": ValueKind(read_text=words(most=63)),
    "peers": ValueKind(read_text=parse_peer, is_list=True),
    "advertise": ValueKind(read_text=_advertised, is_list=True),
    "bind_ip": ValueKind(read_text=_ip_address),
    "bind_port": whole(1, 65_535),
    "no_mdns": SWITCH,
    "split": SWITCH,
    "no_rpc": SWITCH,
    "no_remote_control": SWITCH,
    "profile": SWITCH,
    "trace_endpoint": ValueKind(read_text=_web_address),
    "trace_share": number(0, 1),
    "log_level": choice("debug", "info", "warn", "warning", "error", "fatal"),
    "log_format": choice("pretty", "json"),
    "log_file": PATH,
    "default_model": ValueKind(read_text=words(most=512)),
    "quant": ValueKind(read_text=level_of, types=(str, int)),
    "isq": ValueKind(read_text=words(most=64), types=(str, int)),
    "assign": choice("auto", "disk", "off"),
    "serve_all": SWITCH,
    "console": whole(1, 65_535),
})  # fmt: skip
"""The kind of every setting that has one value or a list, by its name."""
