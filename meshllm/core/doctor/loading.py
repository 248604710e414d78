"""Why a model does not get into memory, step by step: memory, file, the system's killer, another try, a smaller file.

Owns the steps and their order. Decides by what the node says of the model and its machine. Doesn't load anything, nor
end what loads: the node's watchdog does.
"""

from dataclasses import dataclass

from meshllm.core.doctor.findings import Finding, Result
from meshllm.core.doctor.smaller import FileOnDisk, Suggestion, smaller_that_fits
from meshllm.core.engines import EngineFault
from meshllm.core.known_models import margin_of
from meshllm.core.resources import format_bytes

_STUCK = frozenset({"failed", "retrying", "queued"})
_ON_ITS_WAY = frozenset({"loading", "downloading"})
_OF_THE_FILE = frozenset({
    EngineFault.BAD_FILE, EngineFault.MISSING_FILE, EngineFault.UNKNOWN_ARCHITECTURE, EngineFault.DOWNLOAD_FAILED,
})  # fmt: skip
_WORDS_OF_OOM = ("out of memory", "cannot allocate memory", "failed to allocate", "oom-kill", "killed by signal 9")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCase:
    """A model that is not in memory, as its node tells of it. Sizes are bytes."""

    model: str
    phase: str
    """As in the status document."""
    size_bytes: int
    fault: str = ""
    failure: str = ""
    waiting: str = ""
    integrity: str = ""
    """`ok`, `missing`, `failed` or `unknown`, as its health says."""
    log: tuple[str, ...] = ()
    """The newest lines of its engine."""
    restarts: int = 0
    retry_in_s: float | None = None
    progress: float | None = None
    """Share of the load that is done, 0 to 1."""
    load_timeout_s: float
    """After so long without progress the node ends the engine."""

    @property
    def is_stuck(self) -> bool:
        """Tell whether it should be in memory and gets no further by itself."""
        return self.phase in _STUCK or bool(self.failure and self.phase == "unloaded")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryHere:
    """What models may take on this machine, in bytes."""

    usable_bytes: int
    """If nothing else were loaded."""
    free_bytes: int


def loading(case: LoadCase, here: MemoryHere, on_disk: tuple[FileOnDisk, ...]) -> tuple[Finding, ...]:
    """Return why a model is not in memory and what would bring it there."""
    is_short = _is_short(case, here)
    return (
        _memory(case, here, is_short=is_short),
        _file(case),
        _killed(case),
        _restart(case),
        _smaller(case, here, on_disk, is_short=is_short),
    )


def _finding(case: LoadCase, name: str, result: Result, message: str, advice: str = "") -> Finding:
    return Finding(name=name, result=result, message=message, advice=advice, model=case.model)


def _needed_bytes(case: LoadCase) -> int:
    """Return what a model takes at least, roughly: the node's own arithmetic is finer."""
    return case.size_bytes + margin_of(case.size_bytes) if case.size_bytes else 0


def _is_short(case: LoadCase, here: MemoryHere) -> bool:
    """Tell whether memory is what is missing: as the node says, as its engine ended, or by the sizes."""
    is_said = case.waiting.startswith("capacity") or case.fault == EngineFault.OUT_OF_MEMORY or bool(_oom_line(case))
    return is_said or (case.phase != "ready" and _needed_bytes(case) > here.free_bytes)


def _memory(case: LoadCase, here: MemoryHere, *, is_short: bool) -> Finding:
    sizes = f"takes about {format_bytes(_needed_bytes(case))}, {format_bytes(here.free_bytes)} are free"
    if not is_short:
        return _finding(case, "memory", Result.OK, sizes)
    if _needed_bytes(case) > here.usable_bytes:
        advice = "a smaller quantisation, another machine of the mesh, or --split where several share it"
        message = f"{sizes}, and no more than {format_bytes(here.usable_bytes)} may be used here (--max-vram)"
        return _finding(case, "memory", Result.FAIL, message, advice)
    said = case.waiting or sizes
    return _finding(case, "memory", Result.FAIL, said, "`mesh-llm unload` another model, or a smaller context")


def _file(case: LoadCase) -> Finding:
    if case.fault in _OF_THE_FILE:
        advice = f"`mesh-llm rm {case.model}` and `mesh-llm pull {case.model}` fetch it again"
        return _finding(case, "file integrity", Result.FAIL, case.failure, advice)
    if case.integrity in {"failed", "missing"}:
        message = "its content is not what its digest says" if case.integrity == "failed" else "its file is gone"
        return _finding(case, "file integrity", Result.FAIL, message, f"`mesh-llm pull {case.model}` fetches it again")
    if case.integrity == "ok":
        return _finding(case, "file integrity", Result.OK, "its content is what its digest says")
    return _finding(case, "file integrity", Result.NOTE, "it was not compared with its digest yet")


def _oom_line(case: LoadCase) -> str:
    """Return the newest line that tells of memory that was refused; empty for none."""
    said = (line for line in (case.failure, *reversed(case.log)) if any(word in line.lower() for word in _WORDS_OF_OOM))
    return next(said, "").strip()


def _killed(case: LoadCase) -> Finding:
    if case.fault == EngineFault.OUT_OF_MEMORY:
        advice = "less at once: --ctx-size, --parallel, or a smaller quantisation"
        return _finding(case, "out of memory", Result.FAIL, case.failure, advice)
    line = _oom_line(case)
    if line:
        return _finding(case, "out of memory", Result.FAIL, line, "the same: --ctx-size, --parallel, a smaller file")
    return _finding(case, "out of memory", Result.OK, "neither its failure nor its engine's log tells of it")


def _restart(case: LoadCase) -> Finding:
    again = f"`mesh-llm load {case.model}` tries again"
    if case.phase == "ready":
        return _finding(case, "another try", Result.OK, "not needed: it is in memory")
    if case.phase == "retrying":
        when = f" in {case.retry_in_s:.0f} s" if case.retry_in_s is not None else ""
        message = f"the node tries again by itself{when}, after {case.restarts} restarts"
        return _finding(case, "another try", Result.NOTE, message)
    if case.phase in _ON_ITS_WAY:
        share = f", {case.progress:.0%} done" if case.progress is not None else ""
        message = f"it is {case.phase}{share}; without progress for {case.load_timeout_s:.0f} s the node ends it"
        return _finding(case, "another try", Result.NOTE, message)
    if case.phase == "queued":
        return _finding(case, "another try", Result.NOTE, "it starts by itself when there is room")
    if case.failure:
        return _finding(case, "another try", Result.FAIL, f"the node gave up: {case.failure}", again)
    return _finding(case, "another try", Result.NOTE, f"nothing is under way, it is {case.phase}", again)


def _smaller(
    case: LoadCase, here: MemoryHere, on_disk: tuple[FileOnDisk, ...], *, is_short: bool
) -> Finding:  # fmt: skip
    name = "smaller quantisation"
    if not is_short:
        return _finding(case, name, Result.OK, "not needed: memory is not what is missing")
    found = smaller_that_fits(case.model, case.size_bytes, here.free_bytes, on_disk)
    if found is not None:
        return _finding(case, name, Result.NOTE, f"{_said(found)} fits", f"`mesh-llm load {found.name}`")
    found = smaller_that_fits(case.model, case.size_bytes, here.usable_bytes, on_disk)
    if found is not None:
        message = f"{_said(found)} fits when other models are unloaded"
        return _finding(case, name, Result.NOTE, message, f"then `mesh-llm load {found.name}`")
    message = f"none of it that fits into {format_bytes(here.usable_bytes)} is on this disk or in the catalogue"
    return _finding(
        case, name, Result.NOTE, message, "a hub may have one, which is named USER/REPO:Q4_K_M; or another model"
    )


def _said(found: Suggestion) -> str:
    return f"{found.name} ({format_bytes(found.size_bytes)}, {'on this disk' if found.is_here else 'to be fetched'})"
