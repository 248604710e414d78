"""Which peers a file may come from: those that announce its very digest, and may give files.

Owns the rules. Decides who is asked, and which digest a name without a package stands for. Doesn't know the bulk
plane, which proves every connection and every file by itself: whoever is asked here in vain costs time, no more.

A package is never taken from a peer's word (decision 0032). A file may be: what is asked for is a digest, and what
comes is only taken when it has it (decision 0036).
"""

from collections.abc import Iterable, Mapping

from meshllm.core.announcement import Announcement, DiskModel, RequestedModel
from meshllm.core.catalog import ModelReference, model_id_of, shard_of
from meshllm.core.effects import PeerSource
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.rights import Rights

_PREFIX = "sha256:"


def gives_files(said: Announcement) -> bool:
    """Tell whether a node gives model files to other members."""
    return said.bulk_port > 0 and Rights.HOST in said.rights and not said.left


def is_giveable(file: DiskModel) -> bool:
    """Tell whether a file can be had by its digest: one file of known content."""
    return bool(file.digest) and file.files == 1 and file.size_bytes > 0


def sources_of(reference: ModelReference, members: Iterable[Announcement], me: NodeId) -> tuple[PeerSource, ...]:
    """Return the peers to ask for a file before anybody else, in order of their ids; none without a known digest."""
    if not reference.sha256 or shard_of(_stem(reference.filename)) is not None:
        return ()
    digest = f"{_PREFIX}{reference.sha256}"
    found = []
    for said in members:
        if said.node == me or not gives_files(said):
            continue
        for file in said.models_on_disk:
            is_it = file.digest == digest and is_giveable(file)
            if is_it and reference.size_bytes in {0, file.size_bytes}:
                found.append(_source(said, file))
                break
    return tuple(sorted(found, key=lambda source: source.node))


def own_file_reference(
    model: ModelId, files: Mapping[NodeId, DiskModel], wishes: Iterable[RequestedModel], givers: Mapping[NodeId, Rights]
) -> ModelReference | None:
    """Return a reference to a file that only peers have, where it is clear which file is meant.

    `givers` are the nodes that give files. Whoever wants the model may say which file that is; else the machines that
    administer the mesh, if they agree; else all, if they do.
    """
    if not _is_plain(model):
        return None
    given = {node: file for node, file in files.items() if node in givers and is_giveable(file)}
    wished = {wish.digest for wish in wishes if wish.digest}
    for candidates in (
        [file for file in given.values() if file.digest in wished],
        [file for node, file in given.items() if Rights.ADMIN in givers[node]],
        list(given.values()),
    ):
        kinds = {(file.digest, file.size_bytes) for file in candidates}
        if len(kinds) == 1:
            digest, size_bytes = kinds.pop()
            return ModelReference(
                id=model, repository="", filename=f"{model}.gguf", size_bytes=size_bytes,
                sha256=digest.removeprefix(_PREFIX), asked_as=model,
            )  # fmt: skip
        if kinds:
            return None  # nobody guesses between two files
    return None


def _is_plain(model: ModelId) -> bool:
    """Tell whether a model's id can be the name of its file, and nothing but that."""
    is_inside = not model.startswith(".") and "/" not in model and "\\" not in model
    return is_inside and model_id_of(f"{model}.gguf") == model


def _source(said: Announcement, file: DiskModel) -> PeerSource:
    return PeerSource(node=said.node, name=said.name, addresses=said.bulk_addresses, size_bytes=file.size_bytes)


def _stem(filename: str) -> str:
    return filename.rsplit("/", 1)[-1].removesuffix(".gguf")
