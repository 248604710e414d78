"""The table `[routing]`: this node's own choice from its start, and mistakes at their lines."""

import json
from pathlib import Path

import pytest

from meshllm.config_routing import MEANINGS, schema
from meshllm.core.routing_config import DEFAULT, KEYS, RoutingConfig, Strategy
from tests.config_builders import configured, refused


@pytest.mark.rows("CFG-19")
@pytest.mark.parametrize("table", ["routing", "routing_config"])
def test_the_table_is_a_change_of_the_defaults(tmp_path: Path, table: str) -> None:
    """By either name, in any format."""
    in_toml = configured(tmp_path, f'[{table}]\nstrategy = "random"\nretry_delay_ms = 250\n[{table}.weights]\nm = 2')
    in_json = configured(tmp_path, json.dumps({table: {"max_retries": 1}}), name="c.json")

    assert in_toml.routing == RoutingConfig(strategy=Strategy.RANDOM, retry_delay_s=0.25, weights=(("m", 2.0),))
    assert in_json.routing == RoutingConfig(max_retries=1)


def test_without_the_table_the_mesh_says_how(tmp_path: Path) -> None:
    """An empty one says: the defaults, whatever the mesh says."""
    assert configured(tmp_path, "port = 9000").routing is None
    assert configured(tmp_path, "[routing]").routing == DEFAULT


@pytest.mark.rows("CFG-23")
@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("[routing]\n\nstratgy = 'random'", 3, "routing.stratgy", "there is no key 'stratgy'"),
        ("[routing]\nstrategy = 'fastest'", 2, "routing.strategy", "one of: round_robin"),
        ("[routing]\nmax_retries = 99", 2, "routing.max_retries", "a whole number from 0 to 10"),
        ("[routing]\nmax_retries = 2020-01-01", 2, "routing.max_retries", "a whole number"),
        ("[routing.weights]\na = 1\nb = -1", 3, "routing.weights.b", "a number from 0"),
        ("[routing_config]\nscope = 'mesh'", 2, "routing_config.scope", "there is no key 'scope'"),
        ("[routing]\n[routing_config]", 2, "routing_config", "given twice"),
        ("routing = 3", 1, "routing", "expected a table"),
        ("[routin]\nx = 1", 1, "routin", "did you mean routing?"),  # codespell:ignore
    ],
)
def test_a_mistake_is_told_with_its_line_and_key(tmp_path: Path, text: str, line: int, key: str, words: str) -> None:
    """By the name that the file has for it."""
    error = refused(tmp_path, text)

    assert (error.line, error.key) == (line, key)
    assert words in error.message


def test_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """YAML has numbers as keys."""
    assert "no key '3'" in refused(tmp_path, "routing:\n  3: x\n", name="c.yaml").message


def test_every_key_has_its_meaning_and_its_schema() -> None:
    """Once, for the page and for editors."""
    assert tuple(MEANINGS) == KEYS
    assert list(schema()["properties"]) == list(KEYS)  # type: ignore[call-overload]
