"""Conversations of a real engine on the disk: what it had computed is there after an unload, and after a restart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemons import Daemon
from tests.engine_real import prompts
from tests.engine_real.prompts import SMOL, WITHIN_S

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]
LONG_TOKENS = 200
"""Of the prompt: found cached, if it is read back at all."""


@pytest.fixture
def node(tmp_path: Path, smollm2: str) -> Iterator[Daemon]:
    """Start a node that saves conversations in half a gigabyte of its disk."""
    with prompts.a_node(tmp_path, smollm2, "[cache]\ndisk_cache_size_gb = 0.5\n", slots=2) as daemon:
        yield daemon


def ask(node: Daemon, seed: int) -> int:
    """Ask so much that what all prompts begin with is too little for the engine to put two into one slot."""
    return prompts.ask(node, seed, words=320)


def again(node: Daemon) -> None:
    """Unload the model and load it again."""
    assert node.run("unload", SMOL).returncode == 0
    assert node.run("load", SMOL, within_s=WITHIN_S).returncode == 0
    node.until_model(SMOL, phase="ready", within_s=WITHIN_S)


@pytest.mark.rows("CAC-1")
def test_a_conversation_is_found_cached_after_an_unload_and_a_load(node: Daemon) -> None:
    """Both slots are read back; where none are saved, all is computed."""
    files = node.state / "slots"
    first = [ask(node, seed) for seed in (1, 2)]
    again(node)
    left, found = list(files.iterdir()), [ask(node, seed) for seed in (1, 2)]

    assert node.request("POST", "/cache/allocation", {"disk_cache_size_gb": 0}).status == 200
    again(node)
    forgotten = [ask(node, seed) for seed in (1, 2)]

    assert (files.stat().st_mode & 0o777, len(first)) == (0o700, 2)
    assert max(first) < LONG_TOKENS
    assert min(found) > LONG_TOKENS
    assert max(forgotten) < LONG_TOKENS
    assert left == []
    assert list(files.iterdir()) == []
