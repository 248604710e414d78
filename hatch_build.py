"""The wheel's build hook: a wheel without its console is a mistake, never a surprise.

Owns when the console is built: for wheels and source archives made from a checkout. A source archive carries the
built files and not console/, so that a wheel made of it needs no Node. Editable installs are left alone.
"""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConsoleBuildHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    """Builds console/ into meshllm/api/static before the files are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Build the console, or fail."""
        if version == "editable":
            return
        root = Path(self.root)
        builder = root / "console" / "build.py"
        if builder.is_file():
            runpy.run_path(str(builder))["build"]()
        if not (root / "meshllm" / "api" / "static" / "index.html").is_file():
            raise RuntimeError("meshllm/api/static/index.html is missing: the console was not built")
