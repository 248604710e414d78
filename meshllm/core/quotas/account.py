"""What one model has used of its quotas, at this host and as far as is known at the others.

Owns the counters of the running hour and day: what was settled, what is reserved, what others said. Decides what is
left for one more request, by this host's leases. Doesn't know requests. Pure, with the time as an argument.

Invariants: what is settled only grows within a window; what is reserved and settled here never exceeds a lease, unless
an answer was longer than it was allowed to be.
"""

from collections.abc import Iterable, Mapping

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import QUOTA_LEASE_S
from meshllm.core.quota_config import Quotas
from meshllm.core.quota_use import QuotaUse, Spent
from meshllm.core.quotas.kinds import FULL, OF_HOUR, OF_TOKENS, WINDOWED, Charge, Kind, limit_of
from meshllm.core.quotas.lease import Hosts, Lease
from meshllm.core.quotas.rate import Rate
from meshllm.core.quotas.windows import HOUR_S, Window, Zone, day_at, hour_at


class Counter:
    """One limit in one window."""

    __slots__ = ("lease", "limit", "others", "reserved", "spent")

    def __init__(self, lease: Lease | None = None) -> None:
        """Start with nothing used and no limit; `lease` is the one of the window before."""
        self.limit = self.spent = self.reserved = self.others = 0
        self.lease = Lease(lease.gone if lease is not None else ())

    @property
    def used(self) -> int:
        """Return what is used in the whole mesh, as far as is known."""
        return self.spent + self.others

    @property
    def left(self) -> int:
        """Return what one more request may take here."""
        mine = self.spent + self.reserved
        return max(min(self.lease.allowed - mine, self.limit - self.others - mine), 0)

    @property
    def percent(self) -> float:
        """Return how much of the limit is used; what running requests have reserved may come back."""
        return FULL * self.used / self.limit if self.limit else 0.0


class Account:
    """The counters of one model."""

    def __init__(self, model: ModelId, zone: Zone, now_unix_s: float) -> None:
        """Begin the hour and the day in which this moment lies."""
        self.model = model
        self.in_flight = 0
        """Requests that run here."""
        self.largest_tokens = 0
        """What the largest request so far was allowed to take."""
        self.hour = hour_at(now_unix_s, zone)
        self.day = day_at(now_unix_s, zone)
        self.rate = Rate()
        self.counters = {kind: Counter() for kind in WINDOWED}
        self.told: dict[Kind, int] = {}
        """How near to each limit the log was told of, in this window."""
        self.violations: dict[Kind, int] = {}
        self._zone = zone
        self._others: Mapping[NodeId, QuotaUse] = {}
        self._hosts: Hosts | None = None
        self._quotas: Quotas | None = None
        self._leased_unix_s = 0.0

    # -- time ------------------------------------------------------------------------------------------

    def turn(self, now_unix_s: float) -> None:
        """Begin the next window where one is over. A clock that is set back a little changes nothing."""
        if not self._lasts(self.hour, now_unix_s):
            self.hour = hour_at(now_unix_s, self._zone)
            self._begin([kind for kind in WINDOWED if kind in OF_HOUR])
        if not self._lasts(self.day, now_unix_s):
            self.day = day_at(now_unix_s, self._zone)
            self._begin([kind for kind in WINDOWED if kind not in OF_HOUR])

    @staticmethod
    def _lasts(window: Window, now_unix_s: float) -> bool:
        return window.starts_unix_s - HOUR_S <= now_unix_s < window.ends_unix_s

    def _begin(self, kinds: Iterable[Kind]) -> None:
        for kind in kinds:
            self.counters[kind] = Counter(self.counters[kind].lease)
            self.told.pop(kind, None)
        self.told.pop(Kind.CONCURRENT, None)
        self.told.pop(Kind.EMERGENCY, None)
        self.told.pop(Kind.RATE, None)
        self._leased_unix_s = 0.0

    def window(self, kind: Kind) -> Window:
        """Return the window of a kind."""
        return self.hour if kind in OF_HOUR else self.day

    # -- what is known ---------------------------------------------------------------------------------

    def know(self, quotas: Quotas, others: Mapping[NodeId, QuotaUse], hosts: Hosts, now_unix_s: float) -> None:
        """Take what the newest view says: the limits, what other hosts used, and who they are."""
        self.turn(now_unix_s)
        if quotas != self._quotas or hosts != self._hosts:
            self._leased_unix_s = 0.0
        self._quotas, self._others, self._hosts = quotas, others, hosts
        for kind, counter in self.counters.items():
            counter.limit = limit_of(quotas, kind)
            counter.others = sum(self._said(use, kind) for use in others.values())
        self.renew(now_unix_s)

    def renew(self, now_unix_s: float) -> None:
        """Divide anew what is left, if that is due."""
        if self._hosts is None or now_unix_s - self._leased_unix_s < QUOTA_LEASE_S:
            return
        self._leased_unix_s = now_unix_s
        for kind, counter in self.counters.items():
            if not counter.limit:
                counter.limit = limit_of(self._quotas, kind) if self._quotas is not None else 0
                counter.others = sum(self._said(use, kind) for use in self._others.values())
            counter.lease.renew(counter.limit, counter.spent, counter.others, self._hosts)

    def _said(self, use: QuotaUse, kind: Kind) -> int:
        spent = use.hour if kind in OF_HOUR else use.day
        spent = spent.within(self.window(kind).starts_unix_s)
        return spent.tokens if kind in OF_TOKENS else spent.requests

    def by_node(self, kind: Kind) -> dict[NodeId, int]:
        """Return what each other host used of one kind."""
        return {node: said for node, use in self._others.items() if (said := self._said(use, kind))}

    # -- charges ---------------------------------------------------------------------------------------

    def reserve(self, tokens: int) -> Charge:
        """Set aside what a request may take. It is settled or refunded exactly once."""
        for kind, counter in self.counters.items():
            counter.reserved += tokens if kind in OF_TOKENS else 1
        self.in_flight += 1
        self.rate.take()
        self.largest_tokens = max(self.largest_tokens, tokens)
        return Charge(self.model, tokens, self.hour.starts_unix_s, self.day.starts_unix_s)

    def settle(self, charge: Charge, tokens: int | None) -> None:
        """Replace what was set aside by what was used; None gives all of it back. A second time changes nothing.

        What was reserved in a window that is over was used in that one.
        """
        if charge.is_over:
            return
        charge.is_over = True
        self.in_flight -= 1
        self.rate.use(tokens or 0)
        for kind, counter in self.counters.items():
            began = charge.hour_unix_s if kind in OF_HOUR else charge.day_unix_s
            if began != self.window(kind).starts_unix_s:
                continue
            counter.reserved -= charge.tokens if kind in OF_TOKENS else 1
            if tokens is not None:
                counter.spent += tokens if kind in OF_TOKENS else 1

    def use(self) -> QuotaUse:
        """Return what this host says of it to others."""
        return QuotaUse(model=self.model, hour=self._spent(self.hour, hourly=True), day=self._spent(self.day))

    def _spent(self, window: Window, *, hourly: bool = False) -> Spent:
        tokens, requests = (
            (Kind.HOURLY_TOKENS, Kind.HOURLY_REQUESTS) if hourly else (Kind.DAILY_TOKENS, Kind.DAILY_REQUESTS)
        )
        return Spent(window.starts_unix_s, self.counters[tokens].spent, self.counters[requests].spent)

    def restore(self, use: QuotaUse) -> None:
        """Go on from what this host used in an earlier run, as far as those windows still last."""
        for kind, counter in self.counters.items():
            counter.spent = max(counter.spent, self._said(use, kind))
