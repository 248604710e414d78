"""What people are told of a split that runs, or would."""

from dataclasses import replace
from types import MappingProxyType

from meshllm.core.announcement import DiskModel, ServedModel, ServingState, SharedModel, SharedPart
from meshllm.core.engines import EngineState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB
from meshllm.core.resources import MemoryLimit, Usable
from meshllm.core.rights import OWN_MACHINE, Rights
from meshllm.core.serving.capacity import EngineWishes
from meshllm.core.serving.splits.forecast import SplitForecast, foresee_split, shown, told
from meshllm.core.view import ColdModel, Member, MeshView
from tests.core.builders import a_machine, a_member, a_spec, a_story

BIG = ModelId("big")
DISK = (DiskModel(model=BIG, digest="sha256:big", size_bytes=12 * GIB),)
BUILD = {"engine_build": "llama-server 1.0", "rpc_version": "7.0.0 b1", "bulk_port": 4000}


def a_node(name: str, memory: int = 12, **changes: object) -> Member:
    """Return another node with so many GiB, near, that could share a model."""
    found = a_member(name, rights=OWN_MACHINE, rtt_s=0.001)
    said = replace(found.announcement, resources=a_machine(memory_bytes=memory * GIB), **{**BUILD, **changes})
    return replace(found, announcement=said)


def a_view(*others: Member, size_gib: int = 12, has_rpc: bool = True, memory: int = 12, limit: str = "90%") -> MeshView:
    """Return the view of a node of 12 GiB that has the file of `big`, with others around it."""
    story = a_story(
        a_spec("big", size_bytes=size_gib * GIB), machine=a_machine(memory_bytes=memory * GIB),
        wishes=EngineWishes(max_memory=MemoryLimit.parse(limit)),
    )  # fmt: skip
    view = story.core.view
    own = view.members[view.me.node]
    me = replace(own.announcement, **BUILD) if has_rpc else own.announcement
    known = {me.node: replace(own, announcement=me), **{one.announcement.node: one for one in others}}
    return replace(view, me=me, members=MappingProxyType(known))


def look(view: MeshView) -> SplitForecast:
    """Return what is foreseen where something has to be."""
    found = foresee_split(view, BIG)
    assert found is not None
    return found


def document(view: MeshView) -> dict[str, object]:
    """Return the document of it."""
    return shown(look(view))


def test_a_model_that_fits_nowhere_would_be_shared() -> None:
    """With everybody's part."""
    found = document(a_view(a_node("attic")))

    assert (found["runs"], found["possible"], found["supposing"], found["nodes"]) == (False, True, None, [])
    assert found["message"] == (
        "would be split over attic and a, its host, for whoever asks: it fits on no node alone; a has the file, and "
        "1 other node lends what it lacks"
    )
    shares = found["shares"]
    assert isinstance(shares, list)
    assert [(one["node"], one["is_host"], one["rtt_s"]) for one in shares] == [
        ("attic", False, 0.001), ("a", True, None)
    ]  # fmt: skip
    assert sum(one["layers"] for one in shares) == 30
    assert (found["token_bytes"], found["token_wait_s"], found["context_tokens"]) == (4608, 0.001, 4096)


def test_a_limit_counts_not_the_machine() -> None:
    """Two that give less than the model takes share it, whatever they have."""
    attic = a_node("attic", memory=64, usable=Usable(memory_bytes=12 * GIB))

    assert document(a_view(attic))["possible"] is True
    assert document(a_view(attic, memory=64, limit="11GiB"))["possible"] is True
    assert foresee_split(a_view(attic, memory=64), BIG) is None


def test_what_is_in_the_way_is_said_of_every_node() -> None:
    """With what would help."""
    found = document(a_view(a_node("attic", rights=OWN_MACHINE & ~Rights.RPC), a_node("cellar", memory=1)))

    assert (found["possible"], found["shares"], found["host"]) == (False, [], None)
    assert str(found["message"]).startswith("no split: ")
    nodes = found["nodes"]
    assert isinstance(nodes, list)
    assert {one["node"]: one["lack"] for one in nodes} == {
        "a": "not_enough", "attic": "no_right", "cellar": "not_enough"
    }  # fmt: skip
    assert [one["help"] is None for one in nodes] == [True, False, True]


def test_engines_that_cannot_share_are_said_with_what_would_be_without_that() -> None:
    """As on every node of this version."""
    found = document(a_view(a_node("attic", rpc_version=""), has_rpc=False))

    assert found["possible"] is False
    assert found["supposing"] == "every node had the same engine, one that can share models"
    assert isinstance(found["shares"], list)
    assert len(found["shares"]) == 2
    nodes = found["nodes"]
    assert isinstance(nodes, list)
    assert {one["lack"] for one in nodes} == {"no_rpc"}


def test_where_more_is_missing_than_engines_nothing_is_supposed() -> None:
    """There would be no plan with others either."""
    found = look(a_view(a_node("attic", memory=1, rpc_version=""), has_rpc=False))

    assert found.supposed is None


def test_nothing_is_said_of_a_model_that_fits_or_is_served_or_is_unknown() -> None:
    """A split is for what no node holds alone."""
    loading = ServedModel(model=BIG, digest="sha256:big", state=ServingState.LOADING)

    assert foresee_split(a_view(a_node("attic"), size_gib=6), BIG) is None
    assert foresee_split(a_view(a_node("attic", memory=64)), BIG) is None
    assert foresee_split(a_view(a_node("attic", serving=(loading,))), BIG) is None
    assert foresee_split(a_view(), ModelId("nothing")) is None
    assert told(a_view(), ModelId("nothing")) is None


def test_a_node_without_an_engine_goes_by_what_is_announced() -> None:
    """It has no arithmetic of its own then."""
    without = replace(a_view(a_node("attic")), engine_build=None)
    small = replace(a_view(a_node("attic"), size_gib=6), engine_build=None)

    assert foresee_split(without, BIG) is not None
    assert foresee_split(small, BIG) is None


def test_nothing_is_said_of_a_model_that_is_loaded_here() -> None:
    """Whatever the arithmetic makes of it."""
    view = a_view(a_node("attic"))
    loaded = replace(view.local[BIG], state=EngineState.READY)

    assert foresee_split(view, BIG) is not None
    assert foresee_split(replace(view, local=MappingProxyType({BIG: loaded})), BIG) is None


def test_a_model_of_another_node_s_disk_is_asked_about_there() -> None:
    """This node knows the size of the file and not its layers."""
    other = a_node("attic", models_on_disk=(DiskModel(model=ModelId("far"), digest="sha256:far", size_bytes=60 * GIB),))
    far = ModelId("far")
    cold = MappingProxyType({
        far: ColdModel(model=far, nodes=(other.announcement.node,), digest="sha256:far", size_bytes=60 * GIB)
    })  # fmt: skip

    found = foresee_split(replace(a_view(other), cold=cold), far)

    assert found is not None
    assert "mesh-llm plan far on attic says more" in str((shown(found) or {})["message"])
    small = MappingProxyType({far: replace(cold[far], size_bytes=GIB)})
    assert foresee_split(replace(a_view(other), cold=small), far) is None
    unsized = MappingProxyType({far: replace(cold[far], size_bytes=0)})
    assert foresee_split(replace(a_view(other), cold=unsized), far) is None


def test_a_split_that_runs_is_shown_with_everybody_s_part() -> None:
    """At whichever node; who is not known by name any more is known by its id."""
    attic, cellar = a_node("attic"), a_node("cellar")
    nodes = (attic.announcement.node, NodeId("gone"), cellar.announcement.node)
    layers = zip(nodes, (20, 10, 2), strict=True)
    parts = tuple(SharedPart(node=node, layers=count, memory_bytes=7) for node, count in layers)
    shared = SharedModel(epoch=3, parts=parts)
    served = ServedModel(model=BIG, digest="", state=ServingState.READY, context_tokens=4096, shared=shared)
    view = a_view(attic, a_node("cellar", serving=(served,)))

    found = told(view, BIG)

    assert found is not None
    assert found["message"] == "shared by attic, gone and cellar, its host; ready in epoch 3"
    assert (found["runs"], found["host"], found["epoch"], found["state"]) == (True, nodes[2], 3, "ready")
    shares = found["shares"]
    assert isinstance(shares, list)
    assert [(one["node"], one["first_layer"], one["layers"], one["is_host"]) for one in shares] == [
        ("attic", 0, 20, False), ("gone", 20, 10, False), ("cellar", 30, 2, True)
    ]  # fmt: skip
