"""The tables of a configuration file that only group settings, and other programs' words for settings.

Owns which setting stands in which table and under which other name. Decides that a setting is given once. Doesn't
know values.
"""

import difflib
from collections.abc import Collection, Mapping
from types import MappingProxyType

from meshllm.config_cache import AT_THE_TOP
from meshllm.config_file import ConfigFile
from meshllm.config_lines import child

SECTIONS: Mapping[str, Mapping[str, str]] = MappingProxyType({
    "server": {
        **{name: name for name in ("host", "port", "api_key", "insecure_no_auth", "allowed_hosts", "allowed_origins")},
        "admin_key": "admin_key", "insecure_local_admin": "insecure_local_admin",
        "console": "console", "name": "name", "unknown_model": "unknown_model", "load_wait_s": "load_wait_s",
        "log_level": "log_level", "log_format": "log_format", "log_file": "log_file",
        "trace_endpoint": "trace_endpoint", "trace_share": "trace_share",
    },
    "mesh": {
        **{name: name for name in ("join", "join_file", "require_join", "client", "peers", "advertise", "assign")},
        "bind_ip": "bind_ip", "bind_port": "bind_port", "no_mdns": "no_mdns", "no_rpc": "no_rpc",
        "split": "split",
        "no_remote_control": "no_remote_control", "name": "mesh_name", "mesh_name": "mesh_name",
    },
})  # fmt: skip
"""Table -> its keys -> the settings that they are."""
OTHER_NAMES = MappingProxyType({
    "default_model_id": "default_model", "routing_config": "routing", "cache_config": "cache",
})  # fmt: skip
"""Other programs' names of settings and tables at the top."""
COMMANDS = frozenset({"serve", "run"})
"""What `command` may say: other programs use one file for several purposes."""
TABLES = AT_THE_TOP | {
    "models", "remotes", "routing", "quotas", "cache", "quota_timezone", "keys", "allow_mixed_cpu", "$schema",
}  # fmt: skip
"""Keys at the top that are no settings; who reads tables reads them, and editors the last."""


def unfolded(file: ConfigFile, settings: Collection[str]) -> ConfigFile:
    """Return the file with every setting at the top, under its own name. Raises ConfigError."""
    values: dict[str, object] = {}
    shown = dict(file.shown)
    for key, value in file.values.items():
        if key == "command":
            _check_command(file, value)
        elif key in SECTIONS:
            for name, below in _table(file, key, value).items():
                _add(file, values, shown, (SECTIONS[key].get(name), child(key, name)), below)
        elif key in OTHER_NAMES:
            _add(file, values, shown, (OTHER_NAMES[key], key), value)
        elif key in settings or key in TABLES:
            _add(file, values, shown, (key, key), value)
        else:
            known = (
                *settings,
                *SECTIONS,
                *OTHER_NAMES,
                "remotes",
                "routing",
                "quotas",
                "cache",
                *AT_THE_TOP,
                "quota_timezone",
                "command",
                "allow_mixed_cpu",
            )
            near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
            raise file.error(key, f"unknown setting{f'; did you mean {near[0]}?' if near else ''}")
    return ConfigFile(file.path, values, file.lines, shown)


def _add(
    file: ConfigFile, values: dict[str, object], shown: dict[str, str], named: tuple[str | None, str], value: object
) -> None:
    """Keep a setting, unless it has been given already. `named` is its name, and what the file calls it."""
    setting, place = named
    if setting is None:
        table, _, name = place.partition(".")
        near = difflib.get_close_matches(name.replace("-", "_"), SECTIONS[table], n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(SECTIONS[table])}"
        raise file.error(place, f"unknown setting{hint}")
    if value is None:
        return
    if setting in values:
        raise file.error(place, f"is given twice: {shown.get(setting, setting)} says it, too")
    values[setting] = value
    if place != setting:
        shown[setting] = place


def _table(file: ConfigFile, key: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise file.error(key, f"expected a table, [{key}]")
    return value


def _check_command(file: ConfigFile, value: object) -> None:
    if value not in COMMANDS:
        shown = repr(value)[:40]
        raise file.error("command", f"expected serve or run, not {shown}: this file is for starting a node")
