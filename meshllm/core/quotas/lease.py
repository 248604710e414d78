"""What one host may use of a limit that several hosts share, before it hears of the others again.

Owns the arithmetic of leases. Decides how the remainder of a window is divided: evenly among the hosts that live, less
what hosts that vanished may still be using. Doesn't know time, nor how news travels. Pure.

Invariants: hosts that know the same never hold leases for more than the limit together; a lease does not grow while any
host is doubted, so that whoever is cut off uses what it holds and no more.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from meshllm.core.ids import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Who serves a model."""

    me: NodeId
    others: Mapping[NodeId, bool]
    """Host to whether it surely lives."""
    left: Collection[NodeId] = ()
    """Those that went on purpose: they use nothing more."""

    @property
    def are_sure(self) -> bool:
        """Tell whether all of them live."""
        return all(self.others.values())


class Lease:
    """This host's part of one limit in one window."""

    __slots__ = ("_held", "_inherited", "_known", "_share", "allowed", "gone")

    def __init__(self, missing: Collection[NodeId] = ()) -> None:
        """Hold nothing. Hosts that were `missing` before may hold as much as each of the others."""
        self.allowed = 0
        """What this host may have used in the window."""
        self.gone: set[NodeId] = set()
        """Hosts that vanished since: in the next window they are counted once more, and then no longer."""
        self._share = 0
        self._known: frozenset[NodeId] = frozenset()
        self._inherited = frozenset(missing)
        self._held: dict[NodeId, int] = {}
        """What hosts that vanished hold, as far as can be told: the same as this one."""

    def renew(self, limit: int, own: int, others: int, hosts: Hosts) -> None:
        """Divide anew what is left of a limit, of which `own` and `others` is known to be used."""
        present = frozenset(hosts.others)
        lost = self._known - present - frozenset(hosts.left)
        self.gone |= lost
        for node in lost:
            self._held.setdefault(node, self._share)
        if not hosts.are_sure and self._known:
            return
        missing = self._inherited - present - frozenset(hosts.left)
        back = [node for node in self._held if node in present or node in hosts.left]
        for node in back:
            del self._held[node]
            self.gone.discard(node)
        self._known = present
        rest = max(limit - own - others - sum(self._held.values()), 0)
        everybody = sorted({hosts.me, *present, *missing})
        each, over = divmod(rest, len(everybody))
        self._share = each + (everybody.index(hosts.me) < over)
        self.allowed = own + self._share
