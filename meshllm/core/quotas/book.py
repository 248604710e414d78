"""The quotas of all models as the mesh chose them: who keeps each choice, who says it, and what this node used.

Owns the node's copy of the register. Decides which choice counts for each model, the newest that a member with the
right to administer ever said, and who carries it: its author, else the live admin of smallest id. Doesn't know what a
limit means; `ledger` does.

Invariants: the choice for a model only ever rises in rank, also over restarts; every request for a change is answered.
"""

from collections.abc import Mapping

from meshllm.core.announcement import Announcement
from meshllm.core.effects import KeptOrders, Level, Notify
from meshllm.core.ids import ModelId, NodeId, short
from meshllm.core.intents import Outcome, OutcomeCode
from meshllm.core.limits import ORDER_VERSION_MAX, QUOTA_KEEP_S
from meshllm.core.quota_config import QuotaChoice, QuotaError, QuotaRegister, Quotas, shown
from meshllm.core.quota_use import QuotaUse
from meshllm.core.rights import Rights
from meshllm.core.serving.carrying import carries
from meshllm.core.serving.order_book import NOTHING_KEPT
from meshllm.core.serving.replies import notice

_NOT_ALLOWED = "this node may not limit models for the mesh: it lacks the right to administer it"
_Choices = Mapping[ModelId, QuotaChoice]


class QuotaBook:
    """The register of quotas, and the counters that this node tells."""

    def __init__(
        self, me: NodeId, kept: KeptOrders = NOTHING_KEPT, configured: tuple[tuple[str, Quotas], ...] = ()
    ) -> None:  # fmt: skip
        """Begin with what was written down; `configured` counts at this node where nothing was chosen."""
        self._me = me
        self.register = QuotaRegister(configured=configured).with_choices(kept.quotas)
        self.announced: tuple[QuotaChoice, ...] = ()
        """The choices that this node carries."""
        self.used: tuple[QuotaUse, ...] = ()
        """What was used here, as the front door last said."""
        self._kept_uses, self._kept_at_s = kept.quota_uses, float("-inf")
        self._carried: dict[NodeId, _Choices] = {}
        """What each other live admin carries."""
        self._is_admin = False
        self._has_news = False
        self._notices: list[Notify] = []

    def remembered(self, now_s: float) -> tuple[tuple[QuotaChoice, ...], tuple[QuotaUse, ...]]:
        """Return what is to be written down: the choices, and now and then what was used."""
        if self.used and now_s - self._kept_at_s >= QUOTA_KEEP_S:
            self._kept_uses, self._kept_at_s = self.used, now_s
        return self.register.chosen, self._kept_uses

    def taken_notices(self) -> list[Notify]:
        """Return the lines for the log since the last call."""
        taken, self._notices = self._notices, []
        return taken

    # -- changes ---------------------------------------------------------------------------------------

    def stand(self, *, is_admin: bool) -> None:
        """Know whether this node may choose for the mesh."""
        if is_admin != self._is_admin:
            self._is_admin, self._has_news = is_admin, True

    def hear(self, node: NodeId, said: Announcement | None, *, is_live: bool) -> None:
        """Take what another member says; None when it is forgotten."""
        is_admin = said is not None and Rights.ADMIN in said.rights
        choices = said.quotas if said is not None and is_admin else ()
        if choices:
            register = self.register.with_choices(one for one in choices if one.version <= ORDER_VERSION_MAX)
            if register is not self.register:
                self._tell(register)
                self.register, self._has_news = register, True
        if is_admin and is_live:
            carried = {one.model: one for one in choices}
            if self._carried.get(node) != carried:
                self._carried[node], self._has_news = carried, True
        elif self._carried.pop(node, None) is not None:
            self._has_news = True

    def change(self, model: ModelId, document: Mapping[str, object]) -> Outcome:
        """Carry out a change that somebody asks this node for."""
        if not self._is_admin:
            return Outcome(code=OutcomeCode.NOT_ALLOWED, message=_NOT_ALLOWED, model=model)
        try:
            register = self.register.changed(model, document, self._me)
        except QuotaError as error:
            return Outcome(code=OutcomeCode(error.fault), message=error.message, model=model, param=error.key)
        self._tell(register, module="audit")
        self.register, self._has_news = register, True
        return Outcome(code=OutcomeCode.DONE, message=f"the quotas of {model} are as chosen", model=model)

    def settle(self) -> bool:
        """Count what was heard; tell whether something is to be shown or announced that was not before."""
        if not self._has_news:
            return False
        self._has_news = False
        self.announced = tuple(one for one in self.register.chosen if self._carries(one))
        return True

    # -- the rules -------------------------------------------------------------------------------------

    def _carries(self, choice: QuotaChoice) -> bool:
        """Tell whether this node says a choice to others: there always is one who does, and soon only one."""
        if not self._is_admin:
            return False
        others = [node for node, carried in self._carried.items() if carried.get(choice.model) == choice]
        return carries(self._me, choice.author, others, self._carried, is_carried=choice in self.announced)

    def _tell(self, register: QuotaRegister, **fields: str) -> None:
        """Note each change for the log, key by key."""
        before = self.register
        for choice in register.chosen:
            if before.by_model.get(choice.model) == choice:
                continue
            old, new = shown(before.of(choice.model)), shown(choice.quotas)
            changes = {key: f"{old[key]} -> {new[key]}" for key in new if old[key] != new[key]}
            self._notices.append(
                notice(
                    Level.INFO, "quotas changed", model=choice.model, author=short(choice.author),
                    version=choice.version, **fields, **changes,
                )
            )  # fmt: skip
