"""One model as the live members have it."""

from dataclasses import replace

from meshllm.core.announcement import DiskModel, RequestedModel, ServedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import Rights
from meshllm.core.serving.stock_entry import Entry, is_source, wished
from tests.core.members.builders import an_announcement

X = ModelId("x")
WISH = RequestedModel(name="q", model=X, size_bytes=10, repository="u/r", filename="sub/x.gguf")


def a_served(state: ServingState, **changes: object) -> ServedModel:
    """Return a model that a node serves."""
    return replace(ServedModel(model=X, digest="d", state=state, size_bytes=7), **changes)


def test_what_follows_from_what_members_say() -> None:
    """Who answers, who is about to, how much they can do, how many there should be."""
    entry = Entry(X)
    entry.serving = {
        NodeId("b"): a_served(ServingState.READY, slots=4, busy=3, queued=1),
        NodeId("a"): a_served(ServingState.READY, slots=2, busy=2),
        NodeId("c"): a_served(ServingState.CLAIMED), NodeId("d"): a_served(ServingState.DRAINING),
    }  # fmt: skip
    entry.wishes = {NodeId("e"): replace(WISH, min_warm=3), NodeId("f"): replace(WISH, min_replicas=2, min_warm=0)}

    assert entry.renew()

    assert (entry.ready, entry.hosts) == (("a", "b"), {"a", "b", "c"})
    assert (entry.floor, entry.min_warm, entry.size_bytes, entry.digests) == (3, 3, 10, {"d"})
    assert entry.load is not None
    assert (entry.load.slots, entry.load.busy, entry.load.queued) == (6, 5, 1)


def test_nothing_is_left_of_a_model_that_nobody_speaks_of() -> None:
    """A memory of where its file was keeps nothing alive."""
    entry = Entry(X)
    entry.remembered = WISH

    assert not entry.renew()
    entry.waiting.add(NodeId("a"))
    assert entry.renew()


def test_the_word_of_a_living_member_goes_before_that_of_a_dead_one() -> None:
    """It may have moved."""
    entry = Entry(X)
    entry.remembered = replace(WISH, repository="old/r")
    entry.renew()
    before = entry.reference

    entry.sources[NodeId("a")] = WISH
    entry.renew()

    assert before is not None
    assert entry.reference is not None
    assert (before.repository, entry.reference.repository) == ("old/r", "u/r")


def test_a_wish_is_a_source_only_from_somebody_who_may_host() -> None:
    """Others could have everybody fetch anything."""
    assert is_source(WISH, an_announcement("a"))
    assert not is_source(WISH, an_announcement("a", rights=Rights.INFER))


def test_a_wish_that_nobody_has_resolved_is_for_what_it_says() -> None:
    """Perhaps somebody has a file of that name."""
    assert wished(WISH) == "x"
    assert wished(RequestedModel(name="q")) == "q"


def test_a_file_that_only_members_have_is_fetched_for_those_who_want_it() -> None:
    """Never because it merely lies there."""
    entry = Entry(X)
    node = NodeId("a")
    entry.files = {node: DiskModel(model=X, digest="sha256:" + "a" * 64, size_bytes=7)}
    entry.givers = {node: Rights.HOST}
    entry.renew()
    lying = entry.reference

    entry.wishes = {NodeId("b"): RequestedModel(name="x", model=X)}
    entry.renew()

    assert lying is None
    assert entry.reference is not None
    assert (entry.reference.repository, entry.reference.sha256) == ("", "a" * 64)
