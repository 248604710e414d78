"""The error of everything that reads model files says what and why."""

import re

from meshllm.inventory.invalid import InvalidModel, InvalidModelError


def test_the_error_is_its_message_with_a_code() -> None:
    """Logs print the exception, programs look at the code."""
    error = InvalidModelError(InvalidModel.EMPTY, "the file is empty")

    assert (str(error), error.message, error.code) == ("the file is empty", "the file is empty", "empty")


def test_codes_are_words_that_programs_can_match() -> None:
    """They appear in JSON, also in that of other nodes."""
    assert all(re.fullmatch(r"[a-z_]+", code) for code in InvalidModel)
