"""What an engine double saves of a slot, and reads back: the words of the last prompt in it.

Owns the files' form. Decides what is no good name or file. Doesn't know requests.
"""

import json
from pathlib import Path


def slot_number(path: str, slots: int) -> int | None:
    """Return which slot a path such as `/slots/3` is about; None where there is none of that number."""
    number = path.rpartition("/")[2]
    return int(number) if number.isdigit() and int(number) < slots else None


def acted(action: str, folder: str, name: str, words: list[str]) -> list[str] | None:
    """Save the words of a slot to a file of that name, or return those that were saved; None where that fails."""
    if not folder or not name or "/" in name:
        return None
    file = Path(folder + name)
    try:
        if action == "save":
            file.write_text(json.dumps(words), encoding="utf-8")
            return words
        return [str(word) for word in json.loads(file.read_text(encoding="utf-8"))] if action == "restore" else None
    except (OSError, ValueError):
        return None
