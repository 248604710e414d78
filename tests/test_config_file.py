"""Reading a configuration file, and finding lines in it."""

from pathlib import Path

import pytest

from meshllm.config_file import ConfigError, read


def test_lines_of_keys_are_found(tmp_path: Path) -> None:
    """In every notation that people use at the top of a file."""
    file = tmp_path / "c.toml"
    file.write_text('# port = 9\n\nport = 1\n"name" = "x"\n[table]\nport = 2\n')

    found = read(file)

    assert found.values["port"] == 1
    assert found.lines == {"port": 3, "name": 4, "table": 5, "table.port": 6}
    assert str(found.error("name", "is odd")) == f"{file}:4: name: is odd"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("m"), "m"),
        (ConfigError("m", key="k"), "k: m"),
        (ConfigError("m", file=Path("f")), "f: m"),
        (ConfigError("m", file=Path("f"), line=3, key="k"), "f:3: k: m"),
    ],
)
def test_error_says_as_much_as_is_known(error: ConfigError, text: str) -> None:
    """In the form that editors jump to."""
    assert str(error) == text


def test_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """Each reason in its own words."""
    with pytest.raises(ConfigError, match="does not exist"):
        read(tmp_path / "none")
    with pytest.raises(ConfigError, match="is a folder"):
        read(tmp_path)
