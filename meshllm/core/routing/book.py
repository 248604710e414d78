"""How requests are routed, as the mesh and this node chose it: who keeps the mesh's choice, and who says it to others.

Owns the node's copy of the register. Decides which choice counts, the newest that a member with the right to administer
ever said, and who carries it: its author, else the live admin of smallest id. Doesn't know keys nor values:
`routing_config` does.

Invariants: the choice of the mesh only ever rises in rank, also over restarts; every request for a change is answered.
"""

from collections.abc import Mapping
from dataclasses import replace

from meshllm.core.announcement import Announcement
from meshllm.core.effects import KeptOrders, Level, Notify
from meshllm.core.ids import NodeId, short
from meshllm.core.intents import Outcome, OutcomeCode
from meshllm.core.limits import ORDER_VERSION_MAX
from meshllm.core.rights import Rights
from meshllm.core.routing_config import (
    MESH,
    NODE,
    RoutingChoice,
    RoutingConfig,
    RoutingConfigError,
    RoutingRegister,
    differing,
    rank,
)
from meshllm.core.serving.carrying import carries
from meshllm.core.serving.order_book import NOTHING_KEPT
from meshllm.core.serving.replies import notice

_NOT_ALLOWED = "this node may not choose for the mesh: it lacks the right to administer it; the scope `node` is its own"


class RoutingBook:
    """The register of how requests are routed."""

    def __init__(
        self, me: NodeId, kept: KeptOrders = NOTHING_KEPT, configured: RoutingConfig | None = None,
        unknown_model: str = "",
    ) -> None:  # fmt: skip
        """Begin with what was written down; what the node's configuration says replaces its own choice."""
        self._me = me
        self._configured = configured
        here = kept.routing_here if configured is None else configured
        self.register = RoutingRegister(mesh=kept.routing, node=here, unknown_model=unknown_model)
        """What counts, mesh-wide and here."""
        self.announced: RoutingChoice | None = None
        """The choice of the mesh, where it is this node that carries it."""
        self._carried: dict[NodeId, RoutingChoice | None] = {}
        """What each other live admin carries."""
        self._is_admin = False
        self._has_news = False
        self._notices: list[Notify] = []
        self._settled: tuple[RoutingRegister, RoutingChoice | None] = (self.register, None)

    def remembered(self) -> tuple[RoutingChoice | None, RoutingConfig | None]:
        """Return what is to be written down: the choice of the mesh, and this node's own unless it is configured."""
        here = self.register.node
        return self.register.mesh, None if here == self._configured else here

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
        choice = said.routing if said is not None and is_admin else None
        if choice is not None and choice.version <= ORDER_VERSION_MAX and self._is_newer(choice):
            before = self.register
            self.register = replace(before, mesh=choice)
            self._has_news = True
            self._tell(before, author=short(choice.author), scope=MESH)
        if is_admin and is_live:
            if node not in self._carried or self._carried[node] != choice:
                self._carried[node], self._has_news = choice, True
        elif node in self._carried:
            del self._carried[node]
            self._has_news = True

    def change(self, document: Mapping[str, object]) -> Outcome:
        """Carry out a change that somebody asks this node for."""
        before = self.register
        try:
            changed = before.changed(document, self._me, MESH if self._is_admin else NODE)
        except RoutingConfigError as error:
            return Outcome(code=OutcomeCode(error.fault), message=error.message, param=error.key)
        if changed.mesh != before.mesh and not self._is_admin:
            return Outcome(code=OutcomeCode.NOT_ALLOWED, message=_NOT_ALLOWED, param="scope")
        self.register, self._has_news = changed, True
        scope = NODE if changed.mesh == before.mesh else MESH
        self._tell(before, author=short(self._me), scope=scope, module="audit")
        return Outcome(code=OutcomeCode.DONE, message=f"requests are routed as chosen for this {scope}")

    def settle(self) -> bool:
        """Count what was heard; tell whether something is to be shown or announced that was not before."""
        if not self._has_news:
            return False
        self._has_news = False
        self.announced = self.register.mesh if self._carries() else None
        before, self._settled = self._settled, (self.register, self.announced)
        return before != self._settled

    # -- the rules -------------------------------------------------------------------------------------

    def _is_newer(self, choice: RoutingChoice) -> bool:
        known = self.register.mesh
        if known is None or choice.version > known.version:
            return True
        return choice.version == known.version and rank(choice) > rank(known)

    def _carries(self) -> bool:
        """Tell whether this node says the mesh's choice to others."""
        chosen = self.register.mesh
        if chosen is None or not self._is_admin:
            return False
        others = [node for node, carried in self._carried.items() if carried == chosen]
        return carries(self._me, chosen.author, others, self._carried, is_carried=self.announced is not None)

    def _tell(self, before: RoutingRegister, **fields: str) -> None:
        """Note a change for the log, key by key."""
        after = self.register
        old, new = (before.of_mesh, after.of_mesh) if fields["scope"] == MESH else (before.effective, after.effective)
        changes = {key: f"{was} -> {now}" for key, (was, now) in differing(old, new).items()}
        self._notices.append(notice(Level.INFO, "routing changed", **fields, version=after.version, **changes))
