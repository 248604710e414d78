"""A program's way to its own node: through the front door, as any client's, with the key that the node was made with.

Owns the connections and what is waited for how long. Decides nothing: names, routes, waiting and refusals are the
node's. Doesn't know what is asked.
"""

import json
from collections.abc import AsyncIterator, Mapping

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from meshllm.core.limits import GENERATE_TIMEOUT_S, SSE_LINE_BYTES
from meshllm.sdk.errors import RequestError, refusal_of

ORDER_TIMEOUT_S = 86_400.0
"""For what takes as long as a download; whoever waits may cancel it."""
_DATA = b"data:"
_DONE = b"[DONE]"


class Door:
    """A client of one node."""

    def __init__(self, address: str, key: str) -> None:
        """Ask at `address`, showing a key."""
        self._base = f"http://{address}"
        self._session = ClientSession(
            connector=TCPConnector(limit=0), headers={"Authorization": f"Bearer {key}"} if key else None,
            timeout=ClientTimeout(total=ORDER_TIMEOUT_S), read_bufsize=SSE_LINE_BYTES,
        )  # fmt: skip

    async def close(self) -> None:
        """Hang up."""
        await self._session.close()

    async def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        """Return the document of an answer. Raises RequestError."""
        self._refuse_closed()
        try:
            async with self._session.request(method, self._base + path, json=body) as answer:
                document = _parsed(await answer.read())
                if answer.status >= 400:
                    raise refusal_of(answer.status, document)
                return document
        except (ClientError, TimeoutError) as error:
            raise _lost(error) from error

    async def events(self, path: str, body: Mapping[str, object]) -> AsyncIterator[dict[str, object]]:
        """Give the events of a stream as they come; whoever stops early cancels it. Raises RequestError."""
        self._refuse_closed()
        timeout = ClientTimeout(total=None, sock_read=GENERATE_TIMEOUT_S)
        try:
            async with self._session.post(self._base + path, json={**body, "stream": True}, timeout=timeout) as answer:
                if answer.status >= 400:
                    raise refusal_of(answer.status, _parsed(await answer.read()))
                async for line in answer.content:
                    if not line.startswith(_DATA):
                        continue
                    data = line[len(_DATA) :].strip()
                    if data == _DONE:
                        return
                    event = _parsed(data)
                    if "error" in event:
                        raise refusal_of(answer.status, event)
                    yield event
        except (ClientError, TimeoutError, ValueError) as error:
            raise _lost(error) from error
        raise RequestError(0, "host_lost", "the answer ended before it was complete")

    def _refuse_closed(self) -> None:
        if self._session.closed:
            raise RequestError(0, "node_closed", "the node is closed")


def _parsed(content: bytes) -> dict[str, object]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _lost(error: BaseException) -> RequestError:
    return RequestError(0, "node_lost", f"the node does not answer: {error or type(error).__name__}")
