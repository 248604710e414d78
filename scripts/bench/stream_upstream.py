"""An upstream that streams: every POST is answered with server-sent events, one write for each.

Owns nothing but fixed bytes; as little work for each request as Python allows, so that what is measured
is the proxy in front of it. Doesn't read requests beyond their framing.
"""

import asyncio
import sys
from typing import cast

import uvloop

_EVENT = (
    b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" word"}}],"created":1795261168,'
    b'"id":"chatcmpl-864FsTEoGrJ0knUrx83HaUzUeaqYV2HD","model":"bench","object":"chat.completion.chunk"}\n\n'
)
_DONE = b"data: [DONE]\n\n"
_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Keep-Alive: timeout=60\r\n\r\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Upstream(asyncio.Protocol):
    """One connection; a request at a time."""

    events = 32

    def __init__(self) -> None:
        """Prepare the writes of an answer."""
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._writes = [_HEAD + _chunk(_EVENT)] + [_chunk(_EVENT)] * (self.events - 2) + [_chunk(_DONE) + b"0\r\n\r\n"]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer when the request is complete."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(body) >= length:
            self._buffer = b""
            self._write(0)

    def _write(self, number: int) -> None:
        """Write one event; the next in the loop's next round, so that each is a packet of its own."""
        if self._transport.is_closing():
            return
        self._transport.write(self._writes[number])
        if number + 1 < len(self._writes):
            self._loop.call_soon(self._write, number + 1)


async def _serve(socket_path: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    async with (
        await loop.create_unix_server(Upstream, socket_path),
        await loop.create_server(Upstream, "127.0.0.1", port),
    ):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
