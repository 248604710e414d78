"""Announcements as bytes: bounds, names and addresses (rows of malformed inputs, 3.4)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.core.announcement import Address, DiskModel, RequestedModel, ServedModel, ServingState
from meshllm.core.ids import ModelId
from meshllm.core.limits import ANNOUNCEMENT_BYTES
from meshllm.core.resources import Gpu, Resources
from meshllm.core.rights import Rights
from meshllm.wire.announcements import decode_announcement, encode_announcement
from meshllm.wire.errors import WireCode, WireError
from meshllm.wire.packing import pack, plain
from tests.wire.builders import NODE, announcement


def served(**changes: object) -> ServedModel:
    """Return a served model, or a variation."""
    return replace(ServedModel(model=ModelId("m"), digest="", state=ServingState.READY), **changes)


def resources(**changes: object) -> Resources:
    """Return a small machine, or a variation."""
    return replace(Resources(cores=1, memory_total_bytes=10, memory_free_bytes=5), **changes)


def test_every_field_comes_back() -> None:
    """What is announced is what is read."""
    full = announcement()

    assert decode_announcement(encode_announcement(full)) == full


def test_a_node_that_has_not_measured_itself_says_so() -> None:
    """A client never does."""
    said = announcement(resources=None)

    assert decode_announcement(encode_announcement(said)) == said


def test_a_machine_with_no_gpu_says_why() -> None:
    """The other branch of every optional field."""
    said = announcement(resources=resources(gpu_problem="no driver"), serving=(), addresses=())

    assert decode_announcement(encode_announcement(said)) == said


PART = {"node": NODE, "layers": 1, "memory_bytes": 1}


def shared_by(count: int) -> dict[str, object]:
    """Return a model that so many nodes share."""
    return {**plain(served()), "shared": {"epoch": 1, "parts": [PART] * count}}


REFUSED = {
    "257 models on disk": {
        "models_on_disk": [{"model": f"m{n}", "digest": "", "size_bytes": 1} for n in range(257)]
    },
    "10,000 models": {"waiting": ["m"] * 10_000},
    "a request without a name": {"requested": [{"name": ""}]},
    "an order by nobody": {"orders": [{"model": "m", "verb": "load", "version": 1, "author": "x"}]},
    "an order to explode": {"orders": [{"model": "m", "verb": "explode", "version": 1, "author": NODE}]},
    "routing chosen by nobody": {"routing": {"version": 1, "author": "x", "config": {}}},
    "quotas below nothing": {"quotas": [{"model": "m", "version": 1, "author": NODE, "quotas": {"on_limit": "x"}}]},
    "quotas of no name": {"quotas": [{"model": "", "version": 1, "author": NODE, "quotas": {}}]},
    "a reason of 1 kB": {"unshared": [["m", "x" * 1000]]},
    "a reason for no name": {"unshared": [["", "because"]]},
    "uses of no name": {"quota_uses": [{"model": ""}]},
    "routing by guessing": {"routing": {"version": 1, "author": NODE, "config": {"strategy": "guess"}}},
    "routing with a load of 200 %": {"routing": {"version": 1, "author": NODE, "config": {"max_load": 2.0}}},
    "257 models asked for": {"demand": [[f"m{n}", 1.0] for n in range(257)]},
    "17 addresses": {"addresses": [{"host": "192.0.2.1", "port": n + 1} for n in range(17)]},
    "65 GPUs": {
        "resources": plain(resources(gpus=(Gpu(index=0, name="g", total_bytes=1, free_bytes=1),) * 65))
    },
    "a model twice": {"serving": [plain(served()), plain(served())]},
    "33 capabilities": {"serving": [plain(served(capabilities=("c",) * 33))]},
    "a description of 1 kB": {"serving": [plain(served(display_name="x" * 1000))]},
    "hit rate of 2": {"serving": [plain(served(hit_rate=2.0))]},
    "state unknown": {"serving": [{**plain(served()), "state": "exploding"}]},
    "role unknown": {"role": "king"},
    "digest that is a path": {"models_on_disk": [{"model": "m", "digest": "../../x", "size_bytes": 1}]},
    "model with an escape": {"models_on_disk": [{"model": "a\x1b[2J", "digest": "", "size_bytes": 1}]},
    "model without a name": {"waiting": [""]},
    "model name of 4,000 characters": {"demand": [["m" * 4000, 1.0]]},
    "name with markup": {"name": "<b>"},
    "name of 65 characters": {"name": "n" * 65},
    "no name": {"name": ""},
    "no node id": {"node": "somebody"},
    "negative size": {"models_on_disk": [{"model": "m", "digest": "", "size_bytes": -1}]},
    "VRAM of 2^64-1": {
        "resources": {
            "cores": 1, "memory_total_bytes": 1, "memory_free_bytes": 1,
            "gpus": [{"index": 0, "name": "g", "total_bytes": 2**64 - 1, "free_bytes": 0}],
        }
    },
    "more memory free than there is": {"resources": plain(resources(memory_free_bytes=11))},
    "GPU problem of 1 kB": {"resources": plain(resources(gpu_problem="x" * 1000))},
    "load of 2": {"load": 2.0},
    "load that is not a number": {"load": float("nan")},
    "boolean version": {"version": True},
    "version with a fraction": {"version": 1.5},
    "version 2^63": {"version": 2**63},
    "text as addresses": {"addresses": "192.0.2.1"},
    "a model shared by one": {"serving": [shared_by(1)]},
    "a model shared by nine": {"serving": [shared_by(9)]},
    "epoch 0": {"serving": [{**plain(served()), "shared": {"epoch": 0, "parts": [PART, PART]}}]},
    "memory lent to nobody": {"lends": [{"model": "m", "host": "x", "epoch": 1, "memory_bytes": 1}]},
    "memory lent twice": {"lends": [{"model": "m", "host": NODE, "epoch": 1, "memory_bytes": 1}] * 2},
    "build of 1 kB": {"engine_build": "x" * 1000},
}  # fmt: skip


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED.keys())
def test_out_of_bounds_is_refused_as_a_whole(changes: dict[str, object]) -> None:
    """Half a statement is another statement."""
    with pytest.raises(WireError) as caught:
        decode_announcement(pack({**plain(announcement()), **changes}))

    assert caught.value.code is WireCode.MALFORMED


def test_too_many_bytes_are_refused() -> None:
    """Before they are read."""
    with pytest.raises(WireError) as caught:
        decode_announcement(bytes(ANNOUNCEMENT_BYTES + 1))

    assert caught.value.code is WireCode.FRAME_TOO_LARGE


def test_unknown_fields_are_left_out() -> None:
    """A newer node may say more."""
    full = announcement()

    assert decode_announcement(pack({**plain(full), "mood": ["good"]})) == full


def test_unknown_rights_are_left_out() -> None:
    """A right that this program does not know is none."""
    body = pack({**plain(announcement()), "rights": 0x71})

    assert decode_announcement(body).rights == Rights.INFER


BAD_ADDRESSES = [
    ("127.0.0.1", 4000), ("127.9.9.9", 4000), ("::1", 4000), ("::ffff:127.0.0.1", 4000), ("0.0.0.0", 4000),
    ("::", 4000), ("224.0.0.251", 4000), ("ff02::fb", 4000), ("255.255.255.255", 4000), ("240.0.0.1", 4000),
    ("fe80::1", 4000), ("fe80::1%eth0", 4000), ("169.254.169.254", 80), ("192.0.2.1", 0), ("192.0.2.1", 65_536),
    ("192.0.2.1", 70_000), ("localhost", 4000), ("", 4000), ("192.0.2.1:1", 4000), ("1", 4000),
]  # fmt: skip


@pytest.mark.parametrize(("host", "port"), BAD_ADDRESSES)
def test_an_address_that_nobody_should_dial_is_left_out(host: str, port: int) -> None:
    """Gossip never leads a node to itself, to everybody, or to nowhere; the rest of the statement stands."""
    good = Address("192.0.2.7", 4000)
    body = pack({**plain(announcement()), "addresses": [{"host": host, "port": port}, plain(good)]})

    assert decode_announcement(body).addresses == (good,)


def test_loopback_is_kept_where_it_is_asked_for() -> None:
    """Several nodes on one machine meet there."""
    said = announcement(addresses=(Address("127.0.0.1", 4000), Address("::1", 4000), Address("127.0.0.1", 0)))

    found = decode_announcement(encode_announcement(said), allow_loopback=True).addresses

    assert found == said.addresses[:2]


def test_addresses_are_brought_into_one_form() -> None:
    """The same place in two spellings is one address."""
    spellings = ("2001:DB8::0007", "2001:db8:0:0::7", "2001:db8::7")
    said = announcement(addresses=tuple(Address(host, 4000) for host in spellings))
    mapped = announcement(addresses=(Address("::ffff:192.0.2.7", 4000),))

    assert decode_announcement(encode_announcement(said)).addresses == (Address("2001:db8::7", 4000),)
    assert decode_announcement(encode_announcement(mapped)).addresses == (Address("192.0.2.7", 4000),)


@given(name=st.text(), model=st.text(max_size=300), text=st.text(max_size=400))
def test_what_a_node_says_of_itself_is_taken_whatever_its_files_are_called(name: str, model: str, text: str) -> None:
    """A strange file name must not put its node out of the mesh."""
    said = announcement(
        name=name, engine_build=text, requested=(RequestedModel(name=model, model=ModelId(model), repository=text),),
        demand=((model, 1.0),), load=1.5,
        models_on_disk=(DiskModel(model=ModelId(model), digest="", size_bytes=1),),
        serving=(served(model=ModelId(model), display_name=text, capabilities=(text,)),),
        resources=resources(memory_free_bytes=11, gpu_problem=text),
    )  # fmt: skip

    assert decode_announcement(encode_announcement(said)).node == NODE


def test_a_full_disk_fits() -> None:
    """Two hundred and fifty-six models with usual names are announced, all of them."""
    models = tuple(
        DiskModel(model=ModelId(f"Qwen2.5-{n}B-Instruct-Q4_K_M"), digest=f"sha256:{n:064x}", size_bytes=n)
        for n in range(256)
    )

    assert decode_announcement(encode_announcement(announcement(models_on_disk=models))).models_on_disk == models


def test_of_too_long_names_as_many_as_fit() -> None:
    """The size of a record is a promise to every receiver."""
    models = tuple(
        DiskModel(model=ModelId(f"{n:03}" + "ä" * 252), digest=f"sha256:{n:064x}", size_bytes=n) for n in range(256)
    )

    body = encode_announcement(announcement(models_on_disk=models))

    assert len(body) <= ANNOUNCEMENT_BYTES
    assert 0 < len(decode_announcement(body).models_on_disk) < 256


def test_a_port_that_does_not_exist_is_refused() -> None:
    """Nobody dials it."""
    with pytest.raises(WireError):
        decode_announcement(pack({**plain(announcement()), "bulk_port": 65_536}))
