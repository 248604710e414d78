"""A worker's server double: `python -m meshllm.testing.fake_rpc_server -H HOST -p PORT -t N [-c]`.

Owns a child process for tests that stands where ggml-rpc-server would: one client at a time, whatever it says comes
back. Decides nothing. Doesn't know tensors.
"""

import argparse
import contextlib
import os
import socket
import sys
from pathlib import Path

READ_BYTES = 256 * 1024


def main(arguments: list[str]) -> None:
    """Listen and echo until something ends the process."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-H", dest="host", default="127.0.0.1")
    parser.add_argument("-p", dest="port", type=int, default=50052)
    parser.add_argument("-t", dest="threads", type=int, default=1)
    parser.add_argument("-c", dest="caches", action="store_true")
    told = parser.parse_args(arguments)
    with socket.create_server((told.host, told.port)) as listener:
        sys.stdout.write(f"fake: listening on {told.host}:{told.port} in {Path.cwd()} with {sorted(os.environ)}\n")
        sys.stdout.flush()
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                echo(client)


def echo(client: socket.socket) -> None:
    """Send back what comes, to the end of a connection."""
    while data := client.recv(READ_BYTES):
        client.sendall(data)


if __name__ == "__main__":
    main(sys.argv[1:])
