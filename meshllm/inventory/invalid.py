"""Why a file is no usable model: the one error of everything that reads model files.

Owns the codes and nothing else. Decides nothing. Doesn't know what found the fault.
"""

from enum import StrEnum


class InvalidModel(StrEnum):
    """Why a file is no usable model. People see these as the code of a `ModelProblem`."""

    NOT_A_FILE = "not_a_file"
    EMPTY = "empty"
    UNREADABLE = "unreadable"
    NOT_GGUF = "not_gguf"
    UNSUPPORTED_VERSION = "unsupported_version"
    BIG_ENDIAN = "big_endian"
    INCOMPLETE = "incomplete"  # the file ends too early: still being copied, or cut off
    TOO_LARGE = "too_large"  # a count or size beyond what any model has
    BAD_VALUE = "bad_value"
    BAD_TENSOR = "bad_tensor"
    DUPLICATE = "duplicate"
    NOT_A_MODEL = "not_a_model"  # a projector, an adapter, an importance matrix
    MISSING_METADATA = "missing_metadata"
    SHARDS = "shards"  # missing or mixed


class InvalidModelError(Exception):
    """A file cannot be used as a model, with a code for programs and a sentence for people."""

    def __init__(self, code: InvalidModel, message: str) -> None:
        """Keep the code and the sentence."""
        super().__init__(message)
        self.code = code
        self.message = message
