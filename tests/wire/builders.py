"""Values for tests of wire and transport."""

from dataclasses import replace

from meshllm.core.announcement import (
    Address,
    Announcement,
    DefaultChoice,
    DiskModel,
    LentMemory,
    ModelOrder,
    NamedModel,
    RequestedModel,
    Role,
    ServedModel,
    ServingState,
    SharedModel,
    SharedPart,
)
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.quota_config import QuotaChoice, Quotas
from meshllm.core.quota_use import QuotaUse, Spent
from meshllm.core.resources import Gpu, Resources, Usable
from meshllm.core.rights import Rights
from meshllm.core.routing_config import Rollout, RoutingChoice, RoutingConfig, ScoreWeights, Shadow, Strategy

ROUTED = RoutingConfig(
    strategy=Strategy.RANDOM, weights=(("m", 2.0),), shadow=(Shadow(of="m", to="n", sample=0.5),),
    ab_test_model_a="m", rollout=Rollout(of="m", to="n", steps=((0.1, 60.0), (1.0, 0.0))),
    score_weights=ScoreWeights(cache=1.0),
)  # fmt: skip
NODE = NodeId("a" * 52)
OTHER = NodeId("b" * 52)


def announcement(**changes: object) -> Announcement:
    """Return an announcement with something in every field."""
    full = Announcement(
        node=NODE, name="studio", incarnation=3, version=17, role=Role.HOST,
        resources=Resources(
            cores=8, memory_total_bytes=64 << 30, memory_free_bytes=20 << 30, container_limited=True,
            gpus=(Gpu(index=0, name="RTX 4090", total_bytes=24 << 30, free_bytes=20 << 30, driver="570.1"),),
        ),
        usable=Usable(memory_bytes=57 << 30, gpu_bytes=21 << 30), rights=Rights.INFER | Rights.HOST,
        bulk_port=4000, addresses=(Address("192.0.2.7", 4000), Address("2001:db8::7", 4000)),
        models_on_disk=(DiskModel(model=ModelId("m"), digest="sha256:" + "0" * 64, size_bytes=1 << 30),),
        serving=(
            ServedModel(
                model=ModelId("m"), digest="sha256:" + "0" * 64, state=ServingState.READY, slots=4, busy=1, queued=2,
                context_tokens=8192, capabilities=("chat", "tools"), display_name="M", architecture="llama",
                quantization="Q4_K_M", parameters=3_000_000_000, size_bytes=1 << 30, hit_rate=0.5,
                trouble="slow", file_integrity="ok", memory="ok", response_time_s=0.5, error_rate=0.25,
                shared=SharedModel(
                    epoch=2,
                    parts=(
                        SharedPart(node=OTHER, layers=3, memory_bytes=5),
                        SharedPart(node=NODE, layers=1, memory_bytes=7),
                    ),
                ),
            ),
        ),
        requested=(
            RequestedModel(
                name="m", model=ModelId("m"), size_bytes=1 << 30, digest="sha256:" + "0" * 64, repository="u/m",
                filename="m.gguf", sha256="0" * 64, package="m==1", min_replicas=2, min_warm=1,
            ),
        ),
        waiting=(ModelId("cold"),), names=(NamedModel(name="n", model=ModelId("m"), version="1.0.0"),),
        orders=(ModelOrder(model=ModelId("m"), verb=Verb.UNLOAD, version=3, author=NODE, hold=True),),
        default=DefaultChoice(model=ModelId("m"), version=4, author=NODE),
        routing=RoutingChoice(config=ROUTED, version=5, author=NODE), uses=(("m", 7),),
        quotas=(QuotaChoice(model=ModelId("m"), quotas=Quotas(max_ssd_gb=0.5), version=6, author=NODE),),
        quota_uses=(QuotaUse(model=ModelId("m"), hour=Spent(3600, 5, 1), day=Spent(0, 9, 2)),), fills_gaps=True,
        downloads=True, is_controllable=False, demand=(("m", 1.5),),
        load=0.25, engine_build="xllamacpp 1", rpc_version="3.0",
        lends=(LentMemory(model=ModelId("big"), host=OTHER, epoch=4, memory_bytes=9, is_loaded=True),),
        unshared=((ModelId("huge"), "too little memory"),), left=True,
    )  # fmt: skip
    return replace(full, **changes)
