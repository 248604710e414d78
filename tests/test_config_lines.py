"""Finding the line of a place in TOML and JSON."""

import json
import tomllib

import pytest

from meshllm.config_lines import child, json_lines, parent, toml_lines

TOML = '''
# port = 9
port = 1
"quoted" = 2
text = """
inside = 1
[[models]]
"""
[[models]]
name = "a"
[models.engine]
threads = 2
[[models]]
name = "b"
engine.threads = 3
[server]
host = "h" # x = 1
'''

JSON = """{
  "a": {"Plain": {
    "model_id": "x, {y}: z"
  }},
  "list": [
    1,
    {"k": [2,
      "]"]}
  ],
  "a\\"b": null
}"""


def test_places_of_toml_are_found() -> None:
    """In every notation that people use at the beginning of a line; text is no notation."""
    tomllib.loads(TOML)

    assert toml_lines(TOML) == {
        "port": 3, "quoted": 4, "text": 5, "models": 9, "models[0]": 9, "models[0].name": 10, "models[0].engine": 11,
        "models[0].engine.threads": 12, "models[1]": 13, "models[1].name": 14, "models[1].engine": 15,
        "models[1].engine.threads": 15, "server": 16, "server.host": 17,
    }  # fmt: skip


def test_places_of_json_are_found() -> None:
    """Brackets in texts are texts."""
    json.loads(JSON)

    found = json_lines(JSON)

    assert (found["a"], found["a.Plain"], found["a.Plain.model_id"], found["list"]) == (2, 2, 3, 5)
    assert (found["list[0]"], found["list[1]"], found["list[1].k"], found["list[1].k[1]"]) == (6, 7, 7, 8)
    assert found['a"b'] == 10


@pytest.mark.parametrize(
    ("place", "above"), [("a.b", "a"), ("a[1].b", "a[1]"), ("a[1]", "a"), ("a", ""), ("a.b[0]", "a.b")]
)
def test_place_has_a_place_above(place: str, above: str) -> None:
    """An error whose own line is unknown stands at the next line above."""
    assert parent(place) == above


def test_places_are_put_together() -> None:
    """As people write them."""
    assert child(child(child("", "models"), 1), "name") == "models[1].name"
