"""Secrets don't travel through logs."""

from meshllm.core.redaction import redacted, redacted_command

TOKEN = "meshllm1-" + "abcdefgh234567" * 10


def test_token_is_cut_wherever_it_stands() -> None:
    """In a message, in quotes, in JSON."""
    text = f"joined by '{TOKEN}', then \"{TOKEN}\"\n{TOKEN}"

    assert redacted(text) == "joined by 'meshllm1-…', then \"meshllm1-…\"\nmeshllm1-…"


def test_other_text_stays() -> None:
    """Also what only looks a little like it."""
    assert redacted("meshllm1- is the prefix of tokens") == "meshllm1- is the prefix of tokens"


def test_command_line_shows_flags_but_no_secrets() -> None:
    """It names the process that holds a port or a folder."""
    words = [
        "mesh-llm",
        "--join",
        TOKEN,
        "--api-key",
        "hunter2",
        "--api-key=hunter2",
        f"--join={TOKEN}",
        "--port",
        "1",
        TOKEN,
    ]

    assert redacted_command(words) == ("mesh-llm --join … --api-key … --api-key=… --join=… --port 1 meshllm1-…")
