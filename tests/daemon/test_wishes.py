"""What the configuration asks of engines."""

from dataclasses import replace
from pathlib import Path

from meshllm.core.policy import ModelPolicy
from meshllm.daemon import standalone, wishes
from tests.core.builders import a_machine
from tests.daemon.test_standalone import a_config


def test_memory_is_reckoned_with_what_is_said_of_the_model(tmp_path: Path) -> None:
    """`show` says what a load would take."""
    config = a_config(tmp_path)
    spec = standalone.models(config)[0][0]
    told = replace(config, policies=(ModelPolicy(name="TINY", context_tokens=256, slots=1),))

    plain = dict(wishes.memory(config, spec, a_machine(), uses_gpu=False))
    small = dict(wishes.memory(told, spec, a_machine(), uses_gpu=False))

    assert "1 request, 256 tokens" in small["KV cache"]
    assert plain["KV cache"] != small["KV cache"]
