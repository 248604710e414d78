"""Servers of a simulated node, and the engines that use them."""

from collections.abc import Callable

import pytest

from meshllm.core import effects as do
from meshllm.core import events as ev
from meshllm.core.events import Event
from meshllm.core.ids import ModelId, NodeId
from meshllm.testing.sim_lending import SimLending

BIG, HOST = ModelId("big"), NodeId("h")
ORDER = do.Lend(
    model=BIG, digest="", epoch=2, host=HOST, first_layer=0, layers=3, memory_bytes=7, threads=1
)  # fmt: skip


class Lent:
    """What one node lends, with what is due and what was said."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.said: list[Event] = []
        self.lending = SimLending(lambda _, call: self.due.append(call), self.said.append)

    def pass_time(self) -> None:
        """Let happen what is due."""
        due, self.due = self.due, []
        for call in due:
            call()


def test_a_server_is_used_by_its_host_alone_and_from_when_it_listens() -> None:
    """In its epoch."""
    lent, lost = Lent(), []
    lent.lending.lend(ORDER)
    early = lent.lending.use(BIG, 2, HOST, lambda: lost.append(1))
    lent.pass_time()

    assert not early
    assert lent.said == [ev.LendingReady(model=BIG, epoch=2)]
    assert not lent.lending.use(BIG, 3, HOST, lambda: None)
    assert not lent.lending.use(BIG, 2, NodeId("x"), lambda: None)
    assert lent.lending.use(BIG, 2, HOST, lambda: lost.append(1))
    assert lent.lending.loaded == {BIG}
    assert lent.lending.kill(BIG)
    assert (lost, lent.lending.loaded, lent.lending.servers) == ([1], frozenset(), {})
    assert lent.said[-1] == ev.LendingEnded(model=BIG, epoch=2, message="it was killed")
    assert not lent.lending.kill(BIG)


def test_a_server_that_is_told_to_end_takes_its_users_with_it() -> None:
    """And is gone a moment later; one that never listened too."""
    lent, lost = Lent(), []
    lent.lending.lend(ORDER)
    lent.lending.stop(do.EndLending(model=BIG, epoch=2))
    lent.pass_time()

    assert lent.said == [ev.LendingReady(model=BIG, epoch=2), ev.LendingEnded(model=BIG, epoch=2)]
    lent.lending.lend(ORDER)
    lent.pass_time()
    lent.lending.use(BIG, 2, HOST, lambda: lost.append(1))
    lent.lending.end()
    assert lost == [1]


def test_orders_that_a_node_never_gives_are_mistakes() -> None:
    """Of whatever is simulated."""
    lent = Lent()
    lent.lending.lend(ORDER)

    with pytest.raises(AssertionError, match="while its server runs"):
        lent.lending.lend(ORDER)
    with pytest.raises(AssertionError, match="not lent in epoch 3"):
        lent.lending.stop(do.EndLending(model=BIG, epoch=3))
