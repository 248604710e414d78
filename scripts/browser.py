"""Which browser of this machine is driven: by the browser tests, the pictures and the measurements.

Owns where a Chromium may lie. Decides nothing else. Doesn't know what it is driven for.
"""

import os
import shutil
from pathlib import Path

CHOICE = "MESH_LLM_TEST_BROWSER"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_PROGRAM = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")


def browser_program() -> str | None:
    """Return the path of the browser to drive, or None where there is none. A named one has to be there."""
    if named := os.environ.get(CHOICE):
        assert Path(named).is_file(), f"{CHOICE}={named} is no file"
        return named
    found = next((path for path in map(shutil.which, PROGRAMS) if path), None)
    return found or (str(MAC_PROGRAM) if MAC_PROGRAM.is_file() else None)
