"""`doctor`: checks and limits."""

import pytest

from meshllm.cli import standalone
from meshllm.core.limits import all_limits
from meshllm.daemon.standalone import Check
from tests.cli.conftest import Shell


def test_doctor_prints_checks_and_limits_and_fails_on_bad_ones(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code is a check of its own."""
    checks = [Check(name="port", is_ok=True, message="9337 is free"), Check(name="GPU", is_ok=None, message="none")]
    monkeypatch.setattr(standalone, "checks", lambda _: tuple(checks))
    good = shell("doctor")
    checks.append(Check(name="engine", is_ok=False, message="does not start", advice="reinstall"))
    bad = shell("doctor")

    assert (good, bad) == (0, 1)
    assert "does not start (reinstall)" in shell.out
    assert shell.err == "mesh-llm: not well: engine\n"
    assert all(name in shell.out for name in all_limits())
