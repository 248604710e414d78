"""Write the pages of docs/ that are made from the program: `scripts/docs`, or `scripts/docs --check`.

Owns how the program's own tables become pages: commands, settings, HTTP routes, events and effects, engine states,
limits. Decides nothing about their content; whoever wants another sentence changes it where it is declared. Doesn't
know which rows of acceptance are shown: `scripts/acceptance_page.py` does.
"""

import argparse
import ast
import dataclasses
import difflib
import importlib
import inspect
import itertools
import json
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts import acceptance_page  # noqa: E402 - the line above makes it findable when this file is run

DOCS = ROOT / "docs"
HEAD = "<!-- Written by scripts/docs from {source}. Change it there. -->\n"


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    names = list(columns)
    lines = [
        names,
        ["---"] * len(names),
        *([str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def attribute_docs(class_: type) -> dict[str, str]:
    """Return the strings that stand below the attributes of a class, by attribute."""
    body = typing.cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(class_))).body[0]).body
    found = {}
    for one, below in itertools.pairwise(body):
        target = (
            one.target if isinstance(one, ast.AnnAssign) else one.targets[0] if isinstance(one, ast.Assign) else None
        )
        if isinstance(target, ast.Name) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[target.id] = inspect.cleandoc(str(below.value.value))
    return found


# -- engine states ----------------------------------------------------------------------------------------------------


def engine_states() -> str:
    """Return the page of the engine's life: a diagram and the table behind it."""
    module = importlib.import_module("meshllm.core.serving.engine_state")
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, signal), following in module.TRANSITIONS.items():
        arrows.setdefault((str(state), str(following)), []).append(str(signal).replace("_", " "))
    diagram = ["```mermaid", "stateDiagram-v2", "    [*] --> stopped"]
    diagram += [f"    {one} --> {other}: {', '.join(signals)}" for (one, other), signals in arrows.items()]
    rows = [
        (f"`{state}`", "yes" if state in module.HAS_PROCESS else "no", ", ".join(
            f"{str(signal).replace('_', ' ')} → `{following}`"
            for (before, signal), following in module.TRANSITIONS.items() if before is state
        ))
        for state in module.EngineState
    ]  # fmt: skip
    return "\n".join([
        "# The life of an engine\n",
        "An engine is a child process that infers. What is not in this table cannot happen.\n",
        *diagram, "```\n", table(["state", "has a process", "what leads on"], rows),
    ])  # fmt: skip


# -- events and effects -----------------------------------------------------------------------------------------------


def events() -> str:
    """Return the page of what can happen to a node and what it can do about it."""
    page = [
        "# Events and effects\n",
        (
            "Everything that can happen to a node, and everything it can do about it. An event has an id, and the "
            "effects that it leads to carry it on as their cause.\n"
        ),
    ]
    for title, name, union in (("Events", "events", "Event"), ("Effects", "effects", "Effect")):
        module = importlib.import_module(f"meshllm.core.{name}")
        members = typing.get_args(getattr(module, union))
        rows = [(f"`{item.__name__}`", inspect.getdoc(item), _fields(item)) for item in members]
        page += [f"## {title}\n", table([name.removesuffix("s"), "means", "carries"], rows)]
    return "\n".join(page)


def _fields(class_: Any) -> str:  # noqa: ANN401 - a dataclass, which has no type of its own
    own = (field.name for field in dataclasses.fields(class_) if field.name not in {"id", "cause"})
    return ", ".join(f"`{name}`" for name in own)


# -- limits -----------------------------------------------------------------------------------------------------------


def limits() -> str:
    """Return the page of written limits, in the order and with the comments of their modules."""
    module = importlib.import_module("meshllm.core.limits")
    values = module.all_limits()
    page = [
        "# Limits\n",
        "Every queue, buffer, retry and wait of the daemon. `mesh-llm doctor --limits` prints them too.\n",
    ]
    rows: list[tuple[str, ...]] = []
    parts = [importlib.import_module(f"meshllm.core.{part}_limits") for part in ("cache", "line", "split")]
    sources = (inspect.getsource(one) for one in (module, *parts))
    for line in "\n".join(sources).splitlines():
        section = re.match(r"# -- (.*?) -*$", line)
        name = re.match(r"([A-Z][A-Z0-9_]*): Final = ", line)
        if section:
            page += [table(["limit", "value", "why"], rows)] if rows else []
            page += [f"## {section[1].strip()[0].upper() + section[1].strip()[1:]}\n"]
            rows = []
        elif name and name[1] in values:
            reason = line.partition("  # ")[2]
            rows.append((f"`{name[1]}`", _amount(name[1], values[name[1]]), reason))
    return "\n".join([*page, table(["limit", "value", "why"], rows)])


def _amount(name: str, value: float) -> str:
    if name.endswith("_BYTES"):
        for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= size and value % size == 0:
                return f"{value // size} {unit}"
        return f"{value} bytes"
    if name.endswith("_BYTES_PER_S"):
        return f"{value:,} bytes/s"
    return f"{value:g} s" if name.endswith("_S") else f"{value:,}" if isinstance(value, int) else f"{value:g}"


# -- configuration ----------------------------------------------------------------------------------------------------


def configuration() -> str:
    """Return the page of settings: name in the file, flag, variable, default, meaning."""
    module = importlib.import_module("meshllm.config")
    helps = root_helps()
    written = attribute_docs(module.Config)
    rows = []
    for field in dataclasses.fields(module.Config):
        flag = flag_of(field.name, helps)
        meaning = written.get(field.name) or re.sub(r" \[[^\]]*\]$", "", helps.get(flag, ""))
        variables = (f"MESH_LLM_{field.name.upper()}", *getattr(module, "ENVIRONMENT_ALIASES", {}).get(field.name, ()))
        rows.append((
            f"`{field.name}`", f"`{flag}`" if flag else "", ", ".join(f"`{name}`" for name in variables),
            _default(field.default), meaning,
        ))  # fmt: skip
    return "\n".join([
        "# Configuration\n",
        (
            "A flag wins over a variable, a variable over the configuration file, the file over the default. The file "
            "is TOML with the names of the first column as keys: `--config FILE`, else `mesh-llm/config.toml` in the "
            "platform's configuration folder.\n"
        ),
        table(["setting", "flag", "variables", "default", "meaning"], rows),
        tables_of_configuration(), CONFIGURATION_EXAMPLES,
    ])  # fmt: skip


CONFIGURATION_EXAMPLES = """## Files that others wrote

`--config FILE` takes what other programs take, too, and so do `mesh-llm multi-model --config FILE` and
`mesh-llm from-config -f FILE`. The format follows from the file's name. `mesh-llm config check FILE` says what is wrong
with one, `mesh-llm config show` what is in force; [config.schema.json](config.schema.json) is for editors.

Every entry is loaded at the start, as far as it fits, unless it says `load = "lazy"` or `"off"`. An option that cannot
be honoured is an error that names it, with file and line.

Ours, which is also that of `from-config`:

```toml
default_model = "qwen3-8b"

[server]
port = 9337

[[models]]
name = "qwen3-8b"
aliases = ["house-model"]
[models.quantization]
quant = "4"
[models.engine]
context_tokens = 16384

[[models]]
name = "nomic-embed-text"
load = "lazy"

[[remotes]]
name = "ollama"
base_url = "http://127.0.0.1:11434"
```

The JSON of `multi-model`; the keys are labels, the names are those of the models:

```json
{
  "fast": {"Plain": {"model_id": "meta-llama/Llama-3.2-3B-Instruct"}, "in_situ_quant": "Q4K"},
  "file": {
    "GGUF": {
      "quantized_model_id": "bartowski/Llama-3.2-1B-Instruct-GGUF",
      "quantized_filename": "Llama-3.2-1B-Instruct-Q4_K_M.gguf"
    },
    "num_device_layers": ["0:10", "1:6"]
  }
}
```

A list of models in YAML, some of which other servers answer for:

```yaml
default_model: mistral-7b
models:
  - id: mistral-7b
    type: local
  - id: deepseek-ai/DeepSeek-R1
    type: remote
    base_url: http://deepseek-node:8000
    api_key_env: DEEPSEEK_KEY
```

llama.cpp does not quantise while it loads. `quant` (and `in_situ_quant`) therefore chooses a file that has the level:
`4` the best of four bits, `Q4_K_M` exactly that one. `isq` is refused, with the nearest level to write instead.
"""


def tables_of_configuration() -> str:
    """Return the sections about the tables of the file."""
    keys = importlib.import_module("meshllm.config_keys")
    sections = importlib.import_module("meshllm.config_sections").SECTIONS
    page = ["## Tables\n", "Settings may stand at the top of the file, or in the table that groups them.\n"]
    named = [
        (
            f"`[{name}]`",
            ", ".join(f"`{key}`" + ("" if key == setting else f" (`{setting}`)") for key, setting in inside.items()),
        )
        for name, inside in sections.items()
    ]
    page.append(table(["table", "keys"], named))
    for title, inside in (("[[models]]", keys.MODEL_KEYS), ("[[remotes]]", keys.REMOTE_KEYS)):
        rows = [
            (
                f"`{title}`" + (f" or `[models.{key.table}]`" if key.table else ""), f"`{own}`",
                ", ".join(f"`{name}`" for name in key.also), key.meaning,
            )
            for own, key in inside.items()
            if own not in keys.HIDDEN_KEYS
        ]  # fmt: skip
        page += [f"### `{title}`\n", table(["table", "key", "also written", "meaning"], rows)]
    routing = importlib.import_module("meshllm.config_routing")
    defaults = routing.shown(routing.DEFAULT)
    rows = [
        ("`[routing]`", f"`{key}`", f"`{json.dumps(defaults[key])}`", meaning)
        for key, meaning in routing.MEANINGS.items()
    ]
    page += ["### `[routing]`\n", ROUTING_TABLE, table(["table", "key", "default", "meaning"], rows)]
    quotas = importlib.import_module("meshllm.config_quotas")
    limited = [("`[quotas.default]`, `[quotas.ID]`", f"`{key}`", meaning) for key, meaning in quotas.MEANINGS.items()]
    limited += [
        ("`[quotas]`", "`preset`", "`small`, `medium` or `large`: numbers for all models; keys that are written win.")
    ]
    limited += [
        ("`[quotas]`", "`timezone`", "By whose clock hours and days begin; `quota_timezone` at the top is the same.")
    ]
    page += ["### `[quotas]`\n", QUOTAS_TABLE, table(["table", "key", "meaning"], limited)]
    cache = importlib.import_module("meshllm.config_cache")
    plain = cache.shown(cache.DEFAULT)
    rows = [
        ("`[cache]`", f"`{key}`", f"`{json.dumps(plain[key])}`", meaning) for key, meaning in cache.MEANINGS.items()
    ]
    sizes = "; ".join(f"`{name}`: " + json.dumps(said)[1:-1] for name, said in cache.PRESETS.items())
    rows.append(("`[cache]`", "`preset`", "", f"Sizes by one word, with those of quotas. {sizes}"))
    rows.append(("`[cache]`", "`per_model_quota`", "", "The same as `[quotas.default]`."))
    page += ["### `[cache]`\n", CACHE_TABLE, table(["table", "key", "default", "meaning"], rows)]
    return "\n".join(page)


CACHE_TABLE = """How this node shares out its prompt cache among its models ([caches](caches.md)). `preset`,
`per_model_quota`, `global_cache_size_gb`, `allocation_strategy`, `global_eviction_policy` and `model_priorities` may
stand at the top of the file, too; `[cache_config]` is taken as well. What is written wins over a preset.
"""
QUOTAS_TABLE = """What models may be used for at this node, unless `mesh-llm quota` chooses it for the whole mesh:
`default` is for all models, any other table for the model of that id. Without a number, or with 0, there is no limit.
"""
ROUTING_TABLE = """How this node routes requests, whatever the mesh has chosen: what is not named has its default here,
until somebody changes it with `mesh-llm routing`. Without the table, what the mesh has chosen counts, and where nobody
has chosen anything, the defaults. `[routing_config]` is taken too.
"""


def configuration_schema() -> str:
    """Return the JSON schema of the configuration file."""
    return json.dumps(importlib.import_module("meshllm.config_schema").json_schema(), indent=1)


def flag_of(setting: str, helps: Mapping[str, str]) -> str:
    """Return the flag that sets a setting; empty when only the file and the environment do."""
    names = getattr(importlib.import_module("meshllm.config"), "_FLAG_NAMES", {})
    flag = str(names.get(setting, "--" + setting.replace("_", "-")))
    return flag if flag in helps else ""


def _default(value: object) -> str:
    if value in (None, "", ()) or value == Path():
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    share = getattr(value, "share", None)
    return f"{share:.0%}" if share is not None else f"{value:g}" if isinstance(value, float) else f"`{value}`"


# -- commands ---------------------------------------------------------------------------------------------------------


def root_command() -> Any:  # noqa: ANN401 - a click command; click is typer's affair
    """Return the root of the command line."""
    typer = importlib.import_module("typer.main")
    return typer.get_command(importlib.import_module("meshllm.cli.main").app)


def subcommands(command: Any, context: Any) -> list[tuple[str, Any]]:  # noqa: ANN401
    """Return the visible commands below a command, with their names; imports what is loaded lazily."""
    if not hasattr(command, "list_commands"):
        return []
    found = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
    return [(name, item) for name, item in found if item is not None and not item.hidden]


def parameters(command: Any) -> list[tuple[str, str, str]]:  # noqa: ANN401
    """Return (as it is written, help, default) of everything a command takes."""
    rows = []
    for item in command.params:
        if getattr(item, "hidden", False) or item.name == "help":
            continue
        is_argument = item.param_type_name == "argument"
        text = (item.metavar or item.name.upper()) if is_argument else ", ".join([*item.opts, *item.secondary_opts])
        default = item.default if isinstance(item.default, str | int | float) and not callable(item.default) else None
        shown = "" if default in (None, False, "") else f"`{default}`"
        rows.append((f"`{text}`", (getattr(item, "help", None) or "").strip(), shown))
    return rows


def root_helps() -> dict[str, str]:
    """Return the help of every option of the root command and of `serve`, by flag."""
    try:
        root = root_command()
    except ModuleNotFoundError:
        return {}
    context = root.make_context("mesh-llm", [], resilient_parsing=True)
    commands = [root, *(item for name, item in subcommands(root, context) if name == "serve")]
    return {
        flag: (getattr(item, "help", None) or "").strip()
        for command in commands for item in command.params for flag in item.opts
    }  # fmt: skip


def commands() -> str:
    """Return the page of the command line."""
    root = root_command()
    context = root.make_context("mesh-llm", [], resilient_parsing=True)
    page = ["# Commands\n", "What `mesh-llm --help` says, on one page.\n"]
    page += _command("mesh-llm", root)
    for name, item in subcommands(root, context):
        page += _command(f"mesh-llm {name}", item)
        inner = item.make_context(name, [], resilient_parsing=True, parent=context)
        for below, deeper in subcommands(item, inner):
            page += _command(f"mesh-llm {name} {below}", deeper)
    return "\n".join(page)


def _command(title: str, command: Any) -> list[str]:  # noqa: ANN401
    text = [inspect.cleandoc(part).replace("\b", "") for part in (command.help, command.epilog) if part]
    rows = parameters(command)
    takes = [table(["takes", "meaning", "default"], rows)] if rows else []
    return [f"## `{title}`\n", *(f"{part}\n" for part in text), *takes]


# -- HTTP -------------------------------------------------------------------------------------------------------------


def http() -> str:
    """Return the page of routes: inference through the front door, and the management app behind it."""
    app = importlib.import_module("meshllm.api.routes")
    paths = importlib.import_module("meshllm.proxy.paths")
    doors: dict[str, list[str]] = {}
    for path, door in paths.INFERENCE.items():
        doors.setdefault(door.path.decode(), []).append(path)
    inference = [
        (f"`{path}`", ", ".join(f"`{name}`" for name in names if name != path), _need(paths.INFERENCE[path].needs))
        for path, names in doors.items()
    ]
    shapes = importlib.import_module("meshllm.proxy.shapes")
    said = attribute_docs(shapes.Common)
    own = [(f"`{name}`", said[name]) for name in sorted(shapes.OWN_FIELDS)]
    management = [(route.method, f"`{route.path}`", route.summary) for route in app.ROUTES]
    return "\n".join([
        "# HTTP\n",
        (
            "One address answers everything, `127.0.0.1:9337` unless told otherwise. `GET /openapi.json` is all of "
            "this with the types of bodies and answers, `GET /docs` the same as a page. `scripts/workflows` shows it "
            "at work, as shell scripts: a model is added, requests are routed, two models are compared.\n"
        ),
        "## Inference\n", "All take POST, and go to the engine of the model that the body names.\n",
        table(["path", "also as", "needs a model for"], inference),
        "### What requests may say to the mesh\n",
        "Fields of the body that no engine sees, and header fields beside those of HTTP.\n",
        table(["field", "says"], [*own, *_HEADERS]),
        "## Models\n",
        "`GET /v1/models` lists what can be asked for, `GET /v1/models/{model}` one of it. Both come from memory.\n",
        "## Management\n", table(["method", "path", "does"], management),
    ])  # fmt: skip


_HEADERS = (
    ("`X-Session-ID`", "The session: its requests go to the same model and host while those are there."),
    ("`X-Mesh-Strategy`", "How the host of this one request is chosen."),
    ("`X-Priority`", "`high`, `normal` or `low`: who goes first where not all can."),
    ("`Cache-Control`", "`no-store` or `no-cache`: no answer that was kept, and this one is not kept."),
    ("`X-Request-ID`", "Its id, given back; one is made where there is none."),
)


def _need(capability: object) -> str:
    return str(capability) if capability is not None else "anything"


# -- all of them ------------------------------------------------------------------------------------------------------

PAGES: Mapping[str, tuple[str, Callable[[], str]]] = types.MappingProxyType(
    {
        "acceptance.md": ("scripts/acceptance_rows.toml and the marks of the tests", acceptance_page.acceptance),
        "commands.md": ("meshllm/cli", commands),
        "config.schema.json": ("meshllm/config_keys.py and config_kinds.py", configuration_schema),
        "configuration.md": ("meshllm/config.py and config_keys.py", configuration),
        "engine-states.md": ("meshllm/core/serving/engine_state.py", engine_states),
        "events.md": ("meshllm/core/events.py and effects.py", events),
        "http.md": ("meshllm/api/routes.py and meshllm/proxy/paths.py", http),
        "limits.md": ("meshllm/core/limits.py", limits),
    }
)


def page(name: str) -> str:
    """Return a whole page as it has to stand in docs/."""
    source, make = PAGES[name]
    if name.endswith(".json"):
        return make() + "\n"
    return HEAD.format(source=source) + "\n" + make().rstrip() + "\n"


def main() -> int:
    """Write the pages, or compare them. Return an exit status."""
    parser = argparse.ArgumentParser(description="Write the generated pages of docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is out of date")
    is_check = parser.parse_args().check
    stale = 0
    for name in PAGES:
        try:
            file, wanted = DOCS / name, page(name)
        except acceptance_page.RowsError as error:
            print(error, file=sys.stderr)
            return 1
        found = file.read_text(encoding="utf-8") if file.is_file() else ""
        if found == wanted:
            continue
        stale += 1
        if is_check:
            changes = difflib.unified_diff(
                found.splitlines(), wanted.splitlines(), f"docs/{name}", "generated", lineterm=""
            )
            print("\n".join(list(changes)[:20]))
        else:
            file.write_text(wanted, encoding="utf-8")
            print(f"docs/{name}: written")
    if is_check and stale:
        print("scripts/docs writes them", file=sys.stderr)
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
