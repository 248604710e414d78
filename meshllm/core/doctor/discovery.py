"""Why a model is not found: where it should lie, who may read it, what the log says, and how it is registered by hand.

Owns the steps and their order. Decides by what was seen in the model folders and heard of the node. Doesn't look at any
disk: `Search` is what somebody found there.
"""

from dataclasses import dataclass
from enum import StrEnum

from meshllm.core.catalog import ModelProblem
from meshllm.core.doctor.findings import Finding, Result, listed
from meshllm.core.known_models import find, is_hub_name, near_names

UNREADABLE = "unreadable"
"""The code of a problem that is about permissions."""


class Stray(StrEnum):
    """Why a file that is called like a model is none to a node, in words."""

    UNFINISHED = "is an unfinished download"
    FORMAT = "is of another format than GGUF"
    HIDDEN = "is hidden: its name, or its folder's, begins with a dot"
    DEEP = "lies too deep below the model folder"
    OUTSIDE = "lies in none of the model folders"


_WHAT_HELPS = {
    Stray.UNFINISHED: "`mesh-llm pull` with its name goes on with it",
    Stray.FORMAT: "engines read GGUF files: fetch the model as one, for example from `USER/REPO:Q4_K_M`",
    Stray.HIDDEN: "rename it without the dot",
    Stray.DEEP: "move it to {folder}/NAME.gguf or {folder}/NAME/NAME.gguf",
    Stray.OUTSIDE: "move it to {folder}, or start the node with --models-dir {parent}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is known of a name that somebody misses among the models."""

    asked: str
    folders: tuple[str, ...]
    """The model folders, the first of which takes downloads."""
    found: str = ""
    """The id of the model that the folders have under this name."""
    path: str = ""
    near: tuple[str, ...] = ()
    """Models that are called nearly so."""
    problems: tuple[ModelProblem, ...] = ()
    """Files and folders that may be it and cannot be used."""
    strays: tuple[tuple[str, Stray], ...] = ()
    """Files that are called so and that no scan takes."""
    log: tuple[str, ...] | None = None
    """Lines of the node's log with a complaint that names it; None where no node runs."""
    listed: bool | None = None
    """Whether the node lists it after it looked again; None where no node runs."""


def discovery(search: Search) -> tuple[Finding, ...]:
    """Return what is known of a model that is missed: location, permissions, file, log, rescan, registering by hand."""
    return (_location(search), _permissions(search), _file(search), _log(search), _rescan(search), _by_hand(search))


def _finding(search: Search, name: str, result: Result, message: str, advice: str = "") -> Finding:
    return Finding(name=name, result=result, message=message, advice=advice, model=search.asked)


def _location(search: Search) -> Finding:
    if search.found:
        return _finding(search, "location", Result.OK, f"{search.path} is the model {search.found}")
    bad = [problem.path for problem in search.problems if problem.code != UNREADABLE]
    if bad:
        return _finding(search, "location", Result.OK, f"{bad[0]} is in a model folder")
    folder = search.folders[0]
    if search.strays:
        path, why = search.strays[0]
        help_ = _WHAT_HELPS[why].format(folder=folder, parent=path.rpartition("/")[0] or "/")
        return _finding(search, "location", Result.FAIL, f"{path} {why}", help_)
    message = f"no file of that name lies in {listed(search.folders)}"
    return _finding(search, "location", Result.FAIL, message, _where_from(search))


def _where_from(search: Search) -> str:
    """Say how a model that lies nowhere gets here."""
    if find(search.asked) is not None or is_hub_name(search.asked):
        return f"`mesh-llm pull {search.asked}` fetches it"
    near = dict.fromkeys((*search.near, *near_names(search.asked)))
    perhaps = f"did you mean {' or '.join(list(near)[:3])}? else " if near else ""
    return f"{perhaps}put the file into {search.folders[0]}, or name its folder with --models-dir"


def _permissions(search: Search) -> Finding:
    closed = [problem for problem in search.problems if problem.code == UNREADABLE]
    if not closed:
        what = "its file can be read" if search.found else "every model folder can be read"
        return _finding(search, "permissions", Result.OK, what)
    path = closed[0].path
    mode = "644" if path.casefold().endswith(".gguf") else "755"
    return _finding(
        search, "permissions", Result.FAIL, f"{path} {closed[0].message}",
        f"`chmod {mode} {path}`, and 755 for the folders above it",
    )  # fmt: skip


def _file(search: Search) -> Finding:
    bad = [problem for problem in search.problems if problem.code != UNREADABLE]
    if bad and not search.found:
        return _finding(search, "file", Result.FAIL, f"{bad[0].path}: {bad[0].message}", "fetch it again, whole")
    if search.found:
        return _finding(search, "file", Result.OK, "its header is that of a model")
    return _finding(search, "file", Result.NOTE, "there is none to look into")


def _log(search: Search) -> Finding:
    if search.log is None:
        return _finding(search, "log", Result.NOTE, "no node runs, so there is none to look into")
    if not search.log:
        return _finding(search, "log", Result.OK, "the node's log has no complaint about it")
    return _finding(search, "log", Result.FAIL, search.log[-1].strip(), "`mesh-llm logs` shows what was before that")


def _rescan(search: Search) -> Finding:
    if search.listed is None and search.found:
        return _finding(search, "rescan", Result.OK, "the folders were looked through now; a node that starts has it")
    if search.listed is None:
        return _finding(search, "rescan", Result.FAIL, "the folders were looked through now; they have no such model")
    if search.listed:
        return _finding(search, "rescan", Result.OK, "the node looked through its folders again and lists it")
    advice = "it reads other folders, or another disk: start it with --models-dir" if search.found else ""
    message = "the node looked through its folders again and does not list it"
    return _finding(search, "rescan", Result.FAIL, message, advice)


def _by_hand(search: Search) -> Finding:
    if search.listed or (search.listed is None and search.found):
        return _finding(search, "register by hand", Result.OK, "not needed: it is found by itself")
    if not search.found:
        message = "what has no whole file in a model folder cannot be registered"
        return _finding(search, "register by hand", Result.FAIL, message)
    body = f'{{"id":"{search.found}","version":"1.0.0","path":"{search.path}"}}'
    advice = f"POST /v1/models/register with {body}"
    return _finding(search, "register by hand", Result.NOTE, "it has a file that can be registered", advice)
