"""Who shares a model that no node holds alone, and why nobody does."""

import itertools
from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meshllm.core.announcement import Role
from meshllm.core.ids import NodeId
from meshllm.core.limits import GIB, MIB
from meshllm.core.rights import GUEST, Rights
from meshllm.core.serving.splits.lenders import Conditions, Lender, SplitLack
from meshllm.core.serving.splits.plan import NoSplit, Solo, SplitPlan, SplitQuestion, is_whole, plan_split
from meshllm.core.split_limits import SPLIT_ROUND_TRIP_S, SPLIT_WORKERS
from tests.core.builders import a_gpu, a_machine
from tests.core.serving.splits.lent import BIG, a_big, a_lender, a_question, counts, planned, saying
from tests.core.serving.test_sites import a_served

NAMES = "abcdefgh"


@st.composite
def lenders(draw: st.DrawFn) -> tuple[Lender, ...]:
    """Return up to eight nodes of any size; some have the file, some lack a right, a build or a round trip."""
    found = []
    for name in NAMES[: draw(st.integers(1, len(NAMES)))]:
        lender = a_lender(
            name, draw(st.integers(0, 30)) * GIB // 2, has_file=draw(st.booleans()),
            rtt_s=draw(st.sampled_from([None, 0.0004, 0.001, 0.005, 0.02, 0.08])),
            is_silent=draw(st.integers(0, 9)) == 0,
        )  # fmt: skip
        rights = GUEST if draw(st.integers(0, 9)) == 0 else lender.said.rights
        build = "7.0.0 b2" if draw(st.integers(0, 9)) == 0 else lender.said.rpc_version
        found.append(saying(lender, rights=rights, rpc_version=build))
    return tuple(found)


def why_not(*lenders: Lender, **changes: object) -> tuple[str, dict[str, SplitLack]]:
    """Return the reason for all and what each node lacks, where there is no plan."""
    found = plan_split(a_question(*lenders, **changes))
    assert isinstance(found, NoSplit), found
    return found.message, {one.node: one.lack for one in found.nodes}


# -- whatever the nodes ----------------------------------------------------------------------------------------------


@given(found=lenders(), is_asked=st.booleans())
def test_a_plan_gives_every_layer_once_and_nobody_more_than_it_has(
    found: tuple[Lender, ...], *, is_asked: bool
) -> None:
    """The host comes last, has the file, and every worker has a layer and may lend."""
    plan = plan_split(a_question(*found, is_asked=is_asked))
    assume(isinstance(plan, SplitPlan))
    assert isinstance(plan, SplitPlan)
    known = {one.node: one for one in found}

    assert [share.first_layer for share in plan.shares] == list(
        itertools.accumulate((share.layers for share in plan.shares[:-1]), initial=0)
    )
    assert sum(share.layers for share in plan.shares) == a_big().layers
    assert len(plan.members) == len(plan.shares)
    assert all(share.memory_bytes <= known[share.node].free_bytes for share in plan.shares)
    assert all(share.layers >= 1 for share in plan.shares[:-1])
    assert known[plan.host].has_file(a_big())
    assert 1 <= len(plan.workers) <= SPLIT_WORKERS
    for node in plan.members:
        assert Rights.RPC in known[node].said.rights
        assert known[node].said.rpc_version == known[plan.host].said.rpc_version
    assert all(share.rtt_s <= SPLIT_ROUND_TRIP_S for share in plan.shares)


@given(lenders())
def test_no_plan_does_with_fewer_workers(found: tuple[Lender, ...]) -> None:
    """No smaller set of those that may work for this host has room for the layers."""
    question = a_question(*found)
    plan = plan_split(question)
    assume(isinstance(plan, SplitPlan))
    assert isinstance(plan, SplitPlan)
    model, host = question.model, next(one for one in found if one.node == plan.host)
    able = [
        one for one in found
        if one.node != host.node and question.conditions.unfit_as_worker(one, host, model) is None
    ]  # fmt: skip
    missing = model.layers - host.layers(model, model.host_beside_bytes)

    for fewer in itertools.combinations(able, len(plan.workers) - 1):
        assert sum(one.layers(model, model.worker_beside_bytes) for one in fewer) < missing


@given(lenders(), st.randoms())
def test_the_order_in_which_nodes_are_known_is_no_matter(found: tuple[Lender, ...], chance: Random) -> None:
    """The same view gives the same answer."""
    shuffled = list(found)
    chance.shuffle(shuffled)
    one, other = plan_split(a_question(*found)), plan_split(a_question(*shuffled))

    if isinstance(one, NoSplit) and isinstance(other, NoSplit):
        assert one.message == other.message
        assert set(one.nodes) == set(other.nodes)
    else:
        assert one == other


@given(lenders())
def test_every_node_comes_to_the_same_plan(found: tuple[Lender, ...]) -> None:
    """As long as all are as far from one another; each measures the ways to the others, and none to itself."""
    plans = []
    for me in found:
        seen = (replace(one, rtt_s=None if one.node == me.node else 0.001, is_silent=False) for one in found)
        plans.append(plan_split(a_question(*seen, me=me.node)))

    assert all(plan == plans[0] for plan in plans)


@given(lenders(), lenders())
def test_a_plan_stays_whoever_joins(found: tuple[Lender, ...], more: tuple[Lender, ...]) -> None:
    """Also one that could hold the model alone: what runs is not thrown away."""
    plan = plan_split(a_question(*found))
    assume(isinstance(plan, SplitPlan))
    assert isinstance(plan, SplitPlan)
    joined = [saying(one, node=NodeId(f"x{one.node}")) for one in more]
    giant = a_lender("giant", 100 * GIB, has_file=True)

    assert plan_split(a_question(*found, *joined, giant, running=plan)) is plan


@given(lenders(), st.integers(0, 7))
def test_a_lost_member_means_a_plan_without_it_and_a_higher_epoch(found: tuple[Lender, ...], index: int) -> None:
    """Or none, or one node that can do it alone; never the old one."""
    plan = plan_split(a_question(*found))
    assume(isinstance(plan, SplitPlan))
    assert isinstance(plan, SplitPlan)
    lost = plan.shares[index % len(plan.shares)].node
    left = [one for one in found if one.node != lost]

    after = plan_split(a_question(*left, running=plan))

    if isinstance(after, SplitPlan):
        assert lost not in after.members
        assert after.epoch == plan.epoch + 1


@given(lenders())
def test_a_refusal_says_something_of_every_node(found: tuple[Lender, ...]) -> None:
    """Once, in words."""
    answer = plan_split(a_question(*found))
    assume(isinstance(answer, NoSplit))
    assert isinstance(answer, NoSplit)

    assert sorted(one.node for one in answer.nodes) == sorted(one.node for one in found)
    assert all(one.why for one in answer.nodes)
    assert answer.message


@given(lenders(), st.sampled_from(NAMES))
def test_a_model_that_fits_is_never_split(found: tuple[Lender, ...], name: str) -> None:
    """With one node that has the memory, whatever the others are."""
    giant = a_lender(name, 40 * GIB)
    others = [one for one in found if one.node != giant.node]

    assert isinstance(plan_split(a_question(*others, giant)), Solo)


# -- scenes ----------------------------------------------------------------------------------------------------------


def test_two_machines_share_in_proportion_and_the_host_is_last() -> None:
    """Sixteen and eleven GiB free: 31 and 20 layers of room for 40, so 24 and 16."""
    plan = planned(a_question(a_lender("a", 11 * GIB, has_file=True), a_lender("b", 16 * GIB)))

    assert (plan.host, plan.workers, plan.epoch) == ("a", ("b",), 1)
    assert counts(plan) == [("b", 24), ("a", 16)]
    assert [share.memory_bytes for share in plan.shares] == [12 * GIB + 256 * MIB, 9 * GIB]
    assert (plan.token_bytes, plan.token_wait_s) == (4096, 0.001)
    assert plan.why == "it fits on no node alone; a has the file, and 1 other node lends what it lacks"


def test_one_large_worker_is_better_than_two_near_ones() -> None:
    """Each worker costs every token its round trips."""
    near = [a_lender(name, 8 * GIB, rtt_s=0.0005) for name in "bc"]

    plan = planned(a_question(a_lender("a", 10 * GIB, has_file=True), *near, a_lender("d", 17 * GIB, rtt_s=0.01)))

    assert plan.workers == ("d",)


def test_of_two_workers_that_suffice_the_nearer_one_is_taken() -> None:
    """And of two that are as near, within what jitter makes of it, the larger."""
    host = a_lender("a", 12 * GIB, has_file=True)
    far, near = a_lender("b", 20 * GIB, rtt_s=0.02), a_lender("c", 14 * GIB, rtt_s=0.0003)
    jittery = a_lender("d", 15 * GIB, rtt_s=0.0011)

    assert planned(a_question(host, far, near)).workers == ("c",)
    assert planned(a_question(host, far, near, jittery)).workers == ("d",)


def test_workers_are_ordered_by_distance_and_memory() -> None:
    """The nearest has the first layers."""
    workers = [a_lender("b", 5 * GIB, rtt_s=0.02), a_lender("c", 6 * GIB), a_lender("d", 7 * GIB)]

    plan = planned(a_question(a_lender("a", 8 * GIB, has_file=True), *workers))

    assert [share.node for share in plan.shares] == ["d", "c", "b", "a"]


def test_the_host_is_elected_among_those_that_have_the_file() -> None:
    """By the rule of all hosts: the most memory; the next one where that has no workers."""
    small, large = a_lender("a", 10 * GIB, has_file=True), a_lender("b", 15 * GIB, has_file=True)
    worker = a_lender("c", 16 * GIB)

    assert planned(a_question(small, large, worker)).host == "b"
    assert planned(a_question(small, saying(large, rpc_version="7.0.0 b2"), worker)).host == "a"


def test_the_gpu_is_what_a_machine_with_one_lends() -> None:
    """Its memory could take more, and would be slow."""
    machine = a_machine(memory_bytes=6 * GIB, gpus=(a_gpu(total_bytes=10 * GIB, free_bytes=9 * GIB),))
    lender = a_lender("b", 0, resources=machine)

    assert lender.free_bytes == 9 * GIB
    assert a_lender("c", 0, resources=None).free_bytes == 0


def test_somebody_may_ask_for_a_split_of_what_fits() -> None:
    """Then one worker is enough, and has a layer at least."""
    giant, crumb = a_lender("a", 40 * GIB, has_file=True), a_lender("b", 800 * MIB)

    assert plan_split(a_question(giant, crumb)) == Solo(node=NodeId("a"), name="a")
    plan = planned(a_question(giant, crumb, is_asked=True))
    assert counts(plan) == [("b", 1), ("a", 39)]
    assert plan.why.startswith("somebody asked for it")


def test_a_host_may_be_left_with_the_output_alone() -> None:
    """It has the file, and room for no layer."""
    plan = planned(a_question(a_lender("a", GIB, has_file=True), a_lender("b", 12 * GIB), a_lender("c", 12 * GIB)))

    assert counts(plan)[-1] == ("a", 0)


def test_what_one_device_holds_by_the_exact_sum_is_not_split() -> None:
    """The rough rule asks for a tenth more than the file."""
    lender = a_lender("a", 21 * GIB, has_file=True)

    assert plan_split(a_question(lender)) == Solo(node=NodeId("a"), name="a")


def test_what_fits_once_other_models_go_is_not_split() -> None:
    """Whoever runs another model there can be asked to unload it."""
    full = a_lender("c", 24 * GIB, serving=(a_served("other", size_bytes=10 * GIB),))

    assert full.free_bytes < 13 * GIB
    assert plan_split(a_question(a_lender("a", 12 * GIB, has_file=True), a_lender("b", 12 * GIB), full)) == Solo(
        node=NodeId("c"), name="c"
    )


def test_an_epoch_is_above_all_that_were_heard_of() -> None:
    """A worker serves none that is not."""
    pair = a_lender("a", 12 * GIB, has_file=True), a_lender("b", 14 * GIB)
    plan = planned(a_question(*pair, epoch=7))

    assert plan.epoch == 8
    third = a_lender("c", 14 * GIB)
    assert planned(a_question(pair[0], third, running=plan, epoch=3)).epoch == 9


def test_a_running_plan_ends_with_a_right_or_a_build_and_not_with_a_breath() -> None:
    """Silence and distance pass."""
    host, worker = a_lender("a", 12 * GIB, has_file=True), a_lender("b", 14 * GIB)
    plan = planned(a_question(host, worker))

    assert is_whole(plan, [host, replace(worker, rtt_s=None, is_silent=True)])
    assert is_whole(plan, [saying(host, serving=()), saying(worker, resources=a_lender("b", 0).said.resources)])
    assert not is_whole(plan, [host])
    assert not is_whole(plan, [host, saying(worker, rights=GUEST)])
    assert not is_whole(plan, [host, saying(worker, rpc_version="8.0.0")])


# -- why there is none -----------------------------------------------------------------------------------------------


HOST = a_lender("a", 12 * GIB, has_file=True)
WORKER = a_lender("b", 14 * GIB)


@pytest.mark.parametrize(
    ("worker", "lack"),
    [
        (saying(WORKER, role=Role.CLIENT), SplitLack.CLIENT),
        (saying(WORKER, rights=GUEST), SplitLack.NO_RIGHT),
        (replace(WORKER, is_silent=True), SplitLack.SILENT),
        (saying(WORKER, resources=None), SplitLack.UNKNOWN_MACHINE),
        (saying(WORKER, engine_build=""), SplitLack.NO_ENGINE),
        (saying(WORKER, rpc_version=""), SplitLack.NO_RPC),
        (saying(WORKER, bulk_port=0), SplitLack.NO_PORT),
        (saying(WORKER, rpc_version="7.0.0 b2"), SplitLack.OTHER_BUILD),
        (saying(WORKER, rpc_version="6.0.0"), SplitLack.OTHER_PROTOCOL),
        (replace(WORKER, rtt_s=None), SplitLack.NO_ROUND_TRIP),
        (replace(WORKER, rtt_s=0.031), SplitLack.FAR),
        (a_lender("b", 700 * MIB), SplitLack.NO_MEMORY),
    ],
)
def test_without_its_only_worker_a_host_says_what_that_lacks(worker: Lender, lack: SplitLack) -> None:
    """One reason for each node: the first that counts."""
    message, lacks = why_not(HOST, worker)

    assert message == "no other node can lend memory to a, which has the file"
    assert lacks == {"a": SplitLack.NOT_ENOUGH, "b": lack}


@pytest.mark.parametrize(
    ("host", "lack"),
    [
        (saying(HOST, rights=Rights.RPC), SplitLack.NO_RIGHT),
        (saying(HOST, models_on_disk=()), SplitLack.NO_FILE),
        (a_lender("a", 900 * MIB, has_file=True), SplitLack.NO_MEMORY),
        (saying(HOST, rights=GUEST), SplitLack.NO_RIGHT),
    ],
)
def test_without_a_host_every_node_says_why_it_is_none(host: Lender, lack: SplitLack) -> None:
    """The other one has no file."""
    message, lacks = why_not(host, WORKER)

    assert message == "no node that may share a model has its file and room for the host's part"
    assert lacks == {"a": lack, "b": SplitLack.NO_FILE}


def test_too_little_memory_is_said_in_layers_and_bytes() -> None:
    """With what each would have taken."""
    found = plan_split(a_question(HOST, a_lender("b", 6 * GIB)))

    assert isinstance(found, NoSplit)
    assert found.message == "all that may share it have room for 33 of its 40 layers; 3.8 GB more are needed"
    assert [one.why for one in found.nodes] == [
        "would take 22 of 40 layers: 12.9 GB are free", "would take 11 of 40 layers: 6.4 GB are free",
    ]  # fmt: skip


def test_a_split_has_no_more_workers_than_a_written_limit() -> None:
    """Each costs every token."""
    crowd = [a_lender(f"b{number}", 2 * GIB) for number in range(SPLIT_WORKERS + 4)]

    message, _ = why_not(a_lender("a", 6 * GIB, has_file=True), *crowd)

    assert message.startswith("all that may share it have room for 31 of its 40 layers")


def test_a_node_without_the_file_knows_no_layers_and_says_who_does() -> None:
    """And what it knows of everybody all the same."""
    shapeless = replace(a_big(), layers=0)

    message, lacks = why_not(WORKER, HOST, saying(a_lender("c", GIB), rights=GUEST), model=shapeless, me="b")
    nobody, _ = why_not(WORKER, model=shapeless, me="b")

    assert message.endswith(f"does not know the layers of {BIG}; mesh-llm plan {BIG} on a says more")
    assert nobody.endswith(f"the layers of {BIG}")
    assert lacks == {"a": SplitLack.NOT_ENOUGH, "b": SplitLack.NOT_ENOUGH, "c": SplitLack.NO_RIGHT}


def test_a_worker_takes_its_own_measurement_and_others_theirs_for_the_host_s() -> None:
    """What nobody here has measured is not near."""
    host, me, third = replace(HOST, rtt_s=0.02), replace(WORKER, rtt_s=None), a_lender("c", 14 * GIB, rtt_s=0.001)
    conditions = Conditions(me=NodeId("b"))

    assert conditions.rtt_s(me, host) == 0.02
    assert conditions.rtt_s(third, host) == 0.001
    question = SplitQuestion(model=a_big(), lenders=(host, me, third), conditions=conditions)
    assert planned(question).workers == ("c",)
