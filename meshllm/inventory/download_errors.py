"""Why a download or a look-up of a model failed.

Owns the codes; people see them with their sentence. Decides nothing. Shared by the daemon's side and the child's.
"""

from enum import StrEnum


class DownloadCode(StrEnum):
    """The kinds of failure."""

    OFFLINE = "offline"
    NOT_FOUND = "not_found"
    AMBIGUOUS = "ambiguous"
    NO_SPACE = "no_space"
    DIGEST_MISMATCH = "digest_mismatch"
    NETWORK = "network"
    UNSUPPORTED = "unsupported"
    PEERS = "peers"
    """No peer gave it."""


class DownloadError(Exception):
    """A model could not be had, with a code for programs and a sentence for people."""

    def __init__(self, code: DownloadCode, message: str) -> None:
        """Keep the code and the sentence."""
        super().__init__(message)
        self.code = code
        self.message = message
