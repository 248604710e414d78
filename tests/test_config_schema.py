"""The published schema says what the reader takes."""

import json

from meshllm.config_keys import HIDDEN_KEYS, MODEL_KEYS, REMOTE_KEYS
from meshllm.config_kinds import KINDS
from meshllm.config_schema import json_schema
from meshllm.core.routing_config import KEYS
from tests.house.tree import ROOT


def test_schema_has_every_key_and_no_other() -> None:
    """With every spelling, and in its table."""
    schema = json.loads(json.dumps(json_schema()))
    top = schema["properties"]
    model = top["models"]["anyOf"][1]["items"]["anyOf"][1]["properties"]
    remote = top["remotes"]["items"]["properties"]

    assert set(KINDS) <= set(top)
    assert {"default_model_id", "command", "server", "mesh", "remotes", "allow_mixed_cpu", "routing_config"} <= set(top)
    assert set(top["routing"]["properties"]) == set(KEYS)
    assert not top["routing"]["additionalProperties"]
    spellings = {spelling for own, key in MODEL_KEYS.items() for spelling in (own, *key.also)}
    assert set(model) == spellings - HIDDEN_KEYS | {"engine", "quantization", "device"}
    assert set(remote) == set(REMOTE_KEYS)
    assert "threads" in model["engine"]["properties"]
    assert top["server"]["properties"]["port"] == {"type": "integer", "minimum": 1, "maximum": 65535}
    assert not schema["additionalProperties"]
    assert not top["mesh"]["additionalProperties"]


def test_published_schema_is_the_one_of_this_version() -> None:
    """Editors read the file, not the program."""
    published = json.loads((ROOT / "docs" / "config.schema.json").read_text(encoding="utf-8"))

    assert published == json.loads(json.dumps(json_schema()))
