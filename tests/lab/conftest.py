"""The laboratory's tests of shared models need the real one, as `tests/engine_real` has it."""

from tests.engine_real.conftest import smollm2

__all__ = ["smollm2"]
