"""Starting a node from the command line: the daemon itself is a stand-in."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from meshllm.cli.startup import Startup
from meshllm.config import Config
from meshllm.core.view import MeshView
from meshllm.daemon.errors import PortInUseError, StateInUseError
from tests.cli.conftest import Shell
from tests.core.builders import a_spec, a_story, ready


class FakeDaemon(ModuleType):
    """Stands in for `meshllm.daemon.node`."""

    def __init__(self) -> None:
        """Do nothing and end well."""
        super().__init__("meshllm.daemon.node")
        self.configs: list[Config] = []
        self.error: Exception | None = None
        self.views: list[MeshView] = []

    def run(self, config: Config, ears: Startup) -> int:
        """Tell the story of the views."""
        self.configs.append(config)
        if self.error is not None:
            raise self.error
        ears.started("127.0.0.1:9337")
        for view in self.views:
            ears.report(view)
        return 0


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    """Return the stand-in."""
    fake = FakeDaemon()
    monkeypatch.setitem(sys.modules, "meshllm.daemon.node", fake)
    return fake


@pytest.mark.rows("CLI-6")
@pytest.mark.parametrize(
    ("line", "models"),
    [
        (["--model", "a", "--model", "b"], ("a", "b")),
        (["-m", "a", "-m", "b"], ("a", "b")),
        (["serve", "-m", "a"], ("a",)),
        (["serve", "--model", "a", "--model", "b"], ("a", "b")),
        (["--model", "a", "serve"], ("a",)),
        ([], ()),
        (["serve"], ()),
    ],
)
def test_models_are_served_in_their_order(
    shell: Shell, daemon: FakeDaemon, line: list[str], models: tuple[str, ...]
) -> None:
    """CLI-1, CLI-6, CLI-10, CLI-19."""
    assert shell(*line) == 0
    assert daemon.configs[0].models == models


@pytest.mark.rows("CLI-6")
def test_serve_takes_one_short_model(shell: Shell, daemon: FakeDaemon) -> None:
    """CLI-6: a second `-m` is an error there."""
    assert shell("serve", "-m", "a", "-m", "b") == 2
    assert not daemon.configs


def test_every_option_reaches_the_configuration(shell: Shell, daemon: FakeDaemon) -> None:
    """Before and after `serve`."""
    line = (
        "--models-dir /m --host ::1 --port 9999 --name n --max-vram 50% --ctx-size 1024 serve --parallel 2 --threads 3 "
        "--engine xllamacpp --api-key k --allowed-host h --allowed-origin http://o --unknown-model fallback --offline "
        "--log-level error --log-format json --log-file /tmp/x.log --state-dir /s --join t --require-join --client "
        f"--mesh-name m --peer 192.0.2.1:1#{'a' * 52} --advertise 192.0.2.2 --bind-ip 192.0.2.3 --bind-port 4000 "
        "--no-mdns --no-rpc --no-remote-control --default-model d --serve-all --assign disk --console 3232 "
        "--model x --quant 4 --profile"
    )

    assert shell(*line.split()) == 0
    config = daemon.configs[0]
    assert (config.host, config.port, config.name, config.ctx_size) == ("::1", 9999, "n", 1024)
    assert (config.parallel, config.threads, config.engine, config.api_key) == (2, 3, "xllamacpp", "k")
    assert (config.allowed_hosts, config.allowed_origins) == (("h",), ("http://o",))
    assert (config.unknown_model, config.offline, config.log_level) == ("fallback", True, "error")
    assert str(config.models_dirs[0]) == "/m"
    assert (config.join, config.require_join, config.client, config.mesh_name) == (("t",), True, True, "m")
    assert (config.bind_ip, config.bind_port, len(config.peers), len(config.advertise)) == ("192.0.2.3", 4000, 1, 1)
    assert (config.models, config.quant, config.profile) == (("x:4",), "4", True)
    assert config.no_mdns
    assert config.no_rpc
    assert config.no_remote_control
    assert (config.default_model, config.serve_all, config.assign, config.console) == ("d", True, "disk", 3232)


@pytest.mark.rows("CLI-16")
@pytest.mark.parametrize(
    ("line", "port"),
    [
        (["--console"], 3131),
        (["--console", "--model", "a"], 3131),
        (["--console", "serve"], 3131),
        (["serve", "--console"], 3131),
        (["--console", "4000", "serve"], 4000),
        (["--console=4000"], 4000),
        ([], None),
    ],
)
def test_console_has_a_port_of_its_own_when_asked(
    shell: Shell, daemon: FakeDaemon, line: list[str], port: int | None
) -> None:
    """3131 where none is named; it says where it is."""
    assert shell(*line) == 0
    assert daemon.configs[0].console == port
    assert (f"console on http://127.0.0.1:{port}" in shell.err) is (port is not None)


@pytest.mark.rows("CLI-16")
@pytest.mark.parametrize("port", ["0", "70000"])
def test_console_needs_a_port_that_exists(shell: Shell, daemon: FakeDaemon, port: str) -> None:
    """Exit 2."""
    assert shell("--console", port) == 2
    assert not daemon.configs


@pytest.mark.rows("CLI-18")
def test_folders_of_models_are_served_whole_when_asked(shell: Shell, daemon: FakeDaemon) -> None:
    """Every folder in its order."""
    assert shell("--models-dir", "/a", "--models-dir", "/b", "--serve-all") == 0
    assert [str(folder) for folder in daemon.configs[0].models_dirs[:2]] == ["/a", "/b"]
    assert daemon.configs[0].serve_all


@pytest.mark.rows("CLI-20", "CLI-22")
def test_environment_configures_a_container(shell: Shell, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """By our names, and those that people are used to."""
    monkeypatch.setenv("MESH_LLM_MODEL", "smollm2-135m")
    monkeypatch.setenv("MESH_LLM_DEFAULT_MODEL", "d")
    monkeypatch.setenv("NOPENAI_LOG_LEVEL", "DEBUG")

    assert shell() == 0
    config = daemon.configs[0]
    assert (config.models, config.default_model) == (("smollm2-135m",), "d")
    assert config.log_level == "debug"


def test_verbose_and_quiet_are_log_levels(shell: Shell, daemon: FakeDaemon) -> None:
    """Short forms."""
    shell("-v")
    shell("-q")

    assert [config.log_level for config in daemon.configs] == ["debug", "warning"]


@pytest.mark.rows("SEC-4")
def test_an_open_address_without_a_key_is_warned_of(shell: Shell, daemon: FakeDaemon) -> None:
    """It was asked for; whoever reads along should know."""
    assert shell("serve", "--host", "0.0.0.0", "--insecure-no-auth") == 0
    assert "warning: everybody who reaches 0.0.0.0 may use this node" in shell.err

    assert shell("serve", "--insecure-no-auth") == 0
    assert "warning: everybody" not in shell.err


def test_key_on_the_command_line_is_warned_of(shell: Shell, daemon: FakeDaemon) -> None:
    """It can be seen in `ps`; the environment cannot."""
    shell("--api-key", "secret")

    assert "MESH_LLM_API_KEY" in shell.err
    assert "secret" not in shell.err


@pytest.mark.parametrize(("error", "code"), [(PortInUseError("taken by nginx"), 3), (StateInUseError("in use"), 4)])
def test_start_that_fails_is_one_line_and_its_exit_code(
    shell: Shell, daemon: FakeDaemon, error: Exception, code: int
) -> None:
    """Documented in `--help`."""
    daemon.error = error

    assert shell("--model", "a") == code
    assert shell.err == f"mesh-llm: {error}\n"


def test_open_door_is_refused_before_anything_starts(shell: Shell, daemon: FakeDaemon) -> None:
    """Exit 2."""
    assert shell("--host", "0.0.0.0") == 2
    assert not daemon.configs


def test_start_is_told_on_standard_error(shell: Shell, daemon: FakeDaemon) -> None:
    """Standard output is for data."""
    story = a_story(a_spec("tiny"), requested=("tiny",))
    story.tell(ready("tiny"))
    daemon.views = [story.core.view]

    assert shell("--model", "tiny") == 0
    assert shell.out == ""
    assert "tiny: ready in 1.0 s" in shell.err
    assert "curl http://127.0.0.1:9337/v1/chat/completions" in shell.err


def test_start_with_a_key_says_how_to_show_it(
    shell: Shell, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variable's name: the screen may be shared."""
    story = a_story(a_spec("tiny"), requested=("tiny",))
    story.tell(ready("tiny"))
    daemon.views = [story.core.view]
    monkeypatch.setenv("MESH_LLM_API_KEY", "very-secret")

    assert shell("--model", "tiny") == 0
    assert '-H "Authorization: Bearer $MESH_LLM_API_KEY"' in shell.err
    assert "very-secret" not in shell.err


def test_json_log_is_not_mixed_with_words(shell: Shell, daemon: FakeDaemon) -> None:
    """Collectors parse every line."""
    daemon.views = [a_story(a_spec("tiny")).core.view]

    assert shell("--model", "tiny", "--log-format", "json") == 0
    assert shell.err == ""


def test_empty_disk_gets_three_lines_on_how_to_begin(shell: Shell, daemon: FakeDaemon) -> None:
    """And the node runs all the same."""
    assert shell() == 0
    assert "no model is on this disk yet" in shell.err
    assert "mesh-llm load smollm2-135m" in shell.err


def test_token_comes_from_a_file_unseen(
    shell: Shell, daemon: FakeDaemon, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the command line everybody on the machine can see; only that is worth a note."""
    (home / "token").write_text("one\n")
    monkeypatch.setenv("MESH_LLM_JOIN", "two")

    assert shell("--join-file", home / "token") == 0
    assert daemon.configs[0].join == ("two", "one")
    assert "`ps`" not in shell.err

    assert shell("--join", "three") == 0
    assert "--join-file and MESH_LLM_JOIN are not shown" in shell.err
    assert "three" not in shell.err


def test_lan_shows_what_is_in_reach_and_wants_a_token(
    shell: Shell, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Being near is no right to come in."""
    monkeypatch.setattr("meshllm.cli.standalone.meshes_in_reach", lambda _: (("0" * 24, "home", 3),))

    assert shell("--join", "lan") == 5
    assert "home  (3 nodes" in shell.err
    assert "a token is needed" in shell.err
    assert not daemon.configs


@pytest.mark.parametrize("token", ["", " "])
def test_an_empty_token_founds_no_mesh(shell: Shell, daemon: FakeDaemon, token: str) -> None:
    """An empty variable in a script: the node would be alone, and nobody would know why."""
    assert shell("--join", token) == 5
    assert "the token is empty" in shell.err
    assert daemon.configs == []
