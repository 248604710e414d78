"""A taken port names its holder."""

import os
import socket

from meshllm.daemon.ports import holder_of


def test_the_holder_is_named_by_process() -> None:
    """Whoever reads the message knows what to stop."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert f"process {os.getpid()} " in holder_of(server.getsockname()[1])


def test_an_unknown_holder_is_said_to_be_unknown() -> None:
    """No guess."""
    assert "not visible" in holder_of(1)
