"""Machines that may share a model, and a model that none of them holds alone."""

from dataclasses import replace

from meshllm.core.announcement import Announcement, DiskModel
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB, MIB
from meshllm.core.serving.splits.lenders import Conditions, Lender
from meshllm.core.serving.splits.model import SplitModel
from meshllm.core.serving.splits.plan import SplitPlan, SplitQuestion, plan_split
from tests.core.builders import a_machine
from tests.core.members.builders import an_announcement

BIG = ModelId("big")
BUILD = "llama-server 1.0"
ON_DISK = (DiskModel(model=BIG, digest="sha256:big", size_bytes=20 * GIB),)


def a_big(**changes: object) -> SplitModel:
    """Return a model of 40 layers of half a GiB; the host needs a GiB beside its layers, a worker a quarter."""
    model = SplitModel(
        model=BIG, digest="sha256:big", size_bytes=20 * GIB, layers=40, layer_bytes=GIB // 2,
        worker_beside_bytes=256 * MIB, host_beside_bytes=GIB, context_tokens=4096, hop_bytes=4096,
    )  # fmt: skip
    return replace(model, **changes)


def a_lender(
    name: str, free_bytes: int, *, has_file: bool = False, rtt_s: float | None = 0.001, is_silent: bool = False,
    **changes: object,
) -> Lender:  # fmt: skip
    """Return a node with so much free; nobody of them could hold the model alone unless that much is a lot."""
    said: dict[str, object] = {
        "resources": a_machine(memory_bytes=int(free_bytes / 0.9) + 1), "engine_build": BUILD,
        "rpc_version": "7.0.0 b1", "bulk_port": 4000,
        "models_on_disk": ON_DISK if has_file else (), **changes,
    }  # fmt: skip
    return Lender(an_announcement(name, **said), rtt_s, is_silent)


def saying(lender: Lender, **changes: object) -> Lender:
    """Return a node that says something else of itself."""
    said: Announcement = replace(lender.said, **changes)
    return replace(lender, said=said)


def a_question(*lenders: Lender, me: str = "a", model: SplitModel | None = None, **changes: object) -> SplitQuestion:
    """Return the question how these would share the model."""
    question = SplitQuestion(
        model=a_big() if model is None else model, lenders=lenders, conditions=Conditions(me=NodeId(me))
    )
    return replace(question, **changes)


def planned(question: SplitQuestion) -> SplitPlan:
    """Return the plan, where there has to be one."""
    found = plan_split(question)
    assert isinstance(found, SplitPlan), found
    return found


def counts(plan: SplitPlan) -> list[tuple[str, int]]:
    """Return (node, layers) in the order of the devices."""
    return [(share.node, share.layers) for share in plan.shares]
