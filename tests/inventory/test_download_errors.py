"""The error of everything that downloads says what and why."""

from meshllm.inventory.download_errors import DownloadCode, DownloadError


def test_the_error_is_its_message_with_a_code() -> None:
    """Logs print the exception, programs look at the code."""
    error = DownloadError(DownloadCode.NO_SPACE, "the disk is full")

    assert (str(error), error.message, error.code) == ("the disk is full", "the disk is full", "no_space")


def test_a_code_survives_the_way_from_the_child() -> None:
    """It travels as a word."""
    assert all(DownloadCode(str(code)) is code for code in DownloadCode)
