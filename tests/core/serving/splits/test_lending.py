"""What a node lends to hosts of models that it holds a part of: told as stories of a worker."""

from dataclasses import replace

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import Address, Announcement, ServedModel, ServingState, SharedModel, SharedPart
from meshllm.core.effects import EndLending, Leave, Lend, Send
from meshllm.core.engines import RpcBuild
from meshllm.core.ids import ConnectionId, ModelId, NodeId
from meshllm.core.limits import GIB
from meshllm.core.messages import Message, SplitAnswer, SplitEnded, SplitOffer, SplitRelease
from meshllm.core.rights import GUEST, OWN_MACHINE, Rights
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.split_limits import SPLIT_FENCES, SPLIT_FORGOTTEN_S
from tests.core.builders import A_BUILD, a_machine, a_spec
from tests.core.serving.neighbours import ME, PEER, Neighbourhood, a_node

BIG = ModelId("big")
BUILD = replace(A_BUILD, rpc=RpcBuild(version="7.0.0 b1", server="/bin/llama-server", worker="/bin/ggml-rpc-server"))
OFFER = SplitOffer(model=BIG, digest="sha256:big", epoch=3, first_layer=0, layers=12, memory_bytes=4 * GIB)


def a_worker(rights: Rights = OWN_MACHINE, *, has_files: bool = True) -> Neighbourhood:
    """Return the story of a node of 16 GiB that a host is connected to."""
    specs = (a_spec("big"), a_spec("other")) if has_files else ()
    story = Neighbourhood(*specs, policy=ServingPolicy(), build=BUILD)
    story.tell(
        ev.PeerConnected(
            peer=PEER, connection=ConnectionId(1), address=Address(host="p.test", port=1), is_dialled=False,
            rights=rights, rtt_s=0.001,
        )
    )  # fmt: skip
    story.hear(a_host(0), first=True)
    story.effects.clear()
    return story


def a_host(epoch: int, state: ServingState = ServingState.CLAIMED) -> Announcement:
    """Return what the host says: that it shares `big` in an epoch, or nothing of it."""
    if not epoch:
        return a_node(PEER)
    parts = (SharedPart(node=ME, layers=12, memory_bytes=4 * GIB), SharedPart(node=PEER, layers=18, memory_bytes=1))
    shared = SharedModel(epoch=epoch, parts=parts)
    return a_node(PEER, ServedModel(model=BIG, digest="sha256:big", state=state, shared=shared))


def hear(story: Neighbourhood, message: Message) -> None:
    """Let the host say something."""
    story.tell(ev.MessageReceived(peer=PEER, connection=ConnectionId(1), message=message))


def said(story: Neighbourhood) -> list[Message]:
    """Return what was said to the host about splits."""
    kinds = (SplitAnswer, SplitEnded)
    return [one.message for one in story.of(Send) if isinstance(one.message, kinds)]


def lending(epoch: int = 3, *, has_files: bool = True) -> Neighbourhood:
    """Return a story in which the server for an epoch listens."""
    story = a_worker(has_files=has_files)
    hear(story, replace(OFFER, epoch=epoch))
    story.tell(ev.LendingReady(model=BIG, epoch=epoch))
    return story


def test_who_is_asked_starts_a_server_and_then_agrees() -> None:
    """With its own copy of the file, which spares the network."""
    story = a_worker()
    hear(story, OFFER)
    before = said(story)
    story.tell(ev.LendingReady(model=BIG, epoch=3))

    (lend,) = story.of(Lend)
    assert (lend.model, lend.epoch, lend.host, lend.layers, lend.path) == (BIG, 3, PEER, 12, "/models/big.gguf")
    assert before == []
    assert said(story) == [SplitAnswer(model=BIG, epoch=3, highest=3)]
    assert [(one.model, one.epoch, one.memory_bytes) for one in story.core.view.me.lends] == [(BIG, 3, 4 * GIB)]


def test_another_file_of_the_name_is_no_help() -> None:
    """Nor is one whose content is not known."""
    story = a_worker()
    hear(story, replace(OFFER, digest="sha256:" + "0" * 64))

    assert story.of(Lend)[0].path == ""


def test_what_is_lent_is_not_there_for_models() -> None:
    """And neither is lent twice."""
    story = lending()
    hear(story, replace(OFFER, model=ModelId("second"), memory_bytes=12 * GIB))

    (_, refused) = said(story)
    assert isinstance(refused, SplitAnswer)
    assert "12.9 GB are asked for" in refused.refusal
    assert len(story.of(Lend)) == 1


@pytest.mark.parametrize(
    ("rights", "words"), [(GUEST, "no right to borrow"), (OWN_MACHINE & ~Rights.RPC, "no right to borrow")]
)
def test_a_peer_without_the_right_gets_nothing(rights: Rights, words: str) -> None:
    """Whatever it offers."""
    story = a_worker(rights)
    hear(story, OFFER)

    (refused,) = said(story)
    assert isinstance(refused, SplitAnswer)
    assert words in refused.refusal
    assert story.of(Lend) == []


def test_a_node_without_the_engine_for_it_says_so() -> None:
    """It might have been built since, or taken away."""
    story = a_worker()
    story.tell(ev.EngineProbed(build=A_BUILD))
    hear(story, OFFER)

    assert "cannot share" in str(said(story))
    assert story.of(Lend) == []


def test_an_epoch_never_comes_twice_nor_an_earlier_one() -> None:
    """The fence outlives the server; the host is told the highest, and goes above it."""
    story = lending(epoch=5)
    hear(story, replace(OFFER, epoch=4))
    hear(story, SplitRelease(model=BIG, epoch=5))
    story.tell(ev.LendingEnded(model=BIG, epoch=5))
    hear(story, replace(OFFER, epoch=5))
    hear(story, replace(OFFER, epoch=6))

    refused = [one for one in said(story) if isinstance(one, SplitAnswer) and one.refusal]
    assert [(one.epoch, one.highest) for one in refused] == [(4, 5), (5, 5)]
    assert [one.epoch for one in story.of(Lend)] == [5, 6]


def test_a_later_epoch_waits_for_the_end_of_the_earlier_server() -> None:
    """One server a model at a time."""
    story = lending()
    hear(story, replace(OFFER, epoch=4))
    before = [one.epoch for one in story.of(Lend)]
    story.tell(ev.LendingEnded(model=BIG, epoch=3))

    assert before == [3]
    assert [one.epoch for one in story.of(EndLending)] == [3]
    assert [one.epoch for one in story.of(Lend)] == [3, 4]


def test_an_offer_that_is_taken_back_meanwhile_starts_nothing() -> None:
    """The host went on with others."""
    story = lending()
    hear(story, replace(OFFER, epoch=4))
    hear(story, SplitRelease(model=BIG, epoch=4))
    story.tell(ev.LendingEnded(model=BIG, epoch=3))

    assert [one.epoch for one in story.of(Lend)] == [3]
    assert story.core.view.me.lends == ()


def test_asked_twice_it_answers_twice_and_starts_once() -> None:
    """An answer may have been lost."""
    story = lending()
    hear(story, OFFER)

    assert said(story) == [SplitAnswer(model=BIG, epoch=3, highest=3)] * 2
    assert len(story.of(Lend)) == 1


def test_a_server_that_ends_by_itself_is_told_to_its_host() -> None:
    """In words; its memory is there again."""
    story = lending()
    story.tell(ev.LendingEnded(model=BIG, epoch=3, message="it was killed"))

    assert said(story)[-1] == SplitEnded(model=BIG, epoch=3, reason="it was killed")
    assert story.core.view.me.lends == ()


def test_late_words_of_servers_and_strangers_mean_nothing() -> None:
    """Of another epoch, another model, another host."""
    story = lending()
    before = story.core.view.me.lends
    story.tell(ev.LendingEnded(model=BIG, epoch=2), ev.LendingReady(model=ModelId("x"), epoch=1))
    hear(story, SplitRelease(model=BIG, epoch=2))
    hear(story, SplitRelease(model=ModelId("x"), epoch=3))

    assert story.core.view.me.lends == before
    assert story.of(EndLending) == []


def test_a_host_that_died_needs_nothing_any_more() -> None:
    """As soon as it counts as dead."""
    story = lending()
    story.lose()

    assert [one.epoch for one in story.of(EndLending)] == [3]


def test_a_host_that_has_forgotten_it_or_went_on_loses_it() -> None:
    """It was started anew, say. One that speaks of it keeps it for as long as it likes."""
    kept, forgotten, moved = lending(), lending(), lending()
    kept.hear(a_host(3))
    kept.wait(SPLIT_FORGOTTEN_S * 2)
    forgotten.wait(SPLIT_FORGOTTEN_S + 1.0)
    moved.hear(a_host(4))
    moved.wait(1.0)

    assert kept.of(EndLending) == []
    assert [one.epoch for one in forgotten.of(EndLending)] == [3]
    assert [one.epoch for one in moved.of(EndLending)] == [3]


def test_a_host_that_began_anew_and_shares_it_with_others_loses_it() -> None:
    """Its epochs have the same numbers again."""
    story = lending()
    story.hear(a_host(3, ServingState.READY))
    parts = (SharedPart(node=NodeId("q"), layers=12, memory_bytes=1), SharedPart(node=PEER, layers=18, memory_bytes=1))
    served = ServedModel(
        model=BIG, digest="sha256:big", state=ServingState.READY, shared=SharedModel(epoch=3, parts=parts)
    )
    story.hear(replace(a_node(PEER, served), incarnation=2))

    assert [one.epoch for one in story.of(EndLending)] == [3]
    assert "shares it with others" in str(story.notes("taking back what was lent"))


def test_a_host_that_began_anew_does_not_get_what_it_was_lent_before() -> None:
    """Another plan under a number that was agreed to: the next one follows it."""
    story = lending()
    hear(story, replace(OFFER, memory_bytes=5 * GIB))
    refused = said(story)[-1]
    hear(story, replace(OFFER, memory_bytes=5 * GIB, epoch=4))

    assert isinstance(refused, SplitAnswer)
    assert (refused.refusal, refused.highest) == ("it agreed to something else in epoch 3", 3)
    assert [one.epoch for one in story.of(EndLending)] == [3]


def test_what_is_loaded_and_measured_counts_once() -> None:
    """Before, what is measured free does not show it."""
    story = lending()
    story.hear(a_host(3, ServingState.READY))
    loaded = story.core.view.me.lends[0].is_loaded
    story.tell(ev.ResourcesMeasured(resources=a_machine(free_bytes=12 * GIB)))

    assert not loaded
    assert story.core.view.me.lends[0].is_loaded


def test_a_node_that_leaves_takes_back_what_it_lent_before_it_goes() -> None:
    """And tells the host, which plans anew."""
    story = lending(has_files=False)
    story.tell(ev.LeaveRequested(reason="asked to"))
    early = story.of(Leave)
    story.tell(ev.LendingEnded(model=BIG, epoch=3))
    hear(story, replace(OFFER, epoch=4))

    assert early == []
    assert story.of(Leave) != []
    assert isinstance(said(story)[1], SplitEnded)
    assert len(story.of(Lend)) == 1


def test_fences_are_bounded() -> None:
    """A host that asks about ever new models fills nothing."""
    story = a_worker()
    for number in range(SPLIT_FENCES + 20):
        model = ModelId(f"m{number}")
        hear(story, replace(OFFER, model=model, epoch=1, memory_bytes=1))
        story.tell(ev.LendingReady(model=model, epoch=1))
        hear(story, SplitRelease(model=model, epoch=1))
        story.tell(ev.LendingEnded(model=model, epoch=1))
    hear(story, replace(OFFER, model=ModelId("m0"), epoch=1, memory_bytes=1))

    assert story.core.view.me.lends[0].model == "m0"
