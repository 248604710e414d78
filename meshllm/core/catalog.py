"""What is known of models: files on disk (`ModelSpec`) and names people may ask for (`CatalogModel`).

Owns the shapes and the arithmetic on them; decides nothing. Reading headers is `inventory.gguf`'s.
The built-in list itself is `core.known_models`.
"""

from dataclasses import dataclass

from meshllm.core.ids import ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The numbers of a GGUF header that memory arithmetic needs. Counts, except where said."""

    name: str
    layers: int
    embedding: int
    heads: int
    kv_heads: int
    """Key/value heads of one layer; the largest where layers differ."""
    key_length: int
    value_length: int
    vocabulary: int
    context_tokens: int
    """The context that the model was trained for."""
    kv_heads_total: int | None = None
    """Key/value heads of all layers together; None where every layer has `kv_heads`."""

    @property
    def kv_bytes_per_token(self) -> int:
        """Return the bytes of 16-bit key/value cache that one token of context takes.

        An upper bound: layers with a sliding window keep less.
        """
        heads = self.layers * self.kv_heads if self.kv_heads_total is None else self.kv_heads_total
        return heads * (self.key_length + self.value_length) * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A complete model on this node's disk.

    Two specs with the same `digest` are the same model, whatever their names. `digest` is empty
    while the file is still being hashed.
    """

    id: ModelId
    path: str
    """The file that an engine opens: the first shard of a set."""
    files: tuple[str, ...]
    size_bytes: int
    digest: str
    """`sha256:<64 hex>`, of the file, or of the shards' digests in order; or empty."""
    architecture: Architecture
    parameters: int
    quantization: str
    modified_s: float = 0.0
    """Modification time of the newest file, seconds since the epoch."""
    display_name: str = ""
    chat_template: str = ""
    mmproj: str | None = None
    """Path of the multimodal projector that belongs to it, if one lies beside it."""
    capabilities: frozenset[str] = frozenset()
    """Of `chat`, `completion`, `embedding`, `rerank`, `tools`, `vision`."""
    damage: str = ""
    """Why its content is not what it was, in words; empty as long as its digest holds."""
    inode: int = 0
    """Number of the file on its file system: another file in the same place has another; 0 when unknown."""

    @property
    def version(self) -> tuple[str, int, float]:
        """Return what changes when the file is replaced, known before it is hashed: path, bytes, time."""
        return self.path, self.size_bytes, self.modified_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProblem:
    """A file that looks like a model and cannot be used, with the reason for people."""

    path: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFile:
    """One quantisation of a catalogue model. `size_bytes` is of all its files together."""

    quantization: str
    filename: str
    size_bytes: int
    sha256: str = ""
    package: str = ""
    """Requirement of a Python package that carries the file, as `name==version`; a mirror."""

    @property
    def stem(self) -> ModelId:
        """Return the canonical id that the file will have on disk."""
        return model_id_of(self.filename)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogModel:
    """A well-known model: a short name and where its files are."""

    name: str
    repository: str
    """`user/repo` on the Hugging Face hub."""
    parameters: int
    context_tokens: int
    files: tuple[CatalogFile, ...]
    """Best quality first."""
    capabilities: frozenset[str] = frozenset({"chat", "completion"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReference:
    """A model to download: one file, or one shard set, of one hub repository."""

    id: ModelId
    repository: str
    filename: str
    size_bytes: int = 0
    """Zero when unknown."""
    sha256: str = ""
    package: str = ""
    asked_as: str = ""
    """The name by which it was asked for."""


def model_id_of(filename: str) -> ModelId:
    """Return the canonical id of a GGUF file name: its stem without a shard suffix.

    `Qwen-72B-Q4_K_M-00001-of-00003.gguf` and its two siblings share `Qwen-72B-Q4_K_M`.
    """
    stem = filename.rsplit("/", 1)[-1]
    if stem.lower().endswith(".gguf"):
        stem = stem[:-5]
    shard = shard_of(stem)
    return ModelId(stem if shard is None else shard[0])


def shard_of(stem: str) -> tuple[str, int, int] | None:
    """Return (base, number, count) of a shard's stem, or None for a whole file. Numbers from 1."""
    parts = stem.rsplit("-", 3)
    if len(parts) != 4 or parts[2] != "of":
        return None
    base, number, _, count = parts
    if len(number) == len(count) == 5 and number.isascii() and count.isascii() and (number + count).isdigit():
        return base, int(number), int(count)
    return None
