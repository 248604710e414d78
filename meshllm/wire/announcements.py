"""Announcements as bytes: what is inside a signed record.

Owns the form, and the bounds of every list, name and address in it. Decides that a statement out of bounds is refused
as a whole, while an address that nobody should dial is only left out. Doesn't know signatures.
"""

import ipaddress
from dataclasses import replace

from meshllm.core.addresses import is_dialable
from meshllm.core.announcement import Address, Announcement, RequestedModel, ServedModel
from meshllm.core.ids import NO_MODEL
from meshllm.core.limits import (
    ANNOUNCED_ADDRESSES,
    ANNOUNCED_CAPABILITIES,
    ANNOUNCED_GPUS,
    ANNOUNCED_NAMES,
    ANNOUNCED_ORDERS,
    ANNOUNCED_REQUESTS,
    ANNOUNCEMENT_BYTES,
    MODELS_PER_NODE,
    QUOTA_MODELS,
)
from meshllm.core.resources import Resources
from meshllm.core.rights import OWN_MACHINE
from meshllm.core.split_limits import SPLIT_WORKERS
from meshllm.wire.names import (
    check_digest,
    check_epoch,
    check_id,
    check_model,
    check_node_name,
    check_text,
    fit_node_name,
    fit_text,
    is_model_id,
)
from meshllm.wire.orders import check_quotas, check_routing
from meshllm.wire.packing import malformed, pack, read

KNOWN_RIGHTS = OWN_MACHINE
PORTS = 65_536


def encode_announcement(announcement: Announcement) -> bytes:
    """Return an announcement as bytes that other nodes take.

    What they would refuse is made to fit: control characters in texts are replaced, models beyond the count or with
    unspeakable names are left out, and of the models on disk as many as the size asks for, the last first.
    """
    fitted = _fitted(announcement)
    body = pack(fitted)
    while len(body) > ANNOUNCEMENT_BYTES and fitted.models_on_disk:
        fitted = replace(fitted, models_on_disk=fitted.models_on_disk[: len(fitted.models_on_disk) * 3 // 4])
        body = pack(fitted)
    return body


def decode_announcement(body: bytes, *, allow_loopback: bool = False) -> Announcement:
    """Return the announcement in `body`. Raises WireError.

    `allow_loopback` keeps addresses of this machine: for several nodes on one, and for tests.
    """
    said = read(body, Announcement, ANNOUNCEMENT_BYTES)
    check_id(said.node)
    check_node_name(said.name)
    check_text(said.engine_build, said.rpc_version)
    _check_counts(said)
    for model in said.models_on_disk:
        check_model(model.model)
        check_digest(model.digest)
    for served in said.serving:
        _check_served(served)
    for lent in said.lends:
        check_model(lent.model)
        check_id(lent.host)
        check_epoch(lent.epoch)
    for requested in said.requested:
        _check_requested(requested)
    for named in said.names:
        check_model(named.name)
        check_model(named.model)
        check_text(named.version)
    for order in (*said.orders, *(() if said.default is None else (said.default,))):
        check_model(order.model)
        check_id(order.author)
    if said.routing is not None:
        check_routing(said.routing)
    check_quotas(said.quotas, said.quota_uses)
    for name in (*said.waiting, *(model for model, _ in (*said.demand, *said.uses, *said.unshared))):
        check_model(name)
    check_text(*(why for _, why in said.unshared))
    if said.bulk_port >= PORTS:
        raise malformed("a port that does not exist")
    if said.load > 1.0:
        raise malformed("a load above all there is")
    if said.resources is not None:
        _check_resources(said.resources)
    addresses = usable_addresses(said.addresses, allow_loopback=allow_loopback)
    return replace(said, addresses=addresses, rights=said.rights & KNOWN_RIGHTS)


def usable_addresses(addresses: tuple[Address, ...], *, allow_loopback: bool) -> tuple[Address, ...]:
    """Return the addresses that may be dialled, in plain form, each once. What a peer says never leads to oneself."""
    plain = (_plain(address) for address in addresses)
    return tuple(
        dict.fromkeys(
            address
            for address in plain
            if address is not None and (is_dialable(address) or (allow_loopback and _is_loopback(address)))
        )
    )


def _plain(address: Address) -> Address | None:
    """Return an address with its host written as everybody writes it, or None when it is none."""
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return None
    mapped = getattr(ip, "ipv4_mapped", None)
    return Address(str(mapped or ip), address.port)


def _is_loopback(address: Address) -> bool:
    return ipaddress.ip_address(address.host).is_loopback and 0 < address.port < PORTS


def _check_counts(said: Announcement) -> None:
    lists = (
        said.models_on_disk, said.serving, said.requested, said.demand, said.uses, said.waiting, said.orders,
        said.names, said.lends, said.quota_uses, said.unshared,
    )  # fmt: skip
    if any(len(entries) > MODELS_PER_NODE for entries in lists) or len(said.addresses) > ANNOUNCED_ADDRESSES:
        raise malformed("more models or addresses than a node has")
    for entries in (said.models_on_disk, said.serving, said.lends):
        if len({entry.model for entry in entries}) != len(entries):
            raise malformed("a model occurs twice")


def _check_requested(requested: RequestedModel) -> None:
    check_model(requested.name)
    if requested.model:
        check_model(requested.model)
    check_digest(requested.digest)
    check_text(requested.repository, requested.filename, requested.sha256, requested.package)


def _check_served(served: ServedModel) -> None:
    check_model(served.model)
    check_digest(served.digest)
    check_text(
        served.display_name,
        served.architecture,
        served.quantization,
        served.health,
        served.trouble,
        served.memory,
        served.file_integrity,
        served.recipe,
        *served.capabilities,
    )
    if served.shared is not None:
        check_epoch(served.shared.epoch)
        check_id(*(part.node for part in served.shared.parts))
        if not 1 < len(served.shared.parts) <= SPLIT_WORKERS + 1:
            raise malformed("a model is shared by as many as cannot be")
    if len(served.capabilities) > ANNOUNCED_CAPABILITIES or max(served.hit_rate, served.error_rate or 0.0) > 1.0:
        raise malformed("a model's facts are out of bounds")


def _check_resources(resources: Resources) -> None:
    check_text(resources.gpu_problem or "", *(text for gpu in resources.gpus for text in (gpu.name, gpu.driver)))
    if len(resources.gpus) > ANNOUNCED_GPUS:
        raise malformed("more GPUs than a machine has")
    free, total = resources.memory_free_bytes, resources.memory_total_bytes
    if free > total or any(gpu.free_bytes > gpu.total_bytes for gpu in resources.gpus):
        raise malformed("more memory is free than there is")


# -- one's own -----------------------------------------------------------------------------------------


def _fitted(said: Announcement) -> Announcement:
    on_disk = tuple(model for model in said.models_on_disk if is_model_id(model.model))
    serving = tuple(_fitted_model(served) for served in said.serving if is_model_id(served.model))
    return replace(
        said, name=fit_node_name(said.name), addresses=said.addresses[:ANNOUNCED_ADDRESSES],
        models_on_disk=on_disk[:MODELS_PER_NODE], serving=serving[:MODELS_PER_NODE],
        requested=tuple(_fitted_request(one) for one in said.requested if is_model_id(one.name))[:ANNOUNCED_REQUESTS],
        waiting=tuple(model for model in said.waiting if is_model_id(model))[:MODELS_PER_NODE],
        orders=tuple(order for order in said.orders if is_model_id(order.model))[:ANNOUNCED_ORDERS],
        default=said.default if said.default is not None and is_model_id(said.default.model) else None,
        names=tuple(one for one in said.names if is_model_id(one.name) and is_model_id(one.model))[:ANNOUNCED_NAMES],
        demand=tuple(pair for pair in said.demand if is_model_id(pair[0]))[:MODELS_PER_NODE],
        uses=tuple(pair for pair in said.uses if is_model_id(pair[0]))[:MODELS_PER_NODE],
        unshared=tuple((model, fit_text(why)) for model, why in said.unshared if is_model_id(model))[:MODELS_PER_NODE],
        quotas=tuple(one for one in said.quotas if is_model_id(one.model))[:QUOTA_MODELS],
        quota_uses=tuple(one for one in said.quota_uses if is_model_id(one.model))[:QUOTA_MODELS],
        engine_build=fit_text(said.engine_build), rpc_version=fit_text(said.rpc_version), load=min(said.load, 1.0),
        resources=None if said.resources is None else _fitted_resources(said.resources),
    )  # fmt: skip


def _fitted_request(requested: RequestedModel) -> RequestedModel:
    is_known = is_model_id(requested.model)
    return replace(
        requested, model=requested.model if is_known else NO_MODEL, repository=fit_text(requested.repository),
        filename=fit_text(requested.filename), package=fit_text(requested.package),
    )  # fmt: skip


def _fitted_model(served: ServedModel) -> ServedModel:
    return replace(
        served, display_name=fit_text(served.display_name), architecture=fit_text(served.architecture),
        quantization=fit_text(served.quantization), trouble=fit_text(served.trouble),
        hit_rate=min(served.hit_rate, 1.0),
        capabilities=tuple(fit_text(name) for name in served.capabilities[:ANNOUNCED_CAPABILITIES]),
    )  # fmt: skip


def _fitted_resources(resources: Resources) -> Resources:
    gpus = tuple(
        replace(
            gpu, name=fit_text(gpu.name), driver=fit_text(gpu.driver), free_bytes=min(gpu.free_bytes, gpu.total_bytes)
        )
        for gpu in resources.gpus[:ANNOUNCED_GPUS]
    )
    problem = None if resources.gpu_problem is None else fit_text(resources.gpu_problem)
    free_bytes = min(resources.memory_free_bytes, resources.memory_total_bytes)
    return replace(resources, gpus=gpus, gpu_problem=problem, memory_free_bytes=free_bytes)
