"""The lines that end a start can be used as they are."""

import json
import shlex

import pytest

from meshllm.cli.summary import HOW_TO_INVITE, Addresses, addresses_of, invitation, loopback_of, start_summary
from meshllm.core.rights import OWN_MACHINE

HERE = Addresses("127.0.0.1:9337")


def line(lines: tuple[str, ...], name: str) -> str:
    """Return what one line says."""
    found = [text for text in lines if text.startswith(f"{name}:")]
    assert len(found) == 1
    return found[0].removeprefix(f"{name}:").strip()


def test_first_request_can_be_pasted() -> None:
    """The shell has to hand the JSON on as it is, whatever the model is called."""
    lines = start_summary(HERE, 'it\'s "odd"', needs_key=False)

    words = shlex.split(line(lines, "try"))
    assert words[:2] == ["curl", "http://127.0.0.1:9337/v1/chat/completions"]
    assert json.loads(words[-1])["model"] == 'it\'s "odd"'
    assert not any("Authorization" in word for word in words)


def test_key_is_named_by_its_variable_and_never_shown() -> None:
    """Double quotes: the shell fills it in."""
    lines = start_summary(HERE, "tiny", needs_key=True)

    assert '-H "Authorization: Bearer $MESH_LLM_API_KEY"' in line(lines, "try")


def test_without_a_model_there_is_nothing_to_try() -> None:
    """The addresses are worth knowing all the same."""
    lines = start_summary(HERE, None, needs_key=False)

    assert [text.split(":")[0] for text in lines] == ["API", "console", "join"]
    assert line(lines, "join") == HOW_TO_INVITE


def test_join_command_stands_in_the_last_line() -> None:
    """Where people look for what to copy."""
    lines = start_summary(HERE, "tiny", needs_key=False, join=invitation("meshllm1-x", OWN_MACHINE))

    assert lines[-2] == "join:     mesh-llm --join meshllm1-x"
    assert lines[-1].startswith("          this token lets a machine send requests,")
    assert lines[-1].endswith("own machines only. `mesh-llm token --guest` makes one for others")


@pytest.mark.parametrize(
    ("listening", "here"),
    [
        ("127.0.0.1:9337", "127.0.0.1:9337"),
        ("192.168.1.5:80", "192.168.1.5:80"),
        ("[fd00::5]:80", "[fd00::5]:80"),
        ("0.0.0.0:9337", "127.0.0.1:9337"),
        ("[::]:9337", "[::1]:9337"),
    ],
)
def test_address_to_listen_on_becomes_one_to_talk_to(listening: str, here: str) -> None:
    """Nobody can connect to all addresses at once."""
    found = addresses_of(listening)

    assert found.here == here
    assert "0.0.0.0" not in found.elsewhere
    assert not found.elsewhere.startswith("[::]")


def test_other_machines_have_their_own_address() -> None:
    """Beside the one for this machine, where there is one."""
    lines = start_summary(Addresses("127.0.0.1:9337", "10.1.2.3:9337"), "tiny", needs_key=True)

    assert line(lines, "API") == "http://127.0.0.1:9337/v1   from other machines: http://10.1.2.3:9337/v1"
    assert "10.1.2.3" not in line(lines, "try")


def test_host_to_talk_to_is_the_loopback_of_its_family() -> None:
    """Commands speak to a node that listens everywhere."""
    assert [loopback_of(host) for host in ("0.0.0.0", "::", "10.0.0.1")] == ["127.0.0.1", "::1", "10.0.0.1"]
