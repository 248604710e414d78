"""Flags, environment, file and defaults become one configuration, or one precise complaint."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from meshllm.config import Config, ConfigError, is_loopback, load
from meshllm.config_kinds import KINDS
from meshllm.core.announcement import Address
from meshllm.core.limits import CONFIG_FILE_BYTES
from meshllm.core.resources import MemoryLimit


def loaded(
    home: Path, flags: Mapping[str, object] | None = None, file: str | bytes | None = None, **environ: str
) -> Config:
    """Load with nothing of this machine's environment, from a home folder of the test."""
    if file is not None:
        path = home / ".config" / "mesh-llm" / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file if isinstance(file, bytes) else file.encode())
    return load(flags or {}, {"HOME": str(home), **environ}, cwd=home, platform="linux")


def complaint(home: Path, flags: Mapping[str, object] | None = None, file: str | bytes | None = None, **environ: str):
    """Return the error of a configuration that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        loaded(home, flags, file, **environ)
    return caught.value


@pytest.mark.rows("CLI-14", "REG-2", "SEC-4")
def test_nothing_given_is_a_working_configuration(tmp_path: Path) -> None:
    """`mesh-llm` alone has to start."""
    config = loaded(tmp_path)

    assert (config.host, config.port) == ("127.0.0.1", 9337)
    assert config.models_dirs == (tmp_path / ".models",)
    assert config.state_dir == tmp_path / ".local/state/mesh-llm"
    assert config.name


def test_flag_wins_over_environment_over_file(tmp_path: Path) -> None:
    """The nearer to the person, the stronger."""
    file = "port = 1001\nparallel = 1\nthreads = 1"

    config = loaded(tmp_path, {"port": 1003}, file, MESH_LLM_PORT="1002", MESH_LLM_PARALLEL="2")

    assert (config.port, config.parallel, config.threads) == (1003, 2, 1)


def test_flag_that_contradicts_a_variable_is_noted(tmp_path: Path) -> None:
    """Somebody who set both should see which one holds."""
    notes: list[str] = []

    load({"port": 1003}, {"HOME": str(tmp_path), "MESH_LLM_PORT": "1002"}, note=notes.append)
    load({"port": 1002}, {"HOME": str(tmp_path), "MESH_LLM_PORT": "1002"}, note=notes.append)

    assert notes == ["--port on the command line wins over MESH_LLM_PORT=1002"]


def test_secret_is_not_shown_in_a_note(tmp_path: Path) -> None:
    """Notes go to terminals and logs."""
    notes: list[str] = []

    load({"api_key": "one"}, {"HOME": str(tmp_path), "MESH_LLM_API_KEY": "other"}, note=notes.append)

    assert len(notes) == 1
    assert "other" not in notes[0]


@pytest.mark.rows("CLI-20")
@pytest.mark.parametrize(
    ("variable", "value", "name", "expected"),
    [
        ("MESH_LLM_MODEL", "a, b", "models", ("a", "b")),
        ("MESH_LLM_MODELS", "a", "models", ("a",)),
        ("MESH_LLM_LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("NOPENAI_LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("MESH_LLM_OFFLINE", "yes", "offline", True),
        ("MESH_LLM_OFFLINE", "0", "offline", False),
        ("MESH_LLM_MAX_VRAM", "80%", "max_vram", MemoryLimit(share=0.8)),
        ("MESH_LLM_DRAIN_S", "1.5", "drain_s", 1.5),
        ("MESH_LLM_ALLOWED_HOSTS", "x.example,y.example", "allowed_hosts", ("x.example", "y.example")),
        ("MESH_LLM_API_KEY", "", "api_key", ""),
    ],
)
def test_variable_sets_a_setting(tmp_path: Path, variable: str, value: str, name: str, expected: object) -> None:
    """Containers are configured by their environment."""
    assert getattr(loaded(tmp_path, None, None, **{variable: value}), name) == expected


def test_file_sets_every_kind_of_value(tmp_path: Path) -> None:
    """Windows line ends and a byte order mark do no harm."""
    lines = ['models = ["a", "b"]', 'max_vram = "12GB"', "offline = true", "load_wait_s = 5", 'log_file = "~/x.log"']
    file = b"\xef\xbb\xbf" + "\r\n".join(lines).encode()

    config = loaded(tmp_path, file=file)

    assert config.models == ("a", "b")
    assert config.max_vram == MemoryLimit(size_bytes=12_000_000_000)
    assert config.offline is True
    assert config.load_wait_s == 5.0
    assert config.log_file == tmp_path / "x.log"


def test_relative_path_starts_where_it_was_written(tmp_path: Path) -> None:
    """In a file: at the file's folder; on the command line: at the working folder."""
    config = loaded(tmp_path, {"state_dir": "here"}, 'log_file = "log/x"')

    assert config.state_dir == tmp_path / "here"
    assert config.log_file == tmp_path / ".config/mesh-llm/log/x"


def test_models_dir_flags_come_before_the_others(tmp_path: Path) -> None:
    """The first takes downloads; the ordinary folder stays in use."""
    flags = {"models_dirs": ["/one", "/two"]}

    assert loaded(tmp_path, flags).models_dirs == (Path("/one"), Path("/two"), tmp_path / ".models")
    assert loaded(tmp_path, flags, MESH_LLM_MODELS_DIRS="/env").models_dirs == (
        Path("/one"),
        Path("/two"),
        Path("/env"),
    )
    assert loaded(tmp_path, file='models_dirs = ["/file"]').models_dirs == (Path("/file"),)


@pytest.mark.rows("CFG-23")
@pytest.mark.parametrize(
    ("file", "line", "key", "words"),
    [
        ("port = 1\nprot = 2", 2, "prot", "unknown setting; did you mean port?"),
        ("\n\n[table]\nx = 1", 3, "table", "unknown setting"),
        ("host = 'h'\nport = 'abc'", 2, "port", "expected a whole number, not the string 'abc'"),
        ("port = true", 1, "port", "expected a whole number, not the boolean true"),
        ("port = 70000", 1, "port", "expected a number from 1 to 65535"),
        ("models = 3", 1, "models", "expected a list of strings, not the number 3"),
        ("models = ['a', 3]", 1, "models[1]", "expected a string, not the number 3"),
        ("offline = 'true'", 1, "offline", "expected true or false"),
        ("max_vram = '90'", 1, "max_vram", "12GB"),
        ("log_level = 'loud'", 1, "log_level", "expected one of debug, info, warn, warning, error, fatal"),
        ("load_wait_s = nan", 1, "load_wait_s", "expected more than 0"),
        ("a = 1\nb = = 2\nc = 3", 2, "", "Invalid value"),
        ("port = 1\nport = 2", 2, "", "Cannot overwrite"),
        (b"a = 1\nb = '\x00'", 2, "", "NUL"),
        (b"a = 1\nb = '\xff'", 2, "", "UTF-8"),
        (b"x" * (CONFIG_FILE_BYTES + 1), None, "", "larger than 1024 KiB"),
        ("x = " + "[" * 5000, None, "", "nested too deeply"),
    ],
)
def test_bad_file_is_refused_with_file_line_and_key(
    tmp_path: Path, file: str | bytes, line: int | None, key: str, words: str
) -> None:
    """A person can go to the place and mend it."""
    error = complaint(tmp_path, file=file)

    assert (error.line, error.key) == (line, key)
    assert words in error.message
    assert str(error).startswith(f"{tmp_path}/.config/mesh-llm/config.toml:")


def test_named_file_has_to_be_a_readable_file(tmp_path: Path) -> None:
    """A missing default file is fine; a missing file that was named is a mistake."""
    assert complaint(tmp_path, {"config": "missing.toml"}).message == "does not exist"
    assert complaint(tmp_path, MESH_LLM_CONFIG=str(tmp_path)).message == "is a folder, not a file"


@pytest.mark.parametrize(
    ("flags", "environ", "key"),
    [
        ({"port": "0"}, {}, "--port"),
        ({"port": "70000"}, {}, "--port"),
        ({"port": "abc"}, {}, "--port"),
        ({}, {"MESH_LLM_PORT": "abc"}, "MESH_LLM_PORT"),
        ({"ctx_size": "9" * 5000}, {}, "--ctx-size"),
        ({"allowed_hosts": ["a b"]}, {}, "--allowed-host"),
        ({"name": "a\nb"}, {}, "--name"),
        ({"peers": ["192.0.2.1:4000"]}, {}, "--peer"),
        ({"advertise": ["desk"]}, {}, "--advertise"),
        ({"bind_ip": "eth0"}, {}, "--bind-ip"),
        ({"bind_port": 0}, {}, "--bind-port"),
        ({}, {"MESH_LLM_PEERS": "x"}, "MESH_LLM_PEERS"),
    ],
)
def test_bad_value_is_refused_by_the_name_it_was_given_under(
    tmp_path: Path, flags: dict[str, object], environ: dict[str, str], key: str
) -> None:
    """The message names what the person typed."""
    assert complaint(tmp_path, flags, **environ).key == key


def test_mesh_is_joined_and_reached_as_told(tmp_path: Path) -> None:
    """From any source; a token is taken as it stands, and says itself when it is wrong."""
    peer = f"192.0.2.1:4000#{'a' * 52}"
    file = f'join = "one"\npeers = ["{peer}"]\nclient = true'

    config = loaded(tmp_path, {"advertise": ["192.0.2.7", "[fd00::1]:5"], "bind_ip": "FD00::1"}, file)

    assert config.join == ("one",)
    assert config.client
    assert [str(each) for each in config.peers] == [peer]
    assert config.advertise == (Address("192.0.2.7", 0), Address("fd00::1", 5))
    assert config.bind_ip == "fd00::1"
    assert loaded(tmp_path, None, file, MESH_LLM_JOIN="'two', three").join == ("'two'", "three")
    assert loaded(tmp_path, {"join": ["\N{SNOWMAN}" * 5000]}, file).join == ("\N{SNOWMAN}" * 5000,)


def test_client_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """It runs beside a node of the same machine, and leaves nothing behind."""
    client = loaded(tmp_path, {"client": True}, TMPDIR=str(tmp_path))

    assert client.state_dir.parent == tmp_path
    assert client.runtime_dir != loaded(tmp_path, TMPDIR=str(tmp_path)).runtime_dir
    assert loaded(tmp_path, {"client": True, "state_dir": "here"}).state_dir == tmp_path / "here"


def test_secrets_are_not_in_what_is_printed_of_a_configuration(tmp_path: Path) -> None:
    """A configuration ends up in a log sooner or later."""
    config = loaded(tmp_path, {"join": ["meshllm1-hidden"], "api_key": "hidden"})

    assert "hidden" not in repr(config)


@pytest.mark.rows("SEC-4")
def test_address_for_others_needs_a_key(tmp_path: Path) -> None:
    """An open door has to be opened on purpose."""
    assert "API key" in complaint(tmp_path, {"host": "0.0.0.0"}).message
    assert complaint(tmp_path, file='port = 1\nhost = "::"').line == 2

    assert loaded(tmp_path, {"host": "0.0.0.0", "api_key": "k"}).host == "0.0.0.0"
    assert loaded(tmp_path, {"host": "0.0.0.0", "insecure_no_auth": True}).insecure_no_auth


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("LocalHost", True), ("0.0.0.0", False), ("node", False)],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    """A name that could mean anything counts as open."""
    assert is_loopback(host) is expected


def test_every_setting_has_a_kind() -> None:
    """A field without one could not be set, but for what stands in tables of its own."""
    tables = {"policies", "remotes", "routing", "quotas", "quota_timezone", "client_keys", "caches"}
    assert {field.name for field in fields(Config)} == {*KINDS} | tables


@pytest.mark.rows("CLI-8")
def test_one_level_for_all_models_is_that_level_for_each(tmp_path: Path) -> None:
    """`--quant 4` is `quant = "4"` of each model in a file; a name with a level of its own keeps it."""
    named = ["Qwen/Qwen3-4B", "smollm2-135m", "local:Q8_0", "/a/file.gguf"]
    tables = "".join(f"[[models]]\nname = '{name}'\nquant = '4'\n" for name in named[:2])

    by_flag = loaded(tmp_path, {"models": named, "quant": "4"})
    by_variable = loaded(tmp_path, {"models": named}, MESH_LLM_QUANT="4")
    by_file = loaded(tmp_path, file=tables)
    by_setting = loaded(tmp_path, file=f"quant = 4\nmodels = {named}")

    assert by_flag.models == ("Qwen/Qwen3-4B:4", "smollm2-135m:4", "local:Q8_0", "/a/file.gguf")
    assert by_variable.models == by_setting.models == by_flag.models
    assert by_file.models == by_flag.models[:2]


@pytest.mark.rows("CLI-8")
def test_quantising_at_the_start_is_refused_with_the_nearest_file(tmp_path: Path) -> None:
    """On the command line as in a file; and a level of nothing is a mistake."""
    by_flag = complaint(tmp_path, {"models": ["a"], "isq": "4"})
    by_file = complaint(tmp_path, file="isq = 8")
    of_nothing = complaint(tmp_path, {"quant": "4"}, file="")
    no_level = complaint(tmp_path, {"models": ["a"], "quant": "huge"})

    assert (by_flag.key, "--quant Q4_K_M" in by_flag.message) == ("--isq", True)
    assert (by_file.key, "--quant Q8_0" in by_file.message) == ("isq", True)
    assert of_nothing.key == no_level.key == "--quant"


@pytest.mark.rows("CLI-21")
@pytest.mark.parametrize("variable", ["MESH_LLM_PROFILE", "NOPENAI_PROFILE"])
def test_measuring_is_switched_on_by_either_variable(tmp_path: Path, variable: str) -> None:
    """The older name counts, too."""
    assert loaded(tmp_path, **{variable: "1"}).profile
    assert not loaded(tmp_path).profile
