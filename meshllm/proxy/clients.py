"""Who is connected to the front door, altogether and from each address.

Owns the set of connections and their counts. Decides whether there is room for one more. Doesn't know what they ask,
nor what one is told that finds no room.
"""

from collections import Counter
from collections.abc import Iterator
from enum import IntEnum

from meshllm.proxy.client import ClientConnection
from meshllm.proxy.room import is_loopback


class Space(IntEnum):
    """What is left for one that has just come."""

    ENOUGH = 0
    NONE = 1
    """It is told so."""
    NOT_A_WORD = 2
    """Even saying so would take a descriptor that is not there."""


class Clients:
    """The connections of one front door."""

    def __init__(self, most: int, most_per_address: int) -> None:
        """Have room for so many; loopback has no limit of its own."""
        self.most = most
        self._most_per_address = most_per_address
        self._connections: set[ClientConnection] = set()
        self._by_address: Counter[str] = Counter()
        self.accepted = 0
        """Since the start."""

    def __len__(self) -> int:
        """Return how many are connected."""
        return len(self._connections)

    def __iter__(self) -> Iterator[ClientConnection]:
        """Return those that are connected now; they may go meanwhile."""
        return iter(tuple(self._connections))

    def add(self, client: ClientConnection, address: str) -> Space:
        """Count a connection in; return what room there was for it."""
        self.accepted += 1
        self._connections.add(client)
        self._by_address[address] += 1
        is_greedy = self._by_address[address] > self._most_per_address and not is_loopback(address)
        if len(self._connections) <= self.most and not is_greedy:
            return Space.ENOUGH
        return Space.NONE if len(self._connections) <= 2 * self.most else Space.NOT_A_WORD

    def discard(self, client: ClientConnection, address: str) -> None:
        """Count a connection out."""
        self._connections.discard(client)
        self._by_address[address] -= 1
        if self._by_address[address] <= 0:
            del self._by_address[address]
