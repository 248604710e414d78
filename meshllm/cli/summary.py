"""Where to go when a node has started: its addresses, a first request, and how others join.

Owns these lines, all in `start_summary`, and which address stands for one to listen on. Doesn't know when they are
said: `startup` does. Never shows the API key.
"""

import contextlib
import json
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from meshllm.core.rights import Rights, rights_meaning

HOW_TO_INVITE = "`mesh-llm token` prints the command with which another machine joins"
_EVERYWHERE = {
    "0.0.0.0": ("127.0.0.1", socket.AF_INET, "192.0.2.1"),  # noqa: S104 - compared, not bound
    "::": ("::1", socket.AF_INET6, "2001:db8::1"),
}
"""Addresses that stand for all of a machine: (its loopback, its family, a documentation address)."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """A node's addresses as `host:port`."""

    here: str
    """For programs of this machine."""
    elsewhere: str = ""
    """For other machines, where it is another one."""


def addresses_of(listening: str) -> Addresses:
    """Return the addresses to use for one to listen on, `host:port`."""
    host, _, port = listening.rpartition(":")
    everywhere = _EVERYWHERE.get(host.strip("[]"))
    if everywhere is None:
        return Addresses(listening)
    loopback, family, some_address = everywhere
    outer = _outer_address(family, some_address)
    return Addresses(_joined(loopback, port), _joined(outer, port) if outer else "")


def loopback_of(host: str) -> str:
    """Return the host to talk to, from this machine, for one to listen on."""
    return _EVERYWHERE[host][0] if host in _EVERYWHERE else host


def start_summary(
    addresses: Addresses, model: str | None, *, needs_key: bool, join: Sequence[str] = (HOW_TO_INVITE,)
) -> tuple[str, ...]:
    """Return the lines that end a start. `model` is one that answers, None where none does yet."""
    url = f"http://{addresses.here}"
    elsewhere = f"   from other machines: http://{addresses.elsewhere}/v1" if addresses.elsewhere else ""
    lines = [f"API:      {url}/v1{elsewhere}", f"console:  {url}/"]
    if model is not None:
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]}, separators=(",", ":"))
        # In double quotes, so that the shell puts the key in its place.
        key = ' -H "Authorization: Bearer $MESH_LLM_API_KEY"' if needs_key else ""
        header = "-H 'Content-Type: application/json'"
        lines.append(f"try:      curl {url}/v1/chat/completions{key} {header} -d {shlex.quote(body)}")
    return (*lines, *join_lines(join))


def invitation(token: str, rights: Rights) -> tuple[str, ...]:
    """Return the command with which another machine joins, and what the token in it opens."""
    return (
        f"mesh-llm --join {token}",
        f"this token {rights_meaning(rights)}. `mesh-llm token --guest` makes one for others",
    )


def join_lines(join: Sequence[str]) -> tuple[str, ...]:
    """Return the lines about joining, the first of them by its name."""
    return tuple(f"{'join:' if number == 0 else '':<10}{line}" for number, line in enumerate(join))


def _outer_address(family: socket.AddressFamily, some_address: str) -> str:
    """Return the address by which this machine would speak to others; empty where it has none. Sends nothing."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((some_address, 9))
        return str(probe.getsockname()[0])
    return ""


def _joined(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
