"""What `mesh-llm doctor` looks at itself: folders, port, machine, network, engine, models; where a missed model may be.

Owns the order of the checks, which is that of a node's start. Decides only what is a fault and what is a note; what is
made of a missed model is the core's. Asks no node.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from meshllm.config import Config
from meshllm.core.catalog import ModelProblem, ModelSpec
from meshllm.core.doctor.discovery import UNREADABLE, Search
from meshllm.core.doctor.findings import Finding, Result
from meshllm.core.engines import EngineFailure
from meshllm.core.known_models import aliases_of
from meshllm.core.limits import DISK_RESERVE_BYTES
from meshllm.core.names import Ambiguous, NameIndex, Unknown
from meshllm.core.resources import format_bytes
from meshllm.daemon.ports import holder_of
from meshllm.daemon.standalone import engine, models, resources, sharing
from meshllm.engine.rpc_programs import RpcProblem
from meshllm.inventory.addresses import InterfaceAddress, interface_addresses
from meshllm.inventory.strays import strays, wanted_by


async def checks(config: Config) -> tuple[Finding, ...]:
    """Look at everything that a node needs and return what was found, in the order of its start."""
    return (
        *_folder_checks(config),
        _port_check(config),
        _machine_check(config),
        network_check(interface_addresses()),
        await _engine_check(config),
        await _sharing_check(config),
        *_model_checks(config),
    )


def _folder_checks(config: Config) -> list[Finding]:
    found = []
    for name, folder in (("state folder", config.state_dir), ("model folder", config.models_dirs[0])):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(existing, os.W_OK):
            found.append(
                Finding(name=name, result=Result.FAIL, message=f"{folder} is not writable", advice="choose another one")
            )
            continue
        free = shutil.disk_usage(existing).free
        is_ok = free > DISK_RESERVE_BYTES
        advice = "" if is_ok else f"downloads keep {format_bytes(DISK_RESERVE_BYTES)} free: make room"
        found.append(
            Finding(
                name=name,
                result=Result.OK if is_ok else Result.FAIL,
                message=f"{folder}, {format_bytes(free)} free",
                advice=advice,
            )
        )
    return found


def _port_check(config: Config) -> Finding:
    holder = holder_of(config.port)
    if holder is None:
        return Finding(name="port", result=Result.OK, message=f"{config.port} is free")
    advice = "`mesh-llm status` tells whether it is a node; --port chooses another one"
    return Finding(name="port", result=Result.NOTE, message=f"{config.port} is held by {holder}", advice=advice)


def _machine_check(config: Config) -> Finding:
    found = resources(config)
    memory = (
        f"{found.cores} cores, {format_bytes(found.memory_free_bytes)} of {format_bytes(found.memory_total_bytes)} free"
    )
    if found.gpus:
        gpus = ", ".join(f"{device.name} ({format_bytes(device.free_bytes)} free)" for device in found.gpus)
        return Finding(name="machine", result=Result.OK, message=f"{memory}; {gpus}")
    return Finding(
        name="machine", result=Result.OK, message=f"{memory}; no GPU: {found.gpu_problem or 'none installed'}"
    )


def network_check(found: Sequence[InterfaceAddress]) -> Finding:
    """Tell at which addresses other nodes reach this one. None is no fault: a node may be alone."""
    hosts = [each.host for each in found if not each.is_virtual]
    if not hosts:
        message = "no address that other machines could reach"
        return Finding(
            name="network", result=Result.NOTE, message=message, advice="--advertise names one that is not seen here"
        )
    return Finding(name="network", result=Result.OK, message=f"other nodes reach this one at {', '.join(hosts)}")


async def _engine_check(config: Config) -> Finding:
    found = await engine(config)
    if isinstance(found, EngineFailure):
        return Finding(
            name="engine",
            result=Result.FAIL,
            message=found.message,
            advice="--engine names a llama-server to use instead",
        )
    where = "uses the GPU" if found.uses_gpu else "computes on the processor"
    return Finding(name="engine", result=Result.OK, message=f"{found.kind} {found.version}, {where}")


async def _sharing_check(config: Config) -> Finding:
    """Tell whether this node could take part in a split. Not being able to is no fault: most models fit somewhere."""
    found = await sharing(config)
    if isinstance(found, RpcProblem):
        advice = "only models that no machine can hold alone need it"
        return Finding(name="sharing models", result=Result.NOTE, message=found.message, advice=advice)
    where = f", on {', '.join(found.devices)}" if found.devices else ""
    return Finding(name="sharing models", result=Result.OK, message=f"RPC {found.version}{where}")


def _model_checks(config: Config) -> list[Finding]:
    found, problems = models(config)
    advice = "" if found else "`mesh-llm pull smollm2-135m` fetches a small one"
    listed = Finding(
        name="models", result=Result.OK if found else Result.NOTE, message=f"{len(found)} on disk", advice=advice
    )
    return [
        listed,
        *(Finding(name="model file", result=Result.FAIL, message=f"{one.path}: {one.message}") for one in problems),
    ]


def search(config: Config, asked: str) -> Search:
    """Look for a model that somebody misses: below the model folders, by its path, in the present folder."""
    specs, problems = models(config)
    spec, near = _meant(specs, asked)
    folders = tuple(str(folder) for folder in config.models_dirs)
    return Search(
        asked=asked, folders=folders, found=spec.id if spec is not None else "",
        path=spec.path if spec is not None else "", near=near,
        problems=tuple(problem for problem in problems if _may_be(problem, asked)),
        strays=() if spec is not None else strays(config.models_dirs, asked, Path.cwd()),
    )  # fmt: skip


def _meant(specs: Sequence[ModelSpec], asked: str) -> tuple[ModelSpec | None, tuple[str, ...]]:
    """Return the model that a name or a path means, or those that are called nearly so."""
    on_disk = {spec.id: spec for spec in specs}
    by_path = {path: spec for spec in specs for path in spec.files}
    if (spec := by_path.get(str(Path(asked).expanduser().absolute()))) is not None:
        return spec, ()
    found = NameIndex(on_disk, aliases_of(on_disk)).resolve(asked)
    if isinstance(found, Ambiguous):
        return None, tuple(found.candidates)
    return (None, tuple(found.near)) if isinstance(found, Unknown) else (on_disk[found], ())


def _may_be(problem: ModelProblem, asked: str) -> bool:
    """Tell whether something that cannot be used may be what is missed; a closed folder may hold anything."""
    wanted = wanted_by(asked)
    is_named = bool(wanted) and wanted in problem.path.casefold()
    return is_named or (problem.code == UNREADABLE and not problem.path.casefold().endswith(".gguf"))
