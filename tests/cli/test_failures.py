"""Exit codes are documented."""

import pytest

from meshllm.cli.failures import EPILOG, CommandError, ExitCode
from meshllm.daemon.errors import EngineChoiceError, PortInUseError, StartError, StateInUseError


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_in_the_help(code: ExitCode) -> None:
    """Scripts rely on them."""
    assert f" {code.value} " in " ".join(EPILOG.split())


def test_daemon_and_commands_mean_the_same_numbers() -> None:
    """The daemon's errors bring theirs."""
    codes = [error.exit_code for error in (StartError, EngineChoiceError, PortInUseError, StateInUseError)]

    assert codes == [ExitCode.FAILED, ExitCode.USAGE, ExitCode.PORT_IN_USE, ExitCode.STATE_IN_USE]
    assert CommandError("x").exit_code == ExitCode.FAILED
