"""Configurations for tests, from the text of a file."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from meshllm.config import Config, ConfigError, load


def configured(
    folder: Path, text: str, *, name: str = "c.toml", flags: Mapping[str, object] | None = None, **environ: str
) -> Config:
    """Return what a file says, with nothing of this machine's environment."""
    file = folder / name
    file.write_text(text)
    return load({"config": str(file), **(flags or {})}, {"HOME": str(folder), **environ}, cwd=folder, platform="linux")


def refused(
    folder: Path, text: str, *, name: str = "c.toml", flags: Mapping[str, object] | None = None, **environ: str
) -> ConfigError:
    """Return why a file cannot be used."""
    with pytest.raises(ConfigError) as caught:
        configured(folder, text, name=name, flags=flags, **environ)
    return caught.value
