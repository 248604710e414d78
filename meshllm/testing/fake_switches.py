"""How an engine double is told to behave: its switches, and what it says of its own end.

Owns the words of them. Decides which trouble a load has. Doesn't know what an engine does.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

ENVIRONMENT = "MESH_FAKE_ENGINE"
LOAD_ENDS = {
    "oom": ("E ggml_aligned_malloc: insufficient memory (attempted to allocate 190734.86 MB)", 1),
    "bad_file": ("E gguf_init_from_reader: invalid magic characters: 'NOPE', expected 'GGUF'", 1),
    "unknown_architecture": ("E llama_model_load: error loading model: unknown model architecture: 'quux'", 1),
    "exit": ("E srv    load_model: something else went wrong", 3),
}
"""`Switches.load` -> last line, exit status. Two more: `hang`, and `crash`."""


@dataclass(slots=True, kw_only=True)
class Switches:
    """How the double behaves. Times are seconds."""

    load_s: float = 0.0
    load: str = ""
    """Trouble of the load: a key of LOAD_ENDS, `hang` or `crash`."""
    load_troubles: int = -1
    """How many loads have the trouble before one succeeds, counted in `counter`; -1 for all."""
    counter: str = ""
    """Path of a file that counts starts, across processes."""
    first_token_s: float = 0.0
    token_s: float = 0.0
    trouble: str = ""
    """Trouble of every request."""
    cached_tokens: int = 0
    """Of every prompt; below 0, what the engine has really seen of its beginning."""
    ignore_sigterm: bool = False
    refuse: bool = False
    """Never listen, but live on."""
    model: str = ""
    """Name the answers give instead of the alias."""
    share_gate: str = ""
    """Path of a file: until it is there, what workers have to take does not end."""
    rpc: str = ""
    """What it says it speaks with other machines, so that it can share models: any text, equal on all."""


def say(line: str) -> None:
    """Write a log line where engines write theirs."""
    sys.stderr.write(f"fake: {line}\n")
    sys.stderr.flush()


def end(code: int, line: str) -> NoReturn:
    """End the process with last words."""
    say(line)
    os._exit(code)


def load_trouble(switches: Switches) -> str:
    """Return the trouble that this load has, or empty; and count it."""
    if not switches.load or switches.load_troubles < 0 or not switches.counter:
        return switches.load
    counter = Path(switches.counter)
    starts = int(counter.read_text(encoding="ascii")) if counter.exists() else 0
    counter.write_text(str(starts + 1), encoding="ascii")
    return switches.load if starts < switches.load_troubles else ""


def read_switches(told: Mapping[str, Any]) -> Switches:
    """Return the switches of the environment, overruled by those that the process was told. Unknown ones end it."""
    given = {**json.loads(os.environ.get(ENVIRONMENT) or "{}"), **told}
    unknown = set(given) - {known.name for known in fields(Switches)}
    if unknown:
        end(2, f"unknown switches: {', '.join(sorted(unknown))}")
    return Switches(**given)
