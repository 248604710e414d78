"""The double of a worker's server: it echoes."""

import socket
import threading

from meshllm.testing.fake_rpc_server import echo


def test_what_comes_goes_back() -> None:
    """To the end of the connection."""
    ours, theirs = socket.socketpair()
    serving = threading.Thread(target=echo, args=(theirs,))
    serving.start()
    with ours:
        ours.settimeout(30)
        ours.sendall(b"tensor")
        answer = ours.recv(6)
    serving.join(30)
    theirs.close()

    assert answer == b"tensor"
