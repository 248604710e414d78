"""What other nodes could take, by what they announce."""

from dataclasses import replace

import pytest

from meshllm.core.announcement import Announcement, DiskModel, RequestedModel, Role, ServedModel, ServingState
from meshllm.core.ids import ModelId
from meshllm.core.limits import GIB
from meshllm.core.resources import Usable
from meshllm.core.rights import GUEST, OWN_MACHINE, Rights
from meshllm.core.serving.capacity import Room
from meshllm.core.serving.sites import estimated, less, may_yet_host, more, need_bytes, room_of, site_of, whole_of
from tests.core.builders import a_gpu, a_machine
from tests.core.members.builders import an_announcement

M = ModelId("m")


def a_served(model: str = "m", state: ServingState = ServingState.READY, **changes: object) -> ServedModel:
    """Return a model of two GiB that a node serves."""
    return replace(ServedModel(model=ModelId(model), digest=model, state=state, size_bytes=2 * GIB), **changes)


def a_node(*serving: ServedModel, memory: int = 10, free: int | None = None, **changes: object) -> Announcement:
    """Return what a node with so many GiB says."""
    free_bytes = None if free is None else free * GIB
    machine = a_machine(memory_bytes=memory * GIB, free_bytes=free_bytes)
    return an_announcement("a", resources=machine, serving=serving, **changes)


def test_a_node_that_has_just_started_may_host_yet() -> None:
    """Unless it never will: a client, one without the right, one that has left."""
    young = a_node(is_starting=True, rights=GUEST)

    assert may_yet_host(young)
    assert not may_yet_host(replace(young, is_starting=False))
    assert not may_yet_host(replace(young, role=Role.CLIENT))
    assert not may_yet_host(replace(young, rights=Rights.NONE))
    assert not may_yet_host(replace(young, left=True))


def test_a_node_has_the_room_that_nothing_takes() -> None:
    """Nine tenths of its memory, if nothing runs there."""
    site = site_of(a_node(models_on_disk=(DiskModel(model=M, digest="x", size_bytes=5),)))

    assert site is not None
    assert site.room == site.whole == Room(gpu_bytes=0, host_bytes=9 * GIB)
    assert dict(site.disk) == {"m": 5}


def test_what_is_measured_free_bounds_the_room() -> None:
    """Other programs run there as well."""
    site = site_of(a_node(free=3))

    assert site is not None
    assert site.room.host_bytes == 3 * GIB


def test_a_node_that_says_what_it_may_use_is_believed() -> None:
    """It was told a limit, or its engine cannot use its GPUs."""
    said = a_node(a_served(), memory=10)
    site = site_of(replace(said, usable=Usable(memory_bytes=6 * GIB)))

    assert site is not None
    assert site.whole == Room(gpu_bytes=0, host_bytes=6 * GIB)
    assert site.room.host_bytes == 6 * GIB - need_bytes(2 * GIB)
    gpus = replace(said, resources=a_machine(memory_bytes=10 * GIB, gpus=(a_gpu(),)))
    assert whole_of(replace(gpus, usable=Usable(memory_bytes=9 * GIB))).gpu_bytes == 0
    assert whole_of(gpus).gpu_bytes > 0
    nothing = Room(gpu_bytes=0, host_bytes=0)
    assert room_of(replace(said, resources=None)) == whole_of(replace(said, resources=None)) == nothing


def test_what_is_claimed_and_not_in_memory_yet_is_counted() -> None:
    """The measurement cannot show it."""
    ready, claimed = site_of(a_node(a_served(), free=4)), site_of(a_node(a_served(state=ServingState.CLAIMED), free=4))

    assert ready is not None
    assert claimed is not None
    assert ready.room.host_bytes == 4 * GIB
    assert claimed.room.host_bytes == 4 * GIB - need_bytes(2 * GIB)


def test_a_node_promises_no_more_than_it_has_whatever_is_measured() -> None:
    """Memory that is mapped and not touched looks free."""
    site = site_of(a_node(a_served("m"), a_served("n"), a_served("o"), free=10))

    assert site is not None
    assert site.room.host_bytes == 9 * GIB - 3 * need_bytes(2 * GIB)


def test_only_what_a_node_gave_itself_and_rests_can_be_thrown_out() -> None:
    """Nobody's explicit wish, and nobody's answer."""
    site = site_of(
        a_node(
            a_served("asked"), a_served("given", is_assigned=True), a_served("busy", is_assigned=True, busy=1),
            a_served("loading", ServingState.LOADING, is_assigned=True),
        )
    )  # fmt: skip

    assert site is not None
    assert list(site.evictable) == ["given"]


def test_who_may_not_host_is_no_site() -> None:
    """Guests without the right, clients, and nodes that have not looked at their machine."""
    assert site_of(a_node(rights=Rights.INFER)) is None
    assert site_of(a_node(role=Role.CLIENT)) is None
    assert site_of(an_announcement("a", resources=None)) is None


@pytest.mark.rows("CLI-12")
@pytest.mark.parametrize(("rights", "fetches"), [(OWN_MACHINE, True), (GUEST, False)])
def test_only_a_machine_of_the_mesh_s_own_person_fetches_what_others_want(rights: Rights, fetches: bool) -> None:
    """Decision 0032: nobody fills a guest's disk. The rights are those of its certificate, as they are now."""
    site = site_of(replace(a_node(rights=rights), downloads=True))

    assert site is not None
    assert site.downloads is fetches


def test_a_node_that_was_told_what_to_serve_has_wishes() -> None:
    """What merely lies on its disk stays there."""
    site = site_of(a_node(requested=(RequestedModel(name="m"),)))

    assert site is not None
    assert site.has_wishes


def test_gpus_are_filled_first() -> None:
    """The rest goes to the host, as llama.cpp's layers do."""
    room = Room(gpu_bytes=2 * GIB, host_bytes=4 * GIB)

    assert less(room, 3 * GIB) == Room(gpu_bytes=0, host_bytes=3 * GIB)
    assert more(less(room, 3 * GIB), 3 * GIB, room) == room
    assert estimated(M, 5 * GIB, room) == Room(gpu_bytes=0, host_bytes=6 * GIB - need_bytes(5 * GIB))
    assert estimated(M, 6 * GIB, room) is None


def test_the_memory_of_gpus_counts() -> None:
    """A model may lie on both."""
    said = replace(a_node(), resources=a_machine(memory_bytes=10 * GIB, gpus=(a_gpu(total_bytes=20 * GIB),)))

    site = site_of(said)

    assert site is not None
    assert site.room == Room(gpu_bytes=18 * GIB, host_bytes=9 * GIB)


def test_a_download_needs_disk_a_size_and_consent() -> None:
    """A size that nobody knows may be anything."""
    site = site_of(replace(a_node(downloads=True), resources=replace(a_machine(), disk_free_bytes=10 * GIB)))

    assert site is not None
    assert [site.can_download(size * GIB) for size in (0, 5, 9)] == [False, True, False]
    assert not replace(site, downloads=False).can_download(GIB)
