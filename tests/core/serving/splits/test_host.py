"""When a node shares a model that no node holds alone: told as stories of its host."""

from dataclasses import replace

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import (
    Address,
    Announcement,
    DiskModel,
    LentMemory,
    RequestedModel,
    ServedModel,
    ServingState,
    SharedModel,
    SharedPart,
)
from meshllm.core.effects import Send, StartEngine, StopEngine
from meshllm.core.engines import EngineFault, EngineState, RpcBuild
from meshllm.core.ids import ConnectionId, ModelId
from meshllm.core.intents import Verb
from meshllm.core.limits import ENGINE_BACKOFF_MAX_S, ENGINE_LOAD_FAILURES_MAX, GIB
from meshllm.core.messages import Message, SplitAnswer, SplitEnded, SplitOffer, SplitRelease
from meshllm.core.rights import OWN_MACHINE
from meshllm.core.routing.plan_routes import plan_routes
from meshllm.core.routing.routes import RouteRequest, Wait
from meshllm.core.serving.lifecycle import ServingPolicy
from meshllm.core.split_limits import (
    SPLIT_AGREE_S,
    SPLIT_ASK_S,
    SPLIT_EPOCH_MOST,
    SPLIT_LOOK_S,
    SPLIT_RETRY_MOST_S,
    SPLIT_RETRY_S,
    SPLIT_SETTLE_S,
)
from tests.core.builders import A_BUILD, a_machine, a_spec, exited
from tests.core.serving.neighbours import FILLS, ME, PEER, Neighbourhood, a_node

BIG = ModelId("big")
VERSION = "7.0.0 b1"
BUILD = replace(A_BUILD, rpc=RpcBuild(version=VERSION, server="/bin/llama-server", worker="/bin/ggml-rpc-server"))
WANTS = (RequestedModel(name="big", model=BIG),)
SERVES = ServingPolicy(requested=("big",))
FITS_NOWHERE = 15 * GIB


def a_worker(**changes: object) -> Announcement:
    """Return what `p` says: 16 GiB that it lends, and nothing on its disk."""
    return replace(a_node(PEER, rpc_version=VERSION, engine_build="fake 1", bulk_port=4000), **changes)


def a_host(policy: ServingPolicy = SERVES, size_bytes: int = FITS_NOWHERE) -> Neighbourhood:
    """Return the story of a node that has a model too large for it, and has met one that lends."""
    story = by_itself(policy, size_bytes)
    story.meet(a_worker())
    return story


def by_itself(policy: ServingPolicy = SERVES, size_bytes: int = FITS_NOWHERE) -> Neighbourhood:
    """Return the story of a node that has a model, an engine that can share it, and met nobody."""
    story = Neighbourhood(a_spec("big", size_bytes=size_bytes), policy=policy, build=BUILD, is_joining=True)
    story.tell(ev.OwnAddressesChanged(addresses=(), bulk_port=4000))
    return story


def said(story: Neighbourhood, kind: type[Message]) -> list[Message]:
    """Return what was said to `p` of a kind, in order."""
    return [one.message for one in story.of(Send) if isinstance(one.message, kind)]


def answer(story: Neighbourhood, message: Message) -> None:
    """Let `p` say something."""
    story.tell(ev.MessageReceived(peer=PEER, connection=ConnectionId(1), message=message))


def shared(policy: ServingPolicy = SERVES) -> Neighbourhood:
    """Return a story in which the model is shared, and loading."""
    story = a_host(policy)
    story.wait(SPLIT_SETTLE_S + 0.5)
    answer(story, SplitAnswer(model=BIG, epoch=1, highest=1))
    return story


def test_a_model_that_fits_nowhere_is_offered_and_then_loaded() -> None:
    """After it has fitted nowhere for a while: another node might have come."""
    story = a_host()
    story.wait(SPLIT_SETTLE_S - 0.5)
    early = said(story, SplitOffer)
    story.wait(1.0)
    (offer,) = said(story, SplitOffer)
    claimed = story.serving()
    answer(story, SplitAnswer(model=BIG, epoch=1, highest=1))

    assert early == []
    assert isinstance(offer, SplitOffer)
    assert (offer.model, offer.digest, offer.epoch) == (BIG, "sha256:big", 1)
    assert claimed == [("big", "claimed")]
    (start,) = story.of(StartEngine)
    assert start.plan.split is not None
    assert [part.node for part in start.plan.split.workers] == [PEER]
    assert start.plan.split.workers[0].layers == offer.layers
    assert start.plan.split.home_layers == 30 - offer.layers
    assert [str(address) for address in start.peers[0].addresses] == ["p.test:4000"]
    story.run("big")
    (served,) = story.core.view.me.serving
    assert (served.state, served.shared is not None and served.shared.epoch) == (ServingState.READY, 1)
    assert story.model("big").shared == served.shared


def test_what_fits_on_one_node_is_never_shared_whoever_joins_or_leaves() -> None:
    """Neither here nor at the other."""
    here = a_host(size_bytes=4 * GIB)
    there = by_itself()
    there.meet(a_worker(resources=a_machine(memory_bytes=64 * GIB)))

    for story in (here, there):
        story.wait(30.0)
        story.lose()
        story.wait(30.0)
        assert said(story, SplitOffer) == []
    assert here.of(StartEngine)[0].plan.split is None
    assert there.of(StartEngine) == []


@pytest.mark.parametrize(
    "changes",
    [{"rpc_version": ""}, {"rpc_version": "7.0.0 b2"}, {"bulk_port": 0}, {"resources": a_machine(memory_bytes=GIB)}],
)
def test_without_a_worker_nothing_is_tried(changes: dict[str, object]) -> None:
    """It waits, with the sum."""
    story = by_itself()
    story.meet(a_worker(**changes))
    story.wait(30.0)

    assert (said(story, SplitOffer), story.of(StartEngine)) == ([], [])
    assert "capacity" in story.model("big").waiting


def test_a_refusal_is_tried_again_after_a_while_with_a_later_epoch() -> None:
    """Above whatever the worker agreed to before."""
    story = a_host()
    story.wait(SPLIT_SETTLE_S + 0.5)
    answer(story, SplitAnswer(model=BIG, epoch=1, refusal="too little is free", highest=7))
    story.wait(0.5)
    again = said(story, SplitOffer)
    answer(story, SplitAnswer(model=BIG, epoch=8, refusal="too little is free", highest=7))
    story.wait(SPLIT_RETRY_S / 2)
    held = len(said(story, SplitOffer))
    story.wait(SPLIT_RETRY_S)

    assert [one.epoch for one in again if isinstance(one, SplitOffer)] == [1, 8]
    assert held == 2
    assert len(said(story, SplitOffer)) == 3
    assert "too little is free" in str(story.notes("a split has ended"))


def test_nobody_uses_up_the_epochs() -> None:
    """Neither a worker's answer nor what a member announces leaves no number for the next plan."""
    story = a_host()
    lent = LentMemory(model=BIG, host=ME, epoch=SPLIT_EPOCH_MOST, memory_bytes=1)
    story.hear(a_worker(lends=(lent,)))
    story.wait(SPLIT_SETTLE_S + 0.5)
    answer(story, SplitAnswer(model=BIG, epoch=1, refusal="no", highest=SPLIT_EPOCH_MOST))
    story.wait(1.0)

    assert [one.epoch for one in said(story, SplitOffer) if isinstance(one, SplitOffer)] == [1, 2]


def test_who_asks_between_two_splits_waits_as_long_as_the_next_is_near() -> None:
    """What is promised to the one that is lost looks like no room; and a pause of a minute is no promise."""
    story = shared()
    story.run("big")
    said_between, waiting = [], []
    for epoch in range(1, 7):
        answer(story, SplitEnded(model=BIG, epoch=epoch, reason="it was killed"))
        story.tell(exited("big", EngineFault.STOPPED))
        said_between.append(story.serving())
        waiting.append(story.model("big").waiting)
        story.wait(SPLIT_RETRY_MOST_S + 1)
        answer(story, SplitAnswer(model=BIG, epoch=epoch + 1, highest=epoch + 1))

    assert said_between == [[("big", "claimed")]] * 3 + [[]] * 3
    assert waiting[:3] == [""] * 3
    assert all("it was killed" in words for words in waiting[3:])


def test_an_offer_that_was_lost_on_the_way_is_repeated() -> None:
    """To those who have not agreed, with the same words."""
    story = a_host()
    story.wait(SPLIT_SETTLE_S + 0.5 + 2 * SPLIT_ASK_S)
    asked = said(story, SplitOffer)
    answer(story, SplitAnswer(model=BIG, epoch=1, highest=1))
    story.wait(2 * SPLIT_ASK_S)

    assert len(asked) == 3
    assert len(set(asked)) == 1
    assert len(said(story, SplitOffer)) == 3
    assert len(story.of(StartEngine)) == 1


def test_a_worker_that_says_nothing_is_given_up() -> None:
    """In the end; its memory is not counted on for ever."""
    story = a_host()
    story.wait(SPLIT_SETTLE_S + SPLIT_AGREE_S + 1.0)

    assert [one.epoch for one in said(story, SplitRelease) if isinstance(one, SplitRelease)] == [1]
    assert "did not answer" in str(story.notes("a split has ended"))


def test_a_lost_worker_ends_the_engine_and_the_next_plan_is_made_at_once() -> None:
    """As soon as the engine is gone; who waits for the model goes on waiting."""
    story = shared()
    story.run("big")

    answer(story, SplitEnded(model=BIG, epoch=1, reason="its server was killed"))
    stopped = story.of(StopEngine)
    state = story.serving()
    story.tell(exited("big", EngineFault.STOPPED))
    story.wait(0.5)

    assert [one.kill for one in stopped] == [True]
    assert state == [("big", "claimed")]
    assert [one.epoch for one in said(story, SplitOffer) if isinstance(one, SplitOffer)] == [1, 2]
    answer(story, SplitAnswer(model=BIG, epoch=2, highest=2))
    assert [one.plan.split.epoch for one in story.of(StartEngine) if one.plan.split] == [1, 2]


def test_a_dead_worker_ends_it_and_there_is_no_other_plan_without_it() -> None:
    """The model waits; nothing is left running."""
    story = shared()
    story.run("big")
    story.lose()
    story.tell(exited("big", EngineFault.STOPPED))
    story.wait(5.0)

    assert story.model("big").state is EngineState.STOPPED
    assert story.serving() == []
    assert story.model("big").shared is None


def test_an_engine_that_ends_by_itself_releases_its_workers() -> None:
    """Then it is planned anew, after the usual pause; nothing is due meanwhile that nobody looks at."""
    story = shared()
    story.run("big")
    story.tell(exited("big", EngineFault.CRASHED))
    story.wait(5.0)
    due_s = story.core.next_wakeup_s()
    assert due_s is not None
    assert due_s > story.now_s

    assert [one.epoch for one in said(story, SplitRelease) if isinstance(one, SplitRelease)] == [1]
    assert [one.epoch for one in said(story, SplitOffer) if isinstance(one, SplitOffer)] == [1, 2]


@pytest.mark.parametrize("fault", [EngineFault.CRASHED, EngineFault.LOAD_TIMEOUT])
def test_a_load_that_workers_break_off_is_tried_for_ever(fault: EngineFault) -> None:
    """It says nothing about the model: after growing pauses, however often."""
    story = shared()
    for epoch in range(2, ENGINE_LOAD_FAILURES_MAX + 4):
        story.tell(exited("big", fault))
        story.wait(SPLIT_RETRY_MOST_S + ENGINE_BACKOFF_MAX_S)
        answer(story, SplitAnswer(model=BIG, epoch=epoch, highest=epoch))

    assert story.model("big").state is EngineState.STARTING
    assert len(story.of(StartEngine)) == ENGINE_LOAD_FAILURES_MAX + 3


def test_a_file_that_no_engine_reads_is_not_shared_again() -> None:
    """Another worker would not help."""
    story = shared()
    story.tell(exited("big", EngineFault.BAD_FILE))
    story.wait(SPLIT_RETRY_MOST_S)

    assert story.model("big").state is EngineState.FAILED
    assert len(said(story, SplitOffer)) == 1
    assert len(said(story, SplitRelease)) == 1


def test_what_is_said_of_another_epoch_or_by_nobody_who_knows_changes_nothing() -> None:
    """Late words, and those of strangers to the split."""
    story = shared()
    before = story.serving()
    for message in (
        SplitEnded(model=BIG, epoch=9, reason="x"), SplitAnswer(model=BIG, epoch=9, refusal="no"),
        SplitEnded(model=ModelId("other"), epoch=1, reason="x"), SplitRelease(model=BIG, epoch=1),
    ):  # fmt: skip
        answer(story, message)

    assert story.serving() == before
    assert story.of(StopEngine) == []


def test_of_two_hosts_the_one_with_the_later_epoch_goes_on() -> None:
    """After a partition has healed: this one drains, and frees its workers."""
    story = shared()
    story.run("big")
    parts = (SharedPart(node=ME, layers=20, memory_bytes=1), SharedPart(node=PEER, layers=10, memory_bytes=1))
    theirs = ServedModel(
        model=BIG, digest="sha256:big", state=ServingState.READY, shared=SharedModel(epoch=5, parts=parts)
    )

    story.hear(a_worker(serving=(theirs,)))
    draining = story.serving()
    story.stop("big")

    assert draining == [("big", "draining")]
    assert [one.epoch for one in said(story, SplitRelease) if isinstance(one, SplitRelease)] == [1]
    assert "better claim" in str(story.notes("letting go of a shared model"))
    story.wait(10.0)
    assert len(said(story, SplitOffer)) == 1


def test_a_host_that_holds_it_alone_is_better_than_a_split() -> None:
    """A model that fits is not shared by accident for long."""
    story = shared()
    story.run("big")
    alone = ServedModel(model=BIG, digest="sha256:big", state=ServingState.READY)

    story.hear(a_worker(serving=(alone,)))

    assert story.serving() == [("big", "draining")]
    assert "holds it alone" in str(story.notes("letting go of a shared model"))


def test_a_request_begins_a_split_at_once() -> None:
    """Somebody waits."""
    story = a_host(ServingPolicy(fills_gaps=True))
    story.wait(10.0)
    unasked = said(story, SplitOffer)
    story.tell(ev.ModelWanted(model=BIG))
    story.wait(0.2)

    assert unasked == []
    assert len(said(story, SplitOffer)) == 1
    assert story.core.view.cold[BIG].lack == "" if BIG in story.core.view.cold else True


@pytest.mark.rows("CLI-15")
def test_what_is_to_be_shared_is_shared_though_it_fits() -> None:
    """And is never held alone, also while nobody lends."""
    story = by_itself(replace(SERVES, forces_splits=True), size_bytes=4 * GIB)
    story.wait(5.0)
    alone = story.of(StartEngine)
    waiting = story.model("big").waiting
    story.meet(a_worker())
    story.wait(SPLIT_SETTLE_S + 1.0)
    answer(story, SplitAnswer(model=BIG, epoch=1, highest=1))

    assert alone == []
    assert "to be shared" in waiting
    (start,) = story.of(StartEngine)
    assert start.plan.split is not None


def far(story: Neighbourhood, rtt_s: float) -> None:
    """Be connected to `p` over such a way."""
    address, peer = Address(host="p.test", port=1), ConnectionId(1)
    story.tell(
        ev.PeerConnected(
            peer=PEER, connection=peer, address=address, is_dialled=False, rights=OWN_MACHINE, rtt_s=rtt_s
        )
    )  # fmt: skip
    story.hear(a_worker(), first=True)


def test_a_request_for_what_can_not_be_shared_is_told_so_at_once() -> None:
    """There seems to be memory enough; the host knows that it is too far away, and says so to everybody."""
    story = by_itself(ServingPolicy())
    far(story, rtt_s=0.1)
    before = story.core.view.me.unshared
    story.tell(ev.ModelWanted(model=BIG))
    story.tell(ev.Woke())

    why = "no split: no other node can lend memory to m, which has the file; p: it is too far: a round trip of 100 ms"
    assert before == ()
    assert [model for model, _ in story.core.view.me.unshared] == [BIG]
    assert story.core.view.me.unshared[0][1].startswith(why)
    assert story.core.view.me.waiting == ()
    assert why in story.core.view.cold[BIG].lack
    assert said(story, SplitOffer) == []


def test_what_can_be_shared_again_is_said_before_anybody_asks() -> None:
    """Nothing is shared for that alone; the next request is."""
    story = by_itself(ServingPolicy())
    far(story, rtt_s=0.1)
    story.tell(ev.ModelWanted(model=BIG))
    story.tell(ev.Woke())
    story.tell(ev.PeerLost(peer=PEER, connection=ConnectionId(1), code="timeout"))
    far(story, rtt_s=0.001)
    story.wait(SPLIT_LOOK_S + 0.5)
    quiet = said(story, SplitOffer)
    unshared = story.core.view.me.unshared
    story.tell(ev.ModelWanted(model=BIG))
    story.wait(0.5)

    assert (quiet, unshared) == ([], ())
    assert len(said(story, SplitOffer)) == 1


@pytest.mark.parametrize(("word", "waits"), [((), (BIG,)), (((BIG, "no split: too far"),), ())])
def test_who_asks_elsewhere_waits_only_where_no_host_says_that_it_is_in_vain(
    word: tuple[tuple[ModelId, str], ...], waits: tuple[ModelId, ...]
) -> None:
    """This node does not know the layers, nor how far others are from the host."""
    story = Neighbourhood(policy=ServingPolicy(), build=BUILD, is_joining=True)
    story.tell(ev.OwnAddressesChanged(addresses=(), bulk_port=4000))
    file = DiskModel(model=BIG, digest="sha256:big", size_bytes=FITS_NOWHERE)
    story.meet(a_worker(models_on_disk=(file,), unshared=word))
    story.tell(ev.ModelWanted(model=BIG))
    story.wait(1.0)

    assert story.core.view.me.waiting == waits
    assert ("no split: too far" in story.core.view.cold[BIG].lack) == bool(word)


def test_a_node_that_is_not_known_well_enough_may_still_share_in_a_moment() -> None:
    """Nobody is told that it is in vain."""
    story = by_itself(ServingPolicy())
    story.meet(a_worker(resources=None))
    story.tell(ev.ModelWanted(model=BIG))
    story.wait(SPLIT_LOOK_S)

    assert story.core.view.me.unshared == ()


def test_what_is_to_be_shared_waits_where_the_engine_cannot() -> None:
    """With the command that helps; and nothing wakes the node for it again and again."""
    story = by_itself(replace(SERVES, forces_splits=True), size_bytes=4 * GIB)
    story.tell(ev.EngineProbed(build=A_BUILD))
    story.meet(a_worker())
    story.wait(10.0)
    due_s = story.core.next_wakeup_s()

    assert story.of(StartEngine) == []
    assert "mesh-llm engine build" in story.model("big").waiting
    assert due_s is not None
    assert due_s > story.now_s


@pytest.mark.parametrize("policy", [SERVES, FILLS])
@pytest.mark.parametrize("is_worker_young", [False, True])
def test_a_request_for_a_shared_model_waits_from_the_first_moment_of_its_host(
    policy: ServingPolicy, is_worker_young: bool
) -> None:
    """Files, machine, the others and the engine become known one after the other, at the worker too."""
    story = Neighbourhood(policy=policy, is_joining=True, has_looked=False)
    found = [plan_routes(story.core.view, RouteRequest(model="big"))]
    unshared: set[tuple[ModelId, str]] = set()

    def happened(*events: ev.Event) -> None:
        story.tell(*events)
        story.wait(0.3)
        found.append(plan_routes(story.core.view, RouteRequest(model="big")))
        unshared.update(story.core.view.me.unshared)

    happened(ev.OwnAddressesChanged(addresses=(), bulk_port=4000))
    happened(ev.InventoryChanged(models=(a_spec("big", size_bytes=FITS_NOWHERE),)))
    happened(ev.ModelWanted(model=BIG))
    happened(ev.ResourcesMeasured(resources=a_machine()))
    if is_worker_young:
        happened(ev.EngineProbed(build=BUILD))
        story.meet(a_worker(rpc_version="", engine_build="", bulk_port=0, is_starting=True))
        happened()
        story.hear(a_worker())
    else:
        story.meet(a_worker())
        happened(ev.EngineProbed(build=BUILD))
    story.tell(ev.ModelWanted(model=BIG))
    while story.now_s < 105.0 + SPLIT_SETTLE_S:
        happened()

    assert {type(one) for one in found} == {Wait}
    assert unshared == set()
    assert said(story, SplitOffer) != []


def test_a_node_that_leaves_looks_for_no_split_while_it_drains() -> None:
    """Nothing is due that nobody looks at."""
    story = by_itself()
    story.wait(1.0)
    story.tell(ev.InventoryChanged(models=(a_spec("big", size_bytes=FITS_NOWHERE), a_spec("small"))))
    story.ask(Verb.LOAD, "small")
    story.run("small")
    story.tell(ev.LeaveRequested(reason="asked to"))
    story.wait(10.0)
    due_s = story.core.next_wakeup_s()

    assert story.model("small").state is EngineState.DRAINING
    assert due_s is None or due_s > story.now_s


def test_an_unload_ends_the_split_for_good() -> None:
    """The workers have their memory back, and nothing is planned anew."""
    story = shared()
    story.run("big")
    story.ask(Verb.UNLOAD, "big")
    story.stop("big")
    story.wait(20.0)

    assert [one.epoch for one in said(story, SplitRelease) if isinstance(one, SplitRelease)] == [1]
    assert len(said(story, SplitOffer)) == 1
