"""Models and machines of a simulated mesh: files of any size, and what a node learns of itself at its start.

Owns the pretended facts about files and machines. Decides nothing. Doesn't know nodes nor time:
`sim_machine` lets a machine's facts take their time, `sim` hands the events to whichever core they are for.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from meshllm.core.catalog import Architecture, ModelReference, ModelSpec
from meshllm.core.engines import EngineBuild, RpcBuild
from meshllm.core.ids import ModelId
from meshllm.core.limits import GIB, MIB
from meshllm.core.resources import Gpu, Resources

HUB = "sim"
"""The hub user that has every model of the library: `sim/big` is where `big` comes from."""
USUAL_BYTES = 100 * MIB
_LLAMA = Architecture(
    name="llama", layers=30, embedding=576, heads=9, kv_heads=3, key_length=64, value_length=64, vocabulary=49_152,
    context_tokens=8192,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a node runs on. Speeds are in bytes a second."""

    memory_bytes: int = 16 * GIB
    others_bytes: int = 0
    """Memory that other programs take, of the machine."""
    gpu_bytes: int = 0
    """Of its one GPU; 0 without one."""
    disk_bytes: int = 500 * GIB
    """Free for downloads at the start."""
    load_bytes_per_s: int = USUAL_BYTES
    """How fast a file comes into memory: the usual model takes a second."""
    download_bytes_per_s: int = 50 * MIB
    excess: float = 0.0
    """By this share engines take more memory than was planned for them."""
    rpc: str = ""
    """What its engine speaks with other machines, where it can share models."""

    @property
    def build(self) -> EngineBuild:
        """Return the engine that it can run."""
        rpc = RpcBuild(version=self.rpc, server="fake", worker="fake") if self.rpc else None
        return EngineBuild(kind="fake", version="1", uses_gpu=bool(self.gpu_bytes), rpc=rpc)

    def resources(self, host_bytes: int, gpu_bytes: int, files_bytes: int) -> Resources:
        """Return what is measured while engines take so much of machine and GPU, and downloads so much of the disk."""
        gpu = Gpu(index=0, name="sim", total_bytes=self.gpu_bytes, free_bytes=max(self.gpu_bytes - gpu_bytes, 0))
        return Resources(
            cores=4, memory_total_bytes=self.memory_bytes,
            memory_free_bytes=max(self.memory_bytes - self.others_bytes - host_bytes, 0),
            gpus=(gpu,) if self.gpu_bytes else (), disk_free_bytes=max(self.disk_bytes - files_bytes, 0),
        )  # fmt: skip


def a_file(text: str, size_bytes: int = USUAL_BYTES) -> ModelSpec:
    """Return a model file.

    A name may carry a file's mark: `tiny` and `tiny=b` are two files of one name, `other=tiny` is the
    first one under another name.
    """
    name, _, mark = text.partition("=")
    path = f"/models/{name}.gguf"
    return ModelSpec(
        id=ModelId(name), path=path, files=(path,), size_bytes=size_bytes, digest=f"sha256:{mark or name}",
        architecture=_LLAMA, parameters=135_000_000, quantization="Q4_1", capabilities=frozenset({"chat"}),
    )  # fmt: skip


@dataclass(slots=True)
class Disk:
    """A node's files. They outlive its process."""

    files: dict[ModelId, ModelSpec]
    fetched_bytes: int = 0
    """Of the downloaded ones."""

    def add(self, spec: ModelSpec) -> None:
        """Take a downloaded file."""
        self.files[spec.id] = spec
        self.fetched_bytes += spec.size_bytes


USUAL_MACHINE = Machine()


class Library:
    """The files that exist in a simulated world, by name: on disks, and where downloads come from."""

    def __init__(self) -> None:
        """Have none yet; whatever is asked for by name is of the usual size."""
        self._files: dict[str, ModelSpec] = {}

    def add(self, text: str, size_bytes: int = USUAL_BYTES) -> ModelSpec:
        """Make a file, or return the one that there is."""
        return self._files.setdefault(text, a_file(text, size_bytes))

    def of(self, texts: Iterable[str]) -> dict[ModelId, ModelSpec]:
        """Return files as they lie on a disk."""
        found = [self.add(text) for text in texts]
        return {spec.id: spec for spec in found}

    def named(self, model: ModelId) -> ModelSpec | None:
        """Return the file that a download of a model brings."""
        return self._files.get(model)

    def resolve(self, asked: str) -> ModelReference | None:
        """Return where a model can be fetched that is asked for as `sim/big`."""
        user, _, name = asked.partition("/")
        spec = self._files.get(name) if user == HUB else None
        return replace(reference_to(spec), asked_as=asked) if spec is not None else None


def reference_to(spec: ModelSpec) -> ModelReference:
    """Return where a file can be fetched."""
    return ModelReference(
        id=spec.id, repository=f"{HUB}/{spec.id}", filename=f"{spec.id}.gguf", size_bytes=spec.size_bytes,
        sha256=spec.digest.removeprefix("sha256:"),
    )  # fmt: skip
