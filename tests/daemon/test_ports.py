"""A taken port names its holder."""

import os
import socket

from meshllm.daemon.ports import holder_of


def test_the_holder_is_named_by_process() -> None:
    """Whoever reads the message knows what to stop."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        holder = holder_of(server.getsockname()[1])

    assert holder is not None
    assert holder.startswith(f"process {os.getpid()} (")


def test_a_free_port_has_no_holder() -> None:
    """No guess."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    assert holder_of(port) is None
