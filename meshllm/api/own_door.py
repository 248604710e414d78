"""Inference asked for by the management app itself: through this node's own front door, as any client does.

Owns the connections to it. Decides nothing: names, routes, waiting and refusals are the front door's. Doesn't know
what is asked, nor who asks.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web

from meshllm.api.answers import ApiError
from meshllm.api.deps import ManagementDeps
from meshllm.core import limits

_PASSED_ON: Final = ("X-Session-ID", "X-Mesh-Strategy", "traceparent")
"""What a client says of its request besides the body."""
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - where to reach what listens everywhere


class OwnDoor:
    """A client of the node's own front door."""

    def __init__(self, deps: ManagementDeps) -> None:
        """Ask at the address of `deps`."""
        self._deps = deps
        self._session: ClientSession | None = None

    async def close(self, _: web.Application) -> None:
        """Hang up."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def ask(
        self, request: web.Request, path: str, document: Mapping[str, object]
    ) -> AsyncIterator[ClientResponse]:
        """Yield the answer to a document, for the client of `request`; leaving early cancels it. Raises ApiError."""
        if self._session is None:
            timeout = ClientTimeout(total=limits.GENERATE_TIMEOUT_S)
            self._session = ClientSession(connector=TCPConnector(limit=0), timeout=timeout)
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        if self._deps.api_key:
            headers["Authorization"] = f"Bearer {self._deps.api_key}"
        host, _, port = self._deps.address.rpartition(":")
        url = f"http://{_EVERYWHERE.get(host, host)}:{port}{path}"
        try:
            async with self._session.post(url, json=dict(document), headers=headers) as answer:
                yield answer
        except (ClientError, TimeoutError) as error:
            message = "the answer broke off; ask again for a whole one"
            raise ApiError(502, "host_lost", message) from error
