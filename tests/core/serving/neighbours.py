"""A core in a mesh that the test speaks for: stories about who serves what."""

import random
from dataclasses import replace

from meshllm.core import events as ev
from meshllm.core.announcement import Address, Announcement, DiskModel, Record, Role, ServedModel, ServingState
from meshllm.core.catalog import ModelSpec
from meshllm.core.effects import Notify, StartEngine
from meshllm.core.engines import EngineBuild, EngineFault
from meshllm.core.ids import ConnectionId, ModelId, NodeId
from meshllm.core.limits import GIB
from meshllm.core.members.times import wan
from meshllm.core.mesh import CoreConfig, MeshCore
from meshllm.core.messages import Delta, Push
from meshllm.core.resources import Resources
from meshllm.core.rights import OWN_MACHINE
from meshllm.core.serving.lifecycle import ServingPolicy
from tests.core.builders import A_BUILD, Story, a_machine, exited, ready

FILLS = ServingPolicy(fills_gaps=True)
PEER = NodeId("p" * 52)
ME = NodeId("m" * 52)


class Neighbourhood(Story):
    """A story of a node with neighbours: it is connected to `p`, who tells it of everybody."""

    __slots__ = ("versions",)

    def __init__(
        self, *specs: ModelSpec, policy: ServingPolicy = FILLS, machine: Resources | None = None,
        is_joining: bool = False, build: EngineBuild = A_BUILD, has_looked: bool = True,
    ) -> None:  # fmt: skip
        """Know its machine, its engine and its files, unless it has yet to look; hear of nobody yet."""
        config = CoreConfig(node=ME, name="m", serving=policy, times=wan(), is_joining=is_joining)
        super().__init__(MeshCore(config, 100.0, random.Random(1)))
        self.versions = 0
        if has_looked:
            self.tell(ev.ResourcesMeasured(resources=machine or a_machine()), ev.EngineProbed(build=build))
            self.tell(ev.InventoryChanged(models=specs))

    def meet(self, said: Announcement | None = None) -> None:
        """Be connected to `p`."""
        self.tell(
            ev.PeerConnected(
                peer=PEER, connection=ConnectionId(1), address=Address(host="p.test", port=1), is_dialled=False,
                rights=OWN_MACHINE, rtt_s=0.02,
            )
        )  # fmt: skip
        self.hear(said or a_node(PEER), first=True)

    def hear(self, *said: Announcement, first: bool = False) -> None:
        """Hear what nodes say by now, newer than whatever they said before."""
        self.versions += 1
        records = tuple(Record(announcement=replace(one, version=self.versions)) for one in said)
        message = Delta(records=records) if first else Push(records=records)
        self.tell(ev.MessageReceived(peer=PEER, connection=ConnectionId(1), message=message))

    def wait(self, for_s: float) -> None:
        """Let time pass; `p` gives a sign of life now and then, and every wake-up is kept."""
        end_s = self.now_s + for_s
        while self.now_s < end_s:
            due_s = self.core.next_wakeup_s()
            self.now_s = min(max(due_s if due_s is not None else end_s, self.now_s + 0.01), self.now_s + 1.0, end_s)
            self.tell(ev.MessageReceived(peer=PEER, connection=ConnectionId(1), message=Push(records=())))
            self.tell(ev.Woke())

    def wait_alone(self, for_s: float) -> None:
        """Let time pass without a word from anybody."""
        end_s = self.now_s + for_s
        while self.now_s < end_s:
            self.now_s = min(self.now_s + 0.1, end_s)
            self.tell(ev.Woke())

    def lose(self) -> None:
        """Have `p` die: nobody reaches it any more."""
        self.tell(ev.PeerLost(peer=PEER, connection=ConnectionId(1), code="timeout"))
        for _ in range(600):
            self.now_s += 0.1
            self.tell(ev.Woke())
            if self.core.view.members[PEER].state == "dead":
                return
        raise AssertionError("p does not die")

    def started(self) -> list[str]:
        """Return the models that were started so far, in order."""
        return [effect.plan.model.id for effect in self.of(StartEngine)]

    def serving(self) -> list[tuple[str, str]]:
        """Return what the node says that it serves, and how far each is."""
        return [(one.model, str(one.state)) for one in self.core.view.me.serving]

    def notes(self, message: str) -> list[dict[str, str | int | float]]:
        """Return the fields of all log lines of a kind."""
        return [dict(one.fields) for one in self.of(Notify) if one.message == message]

    def stop(self, model: str) -> None:
        """Let a draining engine end."""
        self.tell(ev.EngineDrained(model=ModelId(model)), exited(model, EngineFault.STOPPED))

    def run(self, model: str) -> None:
        """Let an engine that was started become ready."""
        self.tell(ready(model))


def a_node(name: str, *serving: ServedModel, disk: tuple[str, ...] = (), **changes: object) -> Announcement:
    """Return what another node says: one with 16 GiB that fills gaps."""
    said = Announcement(
        node=NodeId(name), name=name[:1], incarnation=1, version=0, role=Role.WORKER, rights=OWN_MACHINE,
        resources=a_machine(), serving=serving, fills_gaps=True, addresses=(Address(host=f"{name[:1]}.test", port=1),),
        models_on_disk=tuple(DiskModel(model=ModelId(one), digest=f"sha256:{one}", size_bytes=GIB) for one in disk),
    )  # fmt: skip
    return replace(said, **changes)


def a_served(model: str, state: ServingState = ServingState.READY, **changes: object) -> ServedModel:
    """Return a model that another node serves."""
    served = ServedModel(
        model=ModelId(model), digest=f"sha256:{model}", state=state, slots=4, context_tokens=8192, size_bytes=GIB
    )
    return replace(served, **changes)
