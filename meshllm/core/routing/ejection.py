"""Which nodes are left out for a while, because tunnels to them failed in a row.

Owns the count of failures for each node and how long it is left out. Decides who may be asked; membership decides
who lives. Doesn't know why a tunnel failed; pure, with the time as an argument.

Invariants: a node that refuses is not a node that fails; of the nodes that a request could go to, at most half are
out, and so never the last one.
"""

from collections.abc import Collection
from dataclasses import dataclass

from meshllm.core import limits
from meshllm.core.ids import NodeId


@dataclass(slots=True)
class _Record:
    failures: int = 0
    """In a row."""
    rounds: int = 0
    """How often in a row it was left out: each time is twice as long."""
    until_s: float = 0.0
    trial_ends_s: float = 0.0
    """Until when one request tries it and all others keep away, once its time is over."""


class Ejections:
    """The nodes that failed lately."""

    def __init__(self) -> None:
        """Start with nobody out."""
        self._records: dict[NodeId, _Record] = {}

    def __bool__(self) -> bool:
        """Tell whether any node failed lately."""
        return bool(self._records)

    def failed(self, node: NodeId, now_s: float) -> None:
        """Count a tunnel that could not be opened or broke. The third in a row leaves the node out, as does a trial.

        While it is out nothing more counts: a host that dies with a hundred streams has died once.
        """
        record = self._records.setdefault(node, _Record())
        if now_s < record.until_s:
            return
        record.failures += 1
        if record.failures >= limits.EJECTION_FAILURES or record.rounds:
            out_s = limits.EJECTION_FIRST_S * 2.0**record.rounds
            record.rounds = min(record.rounds + 1, 32)
            record.until_s = now_s + min(out_s, limits.EJECTION_MAX_S)
            record.failures = 0
            record.trial_ends_s = 0.0

    def answered(self, node: NodeId) -> None:
        """Forget all failures of a node that answered, if only with a refusal."""
        self._records.pop(node, None)

    def taken(self, node: NodeId, now_s: float) -> None:
        """Count a request that goes there: where the node was out, it is the trial that others wait for."""
        record = self._records.get(node)
        if record is not None and record.rounds:
            record.trial_ends_s = now_s + limits.EJECTION_TRIAL_S

    def out(self, nodes: Collection[NodeId], now_s: float) -> frozenset[NodeId]:
        """Return which of these nodes are left out now: at most half of them, those that come back last."""
        records = {node: self._records[node] for node in nodes if node in self._records}
        out = [
            node
            for node, record in records.items()
            if record.rounds and (now_s < record.until_s or now_s < record.trial_ends_s)
        ]
        most = int(len(set(nodes)) * limits.EJECTION_SHARE_MOST)
        if len(out) > most:
            out = sorted(out, key=lambda node: (records[node].until_s, node), reverse=True)[:most]
        return frozenset(out)

    def left_s(self, nodes: Collection[NodeId], now_s: float) -> dict[NodeId, float]:
        """Return for how many seconds more each of these nodes is left out, of those that are."""
        return {node: self._left_s(self._records[node], now_s) for node in self.out(nodes, now_s)}

    def _left_s(self, record: _Record, now_s: float) -> float:
        return max(record.until_s, record.trial_ends_s) - now_s

    def keep(self, nodes: Collection[NodeId]) -> None:
        """Forget every node but these."""
        for node in [node for node in self._records if node not in nodes]:
            del self._records[node]
