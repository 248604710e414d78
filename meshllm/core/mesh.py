"""The one door into the node's state: `MeshCore.handle(event, now_s) -> effects`.

Owns the composition of the parts and the newest `MeshView`. Decides nothing itself: it hands each event
to the part that knows, lets the parts settle, and makes a new view when anything changed. Never asks the
world for the time, for chance or for a fact.

Invariants: the same events with the same times give the same effects and views; a view's epoch rises
exactly when the view differs; every effect carries the id of the event that caused it.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import assert_never

from meshllm.core import events as ev
from meshllm.core.announcement import Announcement, DiskModel, Role, ServedModel, ServingState
from meshllm.core.catalog import ModelProblem, ModelSpec
from meshllm.core.effects import Effect, Level, Notify
from meshllm.core.events import Event
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.serving.lifecycle import Lifecycle, ServingPolicy
from meshllm.core.view import Group, LocalModel, Member, MeshView

ALIVE = "alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreConfig:
    """What the core is told at its start."""

    node: NodeId
    name: str
    serving: ServingPolicy = ServingPolicy()


class MeshCore:
    """A node's knowledge and decisions."""

    def __init__(self, config: CoreConfig, now_s: float) -> None:
        """Know of nobody but oneself."""
        self._config = config
        self._serving = Lifecycle(config.serving)
        self._problems: tuple[ModelProblem, ...] = ()
        me = Announcement(
            node=config.node, name=config.name, incarnation=0, version=0, role=Role.WORKER,
            resources=None, requested=config.serving.requested,
        )  # fmt: skip
        self._since_s = now_s
        self._view = MeshView(
            epoch=0, at_s=now_s, me=me, members=MappingProxyType({}), groups=MappingProxyType({}),
            local=MappingProxyType({}), names=self._serving.held.names, default_model=None,
            requested=config.serving.requested,
        )  # fmt: skip
        self._refresh(now_s)

    @property
    def view(self) -> MeshView:
        """Return the newest snapshot."""
        return self._view

    def next_wakeup_s(self) -> float | None:
        """Return when the core wants a `Woke` event, if nothing else happens before."""
        return self._serving.next_retry_s()

    def handle(self, event: Event, now_s: float) -> tuple[Effect, ...]:
        """Take one event and return what is to be done about it. The only mutator."""
        effects = self._dispatch(event, now_s)
        effects += self._serving.settle(now_s)
        self._refresh(now_s)
        return tuple(replace(effect, cause=event.id) for effect in effects)

    def _dispatch(self, event: Event, now_s: float) -> list[Effect]:  # noqa: PLR0911, C901 - one line for each event
        serving = self._serving
        match event:
            case ev.Woke():
                return []
            case ev.ResourcesMeasured():
                return serving.on_resources(event)
            case ev.InventoryChanged():
                self._problems = event.problems
                return serving.on_inventory(event)
            case ev.EngineProbed():
                return serving.on_probed(event)
            case ev.EngineStarted():
                return serving.engines.on_started(event)
            case ev.EngineProgressed():
                return serving.engines.on_progressed(event)
            case ev.EngineReady():
                return serving.engines.on_ready(event, now_s)
            case ev.EngineHung():
                return serving.engines.on_hung(event)
            case ev.EngineDrained():
                return serving.engines.on_drained(event)
            case ev.EngineExited():
                return serving.on_exited(event, now_s)
            case ev.ModelWanted():
                return serving.on_wanted(event)
            case ev.TrafficMeasured():
                return serving.on_traffic(event, now_s)
            case ev.DownloadProgressed():
                return serving.fetching.on_download_progressed(event)
            case ev.DownloadFinished():
                return serving.fetching.on_download_finished(event)
            case ev.DownloadFailed():
                return serving.fetching.on_download_failed(event)
            case ev.ModelAsked():
                return serving.on_asked(event)
            case ev.IntentReceived():
                return serving.on_intent(event)
            case ev.LeaveRequested():
                return serving.leave(event.reason)
            case (
                ev.PeerConnected() | ev.PeerLost() | ev.DialFailed() | ev.MessageReceived() | ev.AddressFound()
                | ev.OwnAddressesChanged() | ev.RoundTripMeasured() | ev.PathFailed() | ev.LoopLagged() | ev.Slept()
                | ev.AdmissionAsked() | ev.HandshakeFailed() | ev.TokenMade() | ev.TokenRevoked() | ev.TokensRotated()
                | ev.NodeRevoked()
            ):  # fmt: skip
                return []
            case ev.TaskFailed():
                return [
                    Notify(
                        level=Level.ERROR,
                        message="task failed",
                        fields=(("task", event.task), ("error", event.message)),
                    )
                ]
            case _:
                assert_never(event)

    def _refresh(self, now_s: float) -> None:
        """Make a new view if it would differ from the old one in anything but its epoch."""
        serving, held, old = self._serving, self._serving.held, self._view
        local = {model: record.snapshot() for model, record in held.records.items()}
        same = {model: (old.local[model] if old.local.get(model) == entry else entry) for model, entry in local.items()}
        me = self._me(same)
        new = replace(
            old, me=me, local=MappingProxyType(same), names=held.names, default_model=held.default_model,
            members=MappingProxyType({me.node: Member(announcement=me, state=ALIVE, since_s=self._since_s)}),
            groups=MappingProxyType(self._groups(same)), problems=self._problems, engine_build=held.build,
            engine_failure=held.build_failure, leaving=serving.leaving is not None, has_inventory=serving.has_inventory,
            unresolved=MappingProxyType(dict(serving.fetching.unresolved)),
        )  # fmt: skip
        if new != old or old.epoch == 0:
            self._view = replace(new, epoch=old.epoch + 1, at_s=now_s)

    def _me(self, local: dict[ModelId, LocalModel]) -> Announcement:
        """Return what this node says of itself; its version rises when that changes."""
        held, old = self._serving.held, self._view.me
        served = tuple(_served(model) for _, model in sorted(local.items()) if model.is_ready)
        build = held.build
        new = replace(
            old, role=Role.HOST if served else Role.WORKER, resources=held.resources,
            models_on_disk=tuple(
                _on_disk(model.on_disk) for _, model in sorted(local.items()) if model.on_disk is not None
            ),
            serving=served, engine_build=f"{build.kind} {build.version}" if build is not None else "",
        )  # fmt: skip
        return replace(new, version=old.version + 1) if new != old else old

    def _groups(self, local: dict[ModelId, LocalModel]) -> dict[ModelId, Group]:
        me = self._config.node
        return {model.id: Group(model=model.id, members=(me,), host=me) for model in local.values() if model.is_ready}


def _on_disk(spec: ModelSpec) -> DiskModel:
    return DiskModel(model=spec.id, digest=spec.digest, size_bytes=spec.size_bytes)


def _served(model: LocalModel) -> ServedModel:
    """Return what is announced of a model in memory; what changes with every request is left out here."""
    spec = model.spec
    said = ServedModel(
        model=model.id, digest="", state=ServingState.READY, slots=model.slots, context_tokens=model.context_tokens
    )
    if spec is None:
        return said
    return replace(
        said, digest=spec.digest, capabilities=tuple(sorted(spec.capabilities)), display_name=spec.display_name,
        architecture=spec.architecture.name, quantization=spec.quantization, parameters=spec.parameters,
        size_bytes=spec.size_bytes,
    )  # fmt: skip
