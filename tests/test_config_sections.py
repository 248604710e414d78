"""Settings in tables, and under other programs' names."""

from pathlib import Path

import pytest

from meshllm import config_cache
from meshllm.config_kinds import KINDS
from meshllm.config_routing import TABLE
from meshllm.config_sections import OTHER_NAMES, SECTIONS
from tests.config_builders import configured, refused


@pytest.mark.rows("CFG-9", "CFG-10")
def test_settings_may_stand_in_tables(tmp_path: Path) -> None:
    """The port of a file that somebody brings stays."""
    config = configured(
        tmp_path, '[server]\nhost = "127.0.0.2"\nport = 1234\n[mesh]\nname = "home"\nno_mdns = true\nassign = "off"'
    )

    assert (config.host, config.port, config.mesh_name, config.no_mdns) == ("127.0.0.2", 1234, "home", True)
    assert config.assign == "off"


def test_file_without_a_port_has_the_usual_one(tmp_path: Path) -> None:
    """9337."""
    assert configured(tmp_path, "").port == 9337


@pytest.mark.rows("CFG-8")
@pytest.mark.parametrize("command", ["serve", "run"])
def test_file_may_say_what_it_is_for(tmp_path: Path, command: str) -> None:
    """Other programs use one file for several purposes."""
    config = configured(tmp_path, f'command = "{command}"\ndefault_model_id = "x"\nmodels = ["x"]')

    assert config.default_model == "x"


@pytest.mark.rows("CFG-8", "CFG-23")
@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ('command = "bench"', 1, "command", "expected serve or run, not 'bench'"),
        ("command = 3", 1, "command", "expected serve or run"),
        ("[server]\nprot = 1", 2, "server.prot", "did you mean port?"),
        ("[server]\nzzz = 1", 2, "server.zzz", "there are host"),
        ("server = 1", 1, "server", "expected a table, [server]"),
        ("port = 1\n[server]\nport = 2", 3, "server.port", "given twice: port says it"),
        ("[server]\nport = 'x'", 2, "server.port", "expected a whole number"),
        ("default_model_id = 'a'\ndefault_model = 'b'", 2, "default_model", "given twice: default_model_id"),
        ("[serve]\nport = 1", 1, "serve", "did you mean server?"),
        ("[caching]\nsize = 1", 1, "caching", "unknown setting"),
        ("[[remote]]\nx = 1", 1, "remote", "did you mean remotes?"),
    ],
)
def test_mistake_is_refused_by_the_name_that_the_file_has(
    tmp_path: Path, text: str, line: int, key: str, words: str
) -> None:
    """Not by the setting's."""
    error = refused(tmp_path, text)

    assert words in error.message
    assert (error.line, error.key) == (line, key)


def test_sections_name_settings_that_exist() -> None:
    """A key that leads nowhere would be taken and forgotten."""
    named = {setting for keys in SECTIONS.values() for setting in keys.values()} | set(OTHER_NAMES.values())

    assert named <= {*KINDS, TABLE, config_cache.TABLE}
