"""How a tunnel ends before its time, as errors that both the transport and whoever uses tunnels know.

Owns the three ways. Decides nothing. Doesn't know connections: it stands here because folders that may not import one
another all import `wire`.
"""

from meshllm.wire.tunnel_frames import TunnelFailure, TunnelRefusal


class TunnelError(ConnectionError):
    """A tunnel ended before its time."""


class TunnelRefused(TunnelError):  # noqa: N818 - what happened, not a mistake
    """The far end does not take the request: nothing of it was done, and another node may be asked."""

    def __init__(self, refusal: TunnelRefusal) -> None:
        """Keep what the far end said."""
        super().__init__(f"refused: {refusal.code} {refusal.message}".rstrip())
        self.refusal = refusal


class TunnelFailed(TunnelError):  # noqa: N818 - the same
    """The far end broke its answer off, and says why."""

    def __init__(self, failure: TunnelFailure) -> None:
        """Keep what the far end said."""
        super().__init__(f"failed: {failure.code} {failure.message}".rstrip())
        self.failure = failure


class TunnelLost(TunnelError):  # noqa: N818 - the same
    """The connection, the stream or the far end is gone. `code` is a name from the transport, for logs and scores."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the code beside the words."""
        super().__init__(message)
        self.code = code
