"""Who should serve what: the four priorities, fits, ties, and what everybody agrees on."""

import random
import time
from dataclasses import replace

import pytest

from meshllm.core.catalog import ModelReference
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.limits import GIB, MIB
from meshllm.core.serving.assignment import Need, Step, Urgency, assign, lack_of
from meshllm.core.serving.capacity import Room
from meshllm.core.serving.sites import Site, need_bytes
from meshllm.core.view import Reason


def a_site(name: str, *disk: str, room: int = 8, size: int = GIB, **changes: object) -> Site:
    """Return a node that fills gaps, with models of one GiB on its disk."""
    whole = Room(gpu_bytes=0, host_bytes=room * GIB)
    site = Site(
        node=NodeId(name), room=whole, whole=whole, disk={ModelId(model): size for model in disk}, evictable={},
        fills_gaps=True,
    )  # fmt: skip
    return replace(site, **changes)


def a_need(model: str, *holders: str, urgency: Urgency = Urgency.WANTED, places: int = 1, **changes: object) -> Need:
    """Return a model of one GiB that should have a host."""
    need = Need(
        model=ModelId(model), urgency=urgency, places=places, holders=frozenset(map(NodeId, holders)), size_bytes=GIB
    )
    return replace(need, **changes)


def a_reference(model: str) -> ModelReference:
    """Return where a model may be fetched from."""
    return ModelReference(id=ModelId(model), repository="u/r", filename=f"{model}.gguf", size_bytes=GIB)


def mine(steps: tuple[Step, ...]) -> list[tuple[str, Reason, int]]:
    """Return what a node should do: model, reason, rank."""
    return [(step.assignment.model, step.assignment.reason, step.rank) for step in steps]


def test_first_an_unserved_model_on_this_disk() -> None:
    """MSH-6."""
    steps = assign([a_site("a", "x")], [a_need("x", "a")], NodeId("a"))

    assert mine(steps) == [("x", Reason.UNSERVED_ON_DISK, 0)]


def test_second_an_unserved_model_that_has_to_be_fetched() -> None:
    """MSH-7: after those on disk, and only by a node that downloads and has the disk for it."""
    able = a_site("a", "x", room=3, downloads=True, disk_free_bytes=100 * GIB)
    needs = [a_need("x", "a"), a_need("y", reference=a_reference("y"), demand=9.0)]

    steps = assign([able], needs, NodeId("a"))

    assert mine(steps) == [("x", Reason.UNSERVED_ON_DISK, 0), ("y", Reason.UNSERVED_DOWNLOAD, 0)]
    assert [step.reference for step in steps] == [None, a_reference("y")]
    assert mine(assign([replace(able, downloads=False)], needs, NodeId("a"))) == mine(steps)[:1]
    assert mine(assign([replace(able, disk_free_bytes=GIB)], needs, NodeId("a"))) == mine(steps)[:1]


def test_what_has_to_be_fetched_goes_to_a_disk_where_it_lies() -> None:
    """Whoever has the file is faster."""
    sites = [a_site("a", downloads=True, disk_free_bytes=100 * GIB), a_site("b", "x", serves=frozenset("zy"))]

    assert assign(sites, [a_need("x", "b", reference=a_reference("x"))], NodeId("a")) == ()
    assert mine(assign(sites, [a_need("x", "b", reference=a_reference("x"))], NodeId("b"))) == [
        ("x", Reason.UNSERVED_ON_DISK, 0)
    ]


def test_third_the_least_served_model_on_this_disk() -> None:
    """MSH-8: only for a node that has nothing to do, and not what others lack less."""
    needs = [
        a_need("x", "a", hosts=frozenset({NodeId("b"), NodeId("c")})), a_need("y", "a", hosts=frozenset({NodeId("b")})),
        a_need("z", hosts=frozenset({NodeId("b")}), demand=9.0, reference=a_reference("z")),
    ]  # fmt: skip
    idle = a_site("a", "x", "y", downloads=True, disk_free_bytes=100 * GIB)

    assert mine(assign([idle], needs, NodeId("a"))) == [("y", Reason.LEAST_SERVED_ON_DISK, 0)]
    assert assign([replace(idle, serves=frozenset({ModelId("q")}))], needs, NodeId("a")) == ()
    assert assign([replace(idle, has_wishes=True)], needs, NodeId("a")) == ()


def test_fourth_the_least_served_model_of_all() -> None:
    """MSH-9: fetched, when the disk has nothing that would help."""
    needs = [
        a_need("x", hosts=frozenset({NodeId("b")}), reference=a_reference("x")),
        a_need("y", hosts=frozenset({NodeId("b")}), reference=a_reference("y"), demand=2.0),
    ]
    idle = a_site("a", downloads=True, disk_free_bytes=100 * GIB)

    steps = assign([idle], needs, NodeId("a"))

    assert mine(steps) == [("y", Reason.LEAST_SERVED, 0)]
    assert steps[0].reference == a_reference("y")


def test_an_idle_node_fetches_nothing_of_which_nobody_says_where_it_is() -> None:
    """It may download, and knows of a model that others serve; that is not enough."""
    idle = a_site("a", downloads=True, disk_free_bytes=100 * GIB)
    served = a_need("x", hosts=frozenset({NodeId("b")}))

    assert assign([idle], [served], NodeId("a")) == ()
    assert mine(assign([idle], [replace(served, reference=a_reference("x"))], NodeId("a"))) == [
        ("x", Reason.LEAST_SERVED, 0)
    ]


def test_a_node_that_may_not_host_has_no_part_in_it() -> None:
    """Whatever the others lack."""
    assert assign([a_site("a", "x")], [a_need("x", "a")], NodeId("b")) == ()


@pytest.mark.parametrize("urgency", list(Urgency))
def test_nothing_is_taken_that_does_not_fit(urgency: Urgency) -> None:
    """X32: in every priority."""
    small = a_site("a", "x", room=1)

    assert assign([small], [a_need("x", "a", urgency=urgency)], NodeId("a")) == ()
    assert assign([small], [a_need("x", "a", hosts=frozenset("b"), places=1)], NodeId("a")) == ()


def test_what_requests_wait_for_comes_before_wishes_and_wishes_before_the_rest() -> None:
    """There is room for one."""
    site = a_site("a", "x", "y", "z", room=2)
    lying, wanted = a_need("x", "a", urgency=Urgency.LYING, demand=9.0), a_need("y", "a", demand=1.0)
    waiting = a_need("z", "a", urgency=Urgency.WAITING)

    assert mine(assign([site], [lying, wanted, waiting], NodeId("a"))) == [("z", Reason.REQUESTED_BY_REQUEST, 0)]
    assert mine(assign([site], [lying, wanted], NodeId("a"))) == [("y", Reason.UNSERVED_ON_DISK, 0)]


def test_ties_are_broken_by_demand_then_by_size() -> None:
    """There is room for one; a large model finds room less easily later."""
    site = a_site("a", "x", "y", room=2)

    asked = [a_need("x", "a"), a_need("y", "a", demand=3.0)]
    large = [a_need("x", "a"), a_need("y", "a", size_bytes=GIB + MIB)]

    assert [step.assignment.model for step in assign([site], asked, NodeId("a"))] == ["y"]
    assert [step.assignment.model for step in assign([site], large, NodeId("a"))] == ["y"]


def test_three_idle_nodes_take_three_models() -> None:
    """T20: whatever their names, each takes another one."""
    models = ("x", "y", "z")
    for seed in range(200):
        chance = random.Random(seed)
        names = [f"n{chance.random()}" for _ in range(3)]
        sites = [a_site(name, *models) for name in names]
        needs = [a_need(model, *names, urgency=chance.choice(list(Urgency))) for model in models]

        taken = [
            step.assignment.model for name in names for step in assign(sites, needs, NodeId(name)) if not step.rank
        ]

        assert sorted(taken) == list(models), seed


def test_every_node_thinks_the_same_of_all() -> None:
    """Whatever the order in which it heard of them, and nobody gives more than there is."""
    chance = random.Random(7)
    nodes = [f"n{number}" for number in range(12)]
    models = [f"m{number}" for number in range(20)]
    disks = {name: [model for model in models if chance.random() < 0.4] for name in nodes}
    sites = [a_site(name, *disks[name], room=chance.randrange(2, 9)) for name in nodes]
    needs = [a_need(model, *(name for name in nodes if model in disks[name])) for model in models]

    def taken(of: list[Site], what: list[Need]) -> dict[str, list[str]]:
        return {
            name: [step.assignment.model for step in assign(of, what, NodeId(name)) if step.rank == 0] for name in nodes
        }

    first = taken(sites, needs)
    chance.shuffle(sites)
    chance.shuffle(needs)

    assert taken(sites, needs) == first
    given = [model for models in first.values() for model in models]
    assert len(given) == len(set(given))
    room = {site.node: site.room.host_bytes for site in sites}
    assert all(len(models) * need_bytes(GIB) <= room[NodeId(name)] for name, models in first.items())


def test_a_model_that_should_have_two_hosts_gets_another() -> None:
    """`min_warm`; and one that is hot gets one more than it has."""
    site = a_site("a", "x")
    warm = a_need("x", "a", hosts=frozenset("b"), places=2)

    assert mine(assign([site], [warm], NodeId("a"))) == [("x", Reason.WARM, 0)]
    assert mine(assign([site], [replace(warm, is_hot=True)], NodeId("a"))) == [("x", Reason.HOT, 0)]


def test_the_next_best_acts_when_the_best_has_not() -> None:
    """Nobody has to know why it does not want to."""
    sites = [a_site("a", "x"), a_site("b", "x")]
    need = a_need("x", "a", "b")
    ranks = {name: assign(sites, [need], NodeId(name))[0].rank for name in "ab"}
    second = next(name for name, rank in ranks.items() if rank == 1)
    late = assign(sites, [replace(need, overdue=1)], NodeId(second))

    assert sorted(ranks.values()) == [0, 1]
    assert "1 better node has not acted" in late[0].assignment.message


def test_a_node_takes_back_nothing_that_it_was_told_to_leave() -> None:
    """What failed here, what somebody unloaded here, what rests."""
    site, waiting = a_site("a", "x", refuses=frozenset("x")), a_need("x", "a", urgency=Urgency.WAITING)
    reluctant = a_site("a", "x", reluctant=frozenset("x"))

    assert assign([site], [waiting], NodeId("a")) == ()
    assert assign([reluctant], [a_need("x", "a")], NodeId("a")) == ()
    assert mine(assign([reluctant], [waiting], NodeId("a"))) == [("x", Reason.REQUESTED_BY_REQUEST, 0)]


def test_a_node_that_fills_no_gaps_still_serves_its_own_requests() -> None:
    """`--assign off` is about unasked work."""
    closed = a_site("a", "x", fills_gaps=False, waiting=frozenset("x"))

    assert mine(assign([closed], [a_need("x", "a", urgency=Urgency.WAITING)], NodeId("a")))
    assert assign([closed], [a_need("x", "a")], NodeId("a")) == ()


def test_what_lies_on_a_disk_is_not_for_nodes_that_were_told_what_to_serve() -> None:
    """`--model M` serves M; what others want it may serve as well."""
    told = a_site("a", "x", has_wishes=True)

    assert assign([told], [a_need("x", "a", urgency=Urgency.LYING)], NodeId("a")) == ()
    assert assign([told], [a_need("x", "a")], NodeId("a"))


def test_a_model_is_loaded_where_its_requests_wait() -> None:
    """If that node has it; one hop less."""
    for seed in range(20):
        sites = [a_site(f"a{seed}", "x"), a_site("b", "x", waiting=frozenset("x"), serves=frozenset("y"))]
        need = a_need("x", f"a{seed}", "b", urgency=Urgency.WAITING)

        assert assign(sites, [need], NodeId("b"))[0].rank == 0


def test_what_rests_makes_room_for_requests() -> None:
    """Where nobody has room; a node with room is better."""
    full = a_site("a", "x", room=2, evictable={ModelId("y"): 2 * GIB}, serves=frozenset("y"))
    full = replace(full, room=Room(gpu_bytes=0, host_bytes=0))
    waiting = a_need("x", "a", "b", urgency=Urgency.WAITING)

    steps = assign([full], [waiting], NodeId("a"))

    assert [step.makes_room for step in steps] == [True]
    assert [step.rank for step in assign([full, a_site("b", "x")], [waiting], NodeId("a"))] == [1]


def test_only_what_others_serve_as_well_makes_room_for_a_wish() -> None:
    """It would only dig another hole."""
    full = a_site("a", "x", room=2, evictable={ModelId("y"): 2 * GIB}, serves=frozenset("y"))
    full = replace(full, room=Room(gpu_bytes=0, host_bytes=0))
    once = a_need("y", "a", hosts=frozenset("a"))
    twice = replace(once, hosts=frozenset("ab"))

    assert assign([full], [a_need("x", "a"), once], NodeId("a")) == ()
    assert [step.makes_room for step in assign([full], [a_need("x", "a"), twice], NodeId("a"))] == [True]


def test_idle_nodes_spread_over_the_least_served_models() -> None:
    """Each knows what those before it take."""
    names = [f"n{number}" for number in range(6)]
    sites = [a_site(name, "x", "y", "z") for name in names]
    needs = [a_need(model, *names, hosts=frozenset({NodeId("h")})) for model in "xyz"]

    taken = [assign(sites, needs, NodeId(name))[0].assignment.model for name in names]

    assert sorted(taken) == ["x", "x", "y", "y", "z", "z"]


def test_why_nobody_can_load_a_model_is_said_in_bytes() -> None:
    """503 `no_capacity` names what is missing."""
    small = replace(a_site("a", "x", room=1), name="small")
    need = a_need("x", "a")

    assert lack_of(need, {}) == "no node that loads models has its file or may fetch it"
    assert lack_of(need, {NodeId("a"): small}) == "needs 1.4 GB, at most 1.1 GB could be free, on small"
    assert lack_of(need, {NodeId("a"): a_site("a", "x")}) == ""
    assert "could not load it" in lack_of(need, {NodeId("a"): a_site("a", "x", refuses=frozenset("x"))})
    fetched = a_need("x", reference=a_reference("x"))
    assert "of disk" in lack_of(fetched, {NodeId("a"): a_site("a", downloads=True)})


def test_a_large_mesh_is_thought_through_in_milliseconds() -> None:
    """200 nodes and 50 models; generous, for a machine that does much else."""
    chance = random.Random(3)
    models = [f"m{number}" for number in range(50)]
    nodes = [f"n{number}" for number in range(200)]
    sites = [a_site(name, *chance.sample(models, 5), room=chance.randrange(2, 30)) for name in nodes]
    holders = {model: [site.node for site in sites if model in site.disk] for model in models}
    needs = [a_need(model, *holders[model]) for model in models]
    took = []
    for _ in range(5):
        began = time.process_time()
        assign(sites, needs, NodeId("n7"))
        took.append(time.process_time() - began)

    assert min(took) < 0.05
