"""YAML: plain values with lines, and nothing that builds objects or unfolds."""

from pathlib import Path

import pytest

from meshllm.config_file import ConfigError
from meshllm.config_yaml import read


def reading(folder: Path, text: str) -> ConfigError:
    """Return what is said of a file that cannot be read."""
    file = folder / "m.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(file)
    return caught.value


def test_values_come_with_their_lines(tmp_path: Path) -> None:
    """For every key and every item."""
    file = tmp_path / "m.yaml"
    file.write_text("default_model: a\n\nmodels:\n  - id: a\n    type: local\n  - id: b\n    threads: 2\n")

    found = read(file)

    assert found.values == {"default_model": "a", "models": [{"id": "a", "type": "local"}, {"id": "b", "threads": 2}]}
    assert found.lines["models[1].threads"] == 7
    assert (found.lines["models"], found.lines["models[0]"]) == (3, 4)


def test_empty_file_says_nothing(tmp_path: Path) -> None:
    """As an empty TOML file does."""
    file = tmp_path / "m.yaml"
    file.write_text("# later\n")

    assert read(file).values == {}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: &x [1]\nb: *x", 2, "aliases are not used"),
        ("a: 1\na: 2", 2, "twice"),
        ("a: [1\nb: 2", 2, "expected"),
        ("a: !!python/object/apply:os.system ['true']", 1, "tags are not used"),
        ("a: !!python/name:os.system x", 1, "could not determine a constructor"),
        ("a: 1\n[b]: 2", 2, "a key has to be a word"),
        ("- a", 1, "keys and values"),
        ("just text", 1, "keys and values"),
        ("a: 1\n---\nb: 2", 2, "another document"),
        ("a: " + "[" * 3000, None, "nested too deeply"),
    ],
)
def test_what_no_configuration_needs_is_refused(tmp_path: Path, text: str, line: int | None, words: str) -> None:
    """Each with its line, and at once."""
    error = reading(tmp_path, text)

    assert words in error.message
    assert line is None or error.line == line


def test_date_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """Not a traceback."""
    assert "cannot be read" in reading(tmp_path, "a: 2024-13-77").message
