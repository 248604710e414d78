"""Who could take part in a split, by what it announces."""

from dataclasses import replace

from meshllm.core.announcement import DiskModel, Role
from meshllm.core.ids import NodeId
from meshllm.core.limits import GIB
from meshllm.core.rights import Rights
from meshllm.core.serving.splits.lenders import (
    PASSING,
    Conditions,
    Lender,
    could_hold,
    lenders_of,
    standing,
    unshareable,
)
from meshllm.core.standing import MemberState
from meshllm.core.view import Member
from tests.core.builders import a_gpu, a_machine
from tests.core.serving.splits.lent import BIG, a_big, a_lender, saying
from tests.core.serving.test_sites import a_served

NEAR = Conditions(me=NodeId("a"))


def a_known(name: str, state: MemberState = MemberState.ALIVE, **changes: object) -> Member:
    """Return a member of a view."""
    return Member(announcement=a_lender(name, GIB).said, state=state, since_s=0.0, **changes)


def test_live_members_are_lenders_and_those_that_do_not_answer_are_said_to() -> None:
    """The dead and those that left are none."""
    gone = a_known("g")
    gone = replace(gone, announcement=replace(gone.announcement, left=True))
    members = [a_known("b", MemberState.SUSPECT, rtt_s=0.002), a_known("c", MemberState.DEAD), gone, a_known("a")]

    found = lenders_of(members)

    assert [(one.node, one.rtt_s, one.is_silent) for one in found] == [("a", None, False), ("b", 0.002, True)]


def test_a_file_is_told_by_its_digest_and_by_its_name_while_that_is_unknown() -> None:
    """Another file of the same name is another model."""
    other = (DiskModel(model=BIG, digest="sha256:other", size_bytes=1),)
    hashing = (DiskModel(model=BIG, digest="", size_bytes=1),)

    assert a_lender("a", GIB, has_file=True).has_file(a_big())
    assert not a_lender("a", GIB, models_on_disk=other).has_file(a_big())
    assert a_lender("a", GIB, models_on_disk=hashing).has_file(a_big())
    assert a_lender("a", GIB, models_on_disk=other).has_file(a_big(digest=""))


def test_room_is_counted_in_whole_layers() -> None:
    """No more than there are, and less than none where not even the rest fits."""
    assert a_lender("a", 2 * GIB).layers(a_big(), GIB) == 2
    assert a_lender("a", 60 * GIB).layers(a_big(), GIB) == 40
    assert a_lender("a", GIB // 2).layers(a_big(), GIB) == -1


def test_a_node_could_hold_what_fits_into_gpus_and_memory_with_nothing_else_in_them() -> None:
    """Whoever may not serve holds nothing for others."""
    both = a_machine(memory_bytes=10 * GIB, gpus=(a_gpu(total_bytes=20 * GIB),))
    lender = a_lender("a", 0, resources=both, serving=(a_served("other", size_bytes=20 * GIB),))

    assert could_hold(lender.said, 20 * GIB)
    assert not could_hold(lender.said, 30 * GIB)
    assert not could_hold(replace(lender.said, resources=None), GIB)
    assert not could_hold(replace(lender.said, role=Role.CLIENT), GIB)
    assert not could_hold(replace(lender.said, rights=Rights.RPC), GIB)


def test_hosts_stand_in_the_order_of_the_election() -> None:
    """By GPU memory, then memory, then id."""
    gpu = a_lender("z", 0, resources=a_machine(memory_bytes=GIB, gpus=(a_gpu(),)))

    assert [one.node for one in standing([a_lender("c", GIB), a_lender("b", GIB), a_lender("d", 2 * GIB), gpu])] == [
        "z", "d", "b", "c",
    ]  # fmt: skip


def test_a_lack_that_somebody_can_mend_comes_with_the_command() -> None:
    """And one that nobody can without."""
    model, host = a_big(), a_lender("a", 12 * GIB, has_file=True)
    mended = {
        "no right": NEAR.unfit(saying(host, rights=Rights.HOST)),
        "no engine": NEAR.unfit(saying(host, engine_build="")),
        "no file": NEAR.unfit_as_host(a_lender("b", 12 * GIB), model),
        "no memory": NEAR.unfit_as_worker(a_lender("b", GIB // 4), host, model),
    }

    helps = {name: found.help for name, found in mended.items() if found is not None}

    assert helps == {
        "no right": "mesh-llm token --rights infer,host,rpc makes one that carries it",
        "no engine": "mesh-llm doctor on a",
        "no file": "mesh-llm pull big on b",
        "no memory": "mesh-llm unload another model there",
    }
    no_rpc = NEAR.unfit(saying(host, rpc_version=""))
    assert no_rpc is not None
    assert (no_rpc.why, no_rpc.help) == (
        "its engine (llama-server 1.0) cannot share a model with other machines", "mesh-llm engine build on a",
    )  # fmt: skip


def test_what_everybody_knows_tells_whether_to_wait_for_a_plan() -> None:
    """Somebody with the file who may host, another one to lend, and room for it; and no word against it of hosts."""
    host, worker = a_lender("a", 8 * GIB, has_file=True), a_lender("b", 8 * GIB)
    hopeless = saying(host, unshared=((BIG, "no split: too far"),))

    def why(*lenders: Lender, size_bytes: int = 10 * GIB, holders: tuple[str, ...] = ("a",)) -> str | None:
        return unshareable([one.said for one in lenders], [NodeId(one) for one in holders], (BIG, size_bytes))

    assert why(host, worker) is None
    assert why(hopeless, worker) == "no split: too far"
    assert why(hopeless, a_lender("c", 8 * GIB, has_file=True), worker, holders=("a", "c")) is None
    assert why(host) == "no other node can lend memory to a, which has the file"
    assert why(host, worker, size_bytes=40 * GIB) == "all that might share it have 17.2 GB free together"
    assert why(host, worker, holders=()) == "no node that has its file may share it"
    assert why(saying(host, rpc_version="other"), worker) == "no other node can lend memory to a, which has the file"
    assert why(saying(host, rpc_version=""), saying(worker, rpc_version="")) == ""


def test_who_has_just_started_may_still_lend() -> None:
    """It does not say that it cannot; who only sends requests never will, and without a host nobody can."""
    host = a_lender("a", 8 * GIB, has_file=True)
    young = saying(a_lender("b", 8 * GIB), rpc_version="", engine_build="", is_starting=True)
    guest = saying(young, rights=Rights.HOST)

    def why(*lenders: Lender, holders: tuple[str, ...] = ("a",)) -> str | None:
        return unshareable([one.said for one in lenders], [NodeId(one) for one in holders], (BIG, 10 * GIB))

    found = NEAR.unfit(young)
    assert found is not None
    assert found.lack in PASSING
    assert why(host, young) is None
    assert why(host, guest) == "no other node can lend memory to a, which has the file"
    assert why(host, young, holders=()) == "no node that has its file may share it"


def test_engines_may_be_left_out_of_it() -> None:
    """To say what would be with others."""
    supposing = Conditions(me=NodeId("a"), needs_build=False)
    bare = saying(a_lender("b", 12 * GIB), engine_build="", rpc_version="")

    assert supposing.unfit(bare) is None
    assert supposing.mismatch(bare, a_lender("a", GIB)) is None
    assert NEAR.unfit(bare) is not None
