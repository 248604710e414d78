"""Nodes with a real engine that are asked the same prompts again, to see what it still knows of them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.daemons import Daemon

SMOL = "SmolLM2-135M-Instruct.Q4_1"
WITHIN_S = 240.0
_WORDS = (
    "river",
    "stone",
    "lamp",
    "garden",
    "winter",
    "engine",
    "letter",
    "bridge",
    "salt",
    "window",
    "paper",
    "north",
)


@contextmanager
def a_node(folder: Path, model: str, config: str, *, slots: int) -> Iterator[Daemon]:
    """Run a node that serves the real model, in so many slots, with such a configuration."""
    told = folder / "config.toml"
    told.write_text(config, encoding="utf-8")
    options = ("--threads", "1", "--ctx-size", "1024", "--parallel", str(slots), "--no-mdns", "--config", str(told))
    daemon = Daemon(folder / "n", ("--model", SMOL, *options))
    daemon.models.mkdir(parents=True)
    (daemon.models / Path(model).name).symlink_to(model)
    with daemon:
        daemon.until_model(SMOL, phase="ready", within_s=WITHIN_S)
        yield daemon


def ask(node: Daemon, seed: int, *, words: int) -> int:
    """Have a prompt of so many words answered that belongs to a number; return the tokens found cached."""
    prompt = " ".join(random.Random(seed).choices(_WORDS, k=words))
    body = {"model": SMOL, "messages": [{"role": "user", "content": prompt}], "max_tokens": 2}
    reply = node.request("POST", "/v1/chat/completions", body, timeout_s=WITHIN_S)
    assert reply.status == 200, reply.body
    cached: int = reply.json["usage"]["prompt_tokens_details"]["cached_tokens"]
    return cached
