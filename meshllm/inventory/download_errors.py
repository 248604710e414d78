"""Why a download or a look-up of a model failed.

Owns the codes, and the words for what went wrong on the way to the web; people see both. Decides nothing. Shared by the
daemon's side and the child's.
"""

import os
import ssl
from enum import StrEnum
from typing import Final

from meshllm.core.web_trust import SETTING, refused_certificate

_WRAPPED: Final = 16
_LINE_CHARS: Final = 300


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


def reason_of(error: BaseException, whose: str = "the server") -> str:
    """Return an error's first line, short enough to show; of a refused certificate, whose it was and what would help.

    Libraries wrap the one that OpenSSL raised: it is looked for behind those that came of it.
    """
    inner: BaseException | None = error
    for _ in range(_WRAPPED):
        if isinstance(inner, ssl.SSLCertVerificationError):
            named = os.environ.get(SETTING, "")
            return refused_certificate(whose, inner.verify_message, inner.verify_code, named)
        if inner is None:
            break
        reason = getattr(inner, "reason", None)
        inner = reason if isinstance(reason, BaseException) else inner.__cause__ or inner.__context__
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:_LINE_CHARS]


class DownloadError(Exception):
    """A model could not be had, with a code for programs and a sentence for people."""

    def __init__(self, code: DownloadCode, message: str) -> None:
        """Keep the code and the sentence."""
        super().__init__(message)
        self.code = code
        self.message = message
