"""The servers that a simulated node runs for the splits of others, and the engines elsewhere that use them.

Owns who uses which server. Decides nothing: a server listens after a moment, ends when it is told to or with its node,
and takes the engines that use it with it. Doesn't know cores: what happens goes out as events.
"""

from collections.abc import Callable
from functools import partial

from meshllm.core import effects as do
from meshllm.core import events as ev
from meshllm.core.events import Event
from meshllm.core.ids import ModelId, NodeId

LISTENS_S = 0.3
"""From an order until a server listens."""
ENDS_S = 0.1

Lost = Callable[[], None]


class SimLending:
    """What one node lends while its process runs."""

    def __init__(self, later: Callable[[float, Callable[[], None]], None], post: Callable[[Event], None]) -> None:
        """Lend nothing yet."""
        self.servers: dict[ModelId, do.Lend] = {}
        self._listening: set[ModelId] = set()
        self._users: dict[ModelId, list[Lost]] = {}
        self._later = later
        self._post = post

    def lend(self, order: do.Lend) -> None:
        """Run a server."""
        if order.model in self.servers:
            raise AssertionError(f"{order.model} is lent while its server runs")
        self.servers[order.model] = order

        def listen() -> None:
            if self.servers.get(order.model) is order:
                self._listening.add(order.model)
                self._post(ev.LendingReady(model=order.model, epoch=order.epoch))

        self._later(LISTENS_S, listen)

    def stop(self, order: do.EndLending) -> None:
        """End a server; whoever uses it loses it."""
        server = self.servers.get(order.model)
        if server is None or server.epoch != order.epoch:
            raise AssertionError(f"{order.model} is not lent in epoch {order.epoch}")
        self._later(ENDS_S, partial(self._gone, server, ""))
        self._lose(order.model)

    def kill(self, model: ModelId) -> bool:
        """Have a server end by itself; tell whether there was one."""
        server = self.servers.get(model)
        if server is None:
            return False
        self._lose(model)
        self._gone(server, "it was killed")
        return True

    def use(self, model: ModelId, epoch: int, host: NodeId, lost: Lost) -> bool:
        """Let a host's engine use a server; tell whether it may. `lost` is called when the server ends."""
        server = self.servers.get(model)
        if server is None or model not in self._listening or (server.epoch, server.host) != (epoch, host):
            return False
        self._users.setdefault(model, []).append(lost)
        return True

    def end(self) -> None:
        """Everything ends with the process of the node."""
        for model in list(self.servers):
            self._lose(model)
        self.servers.clear()

    @property
    def loaded(self) -> frozenset[ModelId]:
        """Return the models of which this node has its part in memory."""
        return frozenset(self._users)

    def _lose(self, model: ModelId) -> None:
        self._listening.discard(model)
        for lost in self._users.pop(model, []):
            lost()

    def _gone(self, server: do.Lend, why: str) -> None:
        if self.servers.get(server.model) is server:
            del self.servers[server.model]
            self._post(ev.LendingEnded(model=server.model, epoch=server.epoch, message=why))
