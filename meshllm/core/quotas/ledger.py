"""May a request run, by the quotas of its model: asked before, told after, one ledger for each node.

Owns the accounts of all models that have quotas. Decides who is let in, how long it waits, how long its answer may be,
and what the log is told, once for each level and window. Doesn't know requests' bodies nor HTTP; the time is handed in.

Invariants: without quotas nothing is kept; every admitted request is settled once; refused ones cost nothing.
"""

from collections.abc import Mapping
from dataclasses import replace

from meshllm.core import limits
from meshllm.core.effects import Level, Notify
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.quota_config import NO_QUOTAS, OnLimit, QuotaRegister, Quotas, RateAction
from meshllm.core.quota_use import QuotaUse
from meshllm.core.quotas.account import Account
from meshllm.core.quotas.kinds import (
    OF_TOKENS,
    WINDOWED,
    Admitted,
    Charge,
    Kind,
    Mode,
    Refused,
    Wanted,
    crossed,
    delay_s,
    mode_of,
    severity,
)
from meshllm.core.quotas.lease import Hosts
from meshllm.core.quotas.windows import Zone, as_text, utc
from meshllm.core.routing.priorities import Priority
from meshllm.core.serving.replies import notice

_NOBODY = Hosts(me=NodeId(""), others={})
_SOON_S = 1


class QuotaLedger:
    """The accounts of one node."""

    def __init__(self, zone: Zone = utc) -> None:
        """Count by the clock of a zone."""
        self.zone = zone
        self.register: QuotaRegister = NO_QUOTAS
        self.emergencies: frozenset[ModelId] = frozenset()
        """Models whose host is in distress."""
        self._accounts: dict[ModelId, Account] = {}
        self._others: Mapping[NodeId, Mapping[ModelId, QuotaUse]] = {}
        self._hosts: Mapping[ModelId, Hosts] = {}
        self._kept: dict[ModelId, QuotaUse] = {}
        self._notices: list[Notify] = []

    # -- what is known ---------------------------------------------------------------------------------

    def know(
        self, register: QuotaRegister, others: Mapping[NodeId, Mapping[ModelId, QuotaUse]],
        hosts: Mapping[ModelId, Hosts], now_unix_s: float,
    ) -> None:  # fmt: skip
        """Take the limits that count now, what other hosts used, and who serves what."""
        self.register, self._others, self._hosts = register, others, hosts
        for model in [model for model, account in self._accounts.items() if not account.in_flight]:
            if not register.of(model).is_limiting:
                self._kept[model] = self._accounts.pop(model).use()
        for account in self._accounts.values():
            self._tell(account, now_unix_s)

    def restore(self, uses: tuple[QuotaUse, ...]) -> None:
        """Go on from what was used here in an earlier run."""
        self._kept |= {use.model: use for use in uses}

    def account(self, model: ModelId, now_unix_s: float) -> Account:
        """Return a model's account, as it is at this moment."""
        account = self._accounts.get(model)
        if account is None:
            account = self._accounts[model] = Account(model, self.zone, now_unix_s)
            if (kept := self._kept.pop(model, None)) is not None:
                account.restore(kept)
            self._tell(account, now_unix_s)
        account.turn(now_unix_s)
        account.renew(now_unix_s)
        return account

    def _tell(self, account: Account, now_unix_s: float) -> None:
        model = account.model
        others = {node: uses[model] for node, uses in self._others.items() if model in uses}
        account.know(self.register.of(model), others, self._hosts.get(model, _NOBODY), now_unix_s)

    # -- requests --------------------------------------------------------------------------------------

    def ask(self, model: ModelId, wanted: Wanted, now_unix_s: float) -> Admitted | Refused:
        """Return whether a request may run here, and set aside what it may take."""
        account, quotas = self.account(model, now_unix_s), self.register.of(model)
        answer, is_needed = _answer_tokens(account, quotas, wanted)
        tokens = wanted.prompt_tokens + answer * wanted.choices
        objection = self._objection(account, quotas, wanted, tokens, now_unix_s)
        if objection is not None and (quotas.on_limit is not OnLimit.WARN or not objection.retry_after_s):
            return objection
        early_s = self._early_s(account, quotas, now_unix_s)
        if early_s and (too_early := self._too_early(account, quotas, early_s, now_unix_s)) is not None:
            return too_early
        charge = account.reserve(tokens)
        waits_s = early_s if quotas.action is RateAction.THROTTLE else 0.0
        if wanted.priority is not Priority.HIGH and objection is None:
            waits_s += delay_s(self.percent(account), quotas.soft_limits)
        return Admitted(charge=charge, answer_tokens=answer if is_needed else None, delay_s=waits_s)

    def foresee(self, model: ModelId, wanted: Wanted, now_unix_s: float) -> Refused | None:
        """Return why a request would be refused by what is known of the whole mesh; hosts decide, not this."""
        account, quotas = self.account(model, now_unix_s), self.register.of(model)
        if quotas.on_limit is not OnLimit.REJECT:
            return None
        tokens = wanted.prompt_tokens + (wanted.answer_tokens or 1) * wanted.choices
        if (too_large := _too_large(quotas, model, tokens)) is not None:
            return too_large
        for kind, counter in account.counters.items():
            need = tokens if kind in OF_TOKENS else 1
            if counter.limit and counter.used + need > counter.limit:
                return self._refused(account, kind, need, now_unix_s)
        return None

    def settle(self, charge: Charge, tokens: int, now_unix_s: float) -> None:
        """Take what a request really used."""
        account = self.account(charge.model, now_unix_s)
        account.settle(charge, tokens)
        self._note_levels(account, self.register.of(charge.model))

    def refund(self, charge: Charge, now_unix_s: float) -> None:
        """Give back what was set aside for a request that came to nothing."""
        self.account(charge.model, now_unix_s).settle(charge, None)

    # -- questions -------------------------------------------------------------------------------------

    def uses(self) -> tuple[QuotaUse, ...]:
        """Return what this node used, by model, as others are told."""
        found = [use for use in (one.use() for one in self._accounts.values()) if use.hour.requests or use.day.requests]
        return tuple(sorted(found, key=lambda use: use.model))

    def left(self, model: ModelId, now_unix_s: float) -> float:
        """Return the share that is left of a model's tightest limit, 0 to 1."""
        if not self.register.of(model).is_limiting:
            return 1.0
        return max(1.0 - self.percent(self.account(model, now_unix_s)) / 100, 0.0)

    def percent(self, account: Account) -> float:
        """Return how much is used of the limit that is nearest, of those that last longer than a request."""
        return max(counter.percent for counter in account.counters.values())

    def mode(self, model: ModelId, now_unix_s: float) -> Mode:
        """Return how near a model is to its limits."""
        quotas = self.register.of(model)
        if quotas.emergency or model in self.emergencies:
            return Mode.EMERGENCY
        return mode_of(self.percent(self.account(model, now_unix_s)), quotas.soft_limits)

    def retry_after_s(self, model: ModelId, now_unix_s: float) -> int:
        """Return when the last of the limits that are used up begins anew; soon, where none is."""
        account = self.account(model, now_unix_s)
        full = [kind for kind, counter in account.counters.items() if counter.limit and counter.used >= counter.limit]
        return max((int(account.window(kind).ends_unix_s - now_unix_s) + 1 for kind in full), default=_SOON_S)

    def taken_notices(self) -> list[Notify]:
        """Return the lines for the log since the last call."""
        taken, self._notices = self._notices, []
        return taken

    # -- the rules -------------------------------------------------------------------------------------

    def _objection(
        self, account: Account, quotas: Quotas, wanted: Wanted, tokens: int, now_unix_s: float
    ) -> Refused | None:  # fmt: skip
        """Return what stands against a request, the limit first that nothing can be done about."""
        if (too_large := _too_large(quotas, account.model, tokens)) is not None:
            return too_large
        is_urgent = wanted.priority is Priority.HIGH
        is_emergency = quotas.emergency or wanted.is_crowded or account.model in self.emergencies
        if is_emergency and not is_urgent:
            return self._refused(account, Kind.EMERGENCY, 1, now_unix_s)
        for kind in WINDOWED:
            counter = account.counters[kind]
            need = max(tokens, 1) if kind in OF_TOKENS else 1
            if counter.limit and counter.left < need:
                return self._refused(account, kind, need, now_unix_s)
        most = quotas.max_concurrent_requests
        if most and self.percent(account) >= quotas.soft_limits[3]:
            most = max(most // 2, 1)
        if most and account.in_flight >= most:
            return self._refused(account, Kind.CONCURRENT, 1, now_unix_s)
        return None

    def _early_s(self, account: Account, quotas: Quotas, now_unix_s: float) -> float:
        """Return for how long a request is too early, unless that is forgiven."""
        early_s = account.rate.wait_s(quotas, now_unix_s) if quotas.has_rates else 0.0
        return early_s if early_s > 0 and not account.rate.is_graced(quotas, now_unix_s) else 0.0

    def _too_early(self, account: Account, quotas: Quotas, early_s: float, now_unix_s: float) -> Refused | None:
        """Return what becomes of a request that comes too early; None where it is served, now or delayed."""
        if quotas.action is RateAction.THROTTLE and early_s <= limits.QUOTA_THROTTLE_HARD_MOST_S:
            return None
        refused = self._refused(account, Kind.RATE, 1, now_unix_s)
        if quotas.action is RateAction.WARN:
            return None
        return replace(refused, retry_after_s=int(early_s) + 1, may_queue=quotas.action is RateAction.QUEUE)

    def _refused(self, account: Account, kind: Kind, need: int, now_unix_s: float) -> Refused:
        """Return a refusal, counted, and told to the log once for each window.

        Where only what running requests have reserved, or other hosts may use, is in the way, it may be better soon.
        """
        model = account.model
        account.violations[kind] = account.violations.get(kind, 0) + 1
        retry_after_s, is_full = _SOON_S, True
        if kind is Kind.CONCURRENT:
            message = f"the model {model!r} runs {account.in_flight} requests here, as many as its quota allows"
        elif kind is Kind.RATE:
            message = f"requests for the model {model!r} come more quickly than it may be used here"
        elif kind is Kind.EMERGENCY:
            message = f"the model {model!r} takes only urgent requests for now"
        else:
            counter, ends_unix_s = account.counters[kind], account.window(kind).ends_unix_s
            is_full = counter.used + need > counter.limit
            retry_after_s = max(int(ends_unix_s - now_unix_s) + 1, 1) if is_full else _SOON_S
            message = (
                f"the model {model!r} has used {counter.used} of its {counter.limit} {kind.replace('_', ' ')}, "
                f"{counter.reserved} are reserved by requests that run, and {need} are needed; "
                f"that begins anew at {as_text(ends_unix_s)}"
            )
        if is_full and account.told.get(kind, 0) >= 0:
            account.told[kind] = -1
            self._notices.append(notice(Level.ERROR, "Quota exceeded", model=model, limit=str(kind), why=message))
        may_queue = self.register.of(model).on_limit is OnLimit.QUEUE
        return Refused(kind=kind, message=message, retry_after_s=retry_after_s, may_queue=may_queue)

    def _note_levels(self, account: Account, quotas: Quotas) -> None:
        """Tell the log of levels that were crossed, each once in a window."""
        for kind, counter in account.counters.items():
            level, before = crossed(counter.percent, quotas.soft_limits), account.told.get(kind, 0)
            if counter.limit and before >= 0 and level > before:
                account.told[kind] = level
                message = "Quota nearly used" if level <= len(quotas.soft_limits) else "Quota used"
                self._notices.append(
                    notice(
                        severity(level), message, model=account.model, limit=str(kind), used=counter.used,
                        reserved=counter.reserved, of=counter.limit, percent=round(counter.percent, 1),
                    )
                )  # fmt: skip


def _too_large(quotas: Quotas, model: ModelId, tokens: int) -> Refused | None:
    """Refuse a request that is larger than any may be: coming back does not help."""
    most = quotas.burst_token_limit
    if not most or tokens <= most:
        return None
    message = f"the request would take {tokens} tokens, prompt and answer; one for {model!r} may take {most}"
    return Refused(kind=Kind.BURST, message=message, retry_after_s=0)


def _answer_tokens(account: Account, quotas: Quotas, wanted: Wanted) -> tuple[int, bool]:
    """Return what to set aside for each answer, and whether the request has to be told: it sets no limit itself."""
    if wanted.answer_tokens is not None:
        return wanted.answer_tokens, False
    if not quotas.counts_tokens:
        return 0, False
    rooms = [] if quotas.on_limit is OnLimit.WARN else [
        counter.left for kind, counter in account.counters.items() if counter.limit and kind in OF_TOKENS
    ]  # fmt: skip
    if quotas.burst_token_limit:
        rooms.append(quotas.burst_token_limit)
    if not rooms:
        return wanted.most_answer_tokens, False
    each = (min(rooms) - wanted.prompt_tokens) // wanted.choices
    return max(min(wanted.most_answer_tokens, each), 1), True
