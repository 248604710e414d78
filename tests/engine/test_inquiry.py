"""Programs that answer and end."""

import sys

import pytest

from meshllm.engine.command import this_host
from meshllm.engine.inquiry import EngineUnusableError, ask


async def test_both_outputs_are_heard_and_the_last_line_is_quoted() -> None:
    """llama.cpp says some things here, some there."""
    program = (sys.executable, "-c", "import sys; print('one', flush=True); print('two', file=sys.stderr)")

    said = await ask(this_host(), program, 30.0, name="it")

    assert said.text.split() == ["one", "two"]
    assert said.excerpt == "'two'"


async def test_failure_is_one_line_with_the_programs_name() -> None:
    """Everything else is tried with `probe_build`."""
    with pytest.raises(EngineUnusableError, match=r"the engine it cannot run here: .*status 3"):
        await ask(this_host(), (sys.executable, "-c", "raise SystemExit(3)"), 30.0, name="it")
