"""A configuration as a document."""

import json
from pathlib import Path

from meshllm.config import load
from meshllm.config_shown import SECRETS, shown

FILE = """
[[models]]
name = "tiny"
context_tokens = 512

[[remotes]]
name = "box"
base_url = "http://box:8080"
api_key_file = "{key}"

[cache]
global_cache_size_gb = 2

[quotas.tiny]
hourly_token_limit = 1000

[keys.alice]
key = "hidden-of-alice"
"""


def test_every_setting_is_shown_and_no_secret(tmp_path: Path) -> None:
    """It has to go through JSON, to whoever may ask for it."""
    (tmp_path / "key").write_text("hidden-of-box")
    (tmp_path / "config.toml").write_text(FILE.format(key=tmp_path / "key"))
    flags = {"config": str(tmp_path / "config.toml"), "max_vram": "80%", **dict.fromkeys(SECRETS - {"join"}, "hidden")}

    found = shown(load({**flags, "join": ["hidden-token"]}, {"HOME": str(tmp_path)}))

    assert "hidden" not in json.dumps(found)
    assert all(found[name] == "(set)" for name in SECRETS)
    assert found["max_vram"] == "80%"
    assert found["client_keys"] == ["alice"]
    assert isinstance(found["caches"], dict)
    assert found["caches"]["global_cache_size_gb"] == 2
    assert isinstance(found["quotas"], dict)
    assert found["quotas"]["tiny"]["hourly_token_limit"] == 1000
    assert found["host"] == "127.0.0.1"
