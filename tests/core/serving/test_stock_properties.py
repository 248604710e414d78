"""What follows from members' statements is the same, however it came about."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.announcement import Announcement, DiskModel, ModelOrder, RequestedModel, ServedModel, ServingState
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.intents import Verb
from meshllm.core.serving.stock import Stock
from tests.core.builders import a_machine
from tests.core.members.builders import an_announcement

NODES, MODELS, DIGESTS = "abc", [ModelId("x"), ModelId("y"), ModelId("z")], ["", "d", "e"]
models, digests = st.sampled_from(MODELS), st.sampled_from(DIGESTS)
files = st.builds(DiskModel, model=models, digest=digests, size_bytes=st.integers(1, 3))
served = st.builds(
    ServedModel, model=models, digest=digests, state=st.sampled_from(ServingState), busy=st.integers(0, 1),
    order=st.integers(0, 2),
)  # fmt: skip
wishes = st.builds(RequestedModel, name=models, model=models, min_replicas=st.integers(0, 2))


def one_each(what: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    """Return some of these, one for each model."""
    return st.lists(what, max_size=2, unique_by=lambda one: one.model).map(tuple)  # type: ignore[attr-defined]


statements = st.builds(
    an_announcement, st.sampled_from(NODES), resources=st.just(a_machine()), models_on_disk=one_each(files),
    serving=one_each(served), requested=one_each(wishes), waiting=st.lists(models, max_size=1).map(tuple),
)  # fmt: skip
steps = st.one_of(statements, st.sampled_from(NODES))
"""A member says something, or goes."""
circumstances = st.tuples(
    st.dictionaries(models, st.floats(0, 9), max_size=2), st.frozensets(models, max_size=1),
    st.sets(models, max_size=1),
)  # fmt: skip
"""Demand, hot models, and those that somebody ordered to be unloaded."""


def ordered_out(names: set[ModelId]) -> Callable[[ModelId], ModelOrder | None]:
    """Return the newest orders about models: some are unloaded."""
    made = {name: ModelOrder(model=name, verb=Verb.UNLOAD, version=1, author=NodeId("a")) for name in names}
    return made.get


@given(st.lists(st.tuples(steps, circumstances), max_size=12))
def test_needs_that_were_kept_are_those_that_would_be_made(
    story: list[tuple[Announcement | str, tuple[dict[ModelId, float], frozenset[ModelId], set[ModelId]]]],
) -> None:
    """Only what members spoke of is made anew, with everything that shares a file with it."""
    stock = Stock()
    said: dict[str, Announcement] = {}
    for step, (demand, hot, out) in story:
        if isinstance(step, str):
            said.pop(step, None)
            stock.remove(NodeId(step))
        else:
            said[step.node] = step
            stock.put(step)
        anew = Stock()
        for one in said.values():
            anew.put(one)

        kept = stock.needs(ordered_out(out), demand, hot, least_bytes=2)
        made = anew.needs(ordered_out(out), demand, hot, least_bytes=2)

        assert {need.model: need for need in kept} == {need.model: need for need in made}
        assert {model: stock.has_host(model) for model in stock.entries} == {
            model: bool(entry.hosts) for model, entry in stock.entries.items()
        }
