"""Arguments that people give to engines: what is ours is refused, the rest reaches both kinds of engine."""

import pytest

from meshllm.core.engine_arguments import as_command_line, as_parameters, check_arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "1"], "listen"),
        (["--host=0.0.0.0"], "listen"),
        (["-m", "x.gguf"], "name"),
        (["--top-k", "3", "--ctx-size", "9"], "context_tokens"),
        (["-ngl", "99"], "gpu_layers"),
        (["--rpc", "a:1"], "mesh"),
        (["--api-key", "k"], "listen"),
        (["value"], "no argument's name"),
        (["--seed", "1", "2"], "no argument's name"),
        (["--seed", "x"], "wants a number, not 'x'"),
        (["--seed"], "wants a number, not nothing"),
        (["--swa-full", "yes"], "takes no value"),
        ([""], "empty"),
    ],
)
def test_argument_that_would_break_the_node_is_refused(arguments: list[str], words: str) -> None:
    """Each with what to write instead."""
    with pytest.raises(ValueError, match=words):
        check_arguments(arguments)


def test_arguments_reach_a_native_server_in_its_own_form() -> None:
    """It knows no `=`; what only it knows is not for us to judge."""
    given = ["--seed=-1", "--top-p", "0.9", "--swa-full", "--dry-base", "2"]

    check_arguments(given)

    assert as_command_line(given) == ("--seed", "-1", "--top-p", "0.9", "--swa-full", "--dry-base", "2")


def test_arguments_reach_the_wheel_as_its_parameters() -> None:
    """The wheel has no command line."""
    given = ["--seed", "-1", "--temp=0.5", "--no-warmup", "--tensor-split", "3,1"]

    assert as_parameters(given) == (
        ("sampling.seed", -1), ("sampling.temp", 0.5), ("warmup", False), ("tensor_split", [3.0, 1.0]),
    )  # fmt: skip
    with pytest.raises(ValueError, match="llama-server"):
        as_parameters(["--dry-base", "2"])
