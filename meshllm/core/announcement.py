"""What a node says of itself."""

from dataclasses import dataclass
from enum import StrEnum

from meshllm.core.ids import ModelId, NodeId
from meshllm.core.resources import Resources


class Role(StrEnum):
    """What a node is to the mesh."""

    WORKER = "worker"
    HOST = "host"
    CLIENT = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A node's statement about itself, ordered by (incarnation, version)."""

    node: NodeId
    name: str
    incarnation: int
    version: int
    role: Role
    resources: Resources | None
    models_on_disk: tuple[ModelId, ...] = ()
    serving: tuple[ModelId, ...] = ()
    requested: tuple[str, ...] = ()
    engine_build: str = ""

    def supersedes(self, other: "Announcement") -> bool:
        """Tell whether this statement is newer than another of the same node: a total order."""
        return (self.incarnation, self.version) > (other.incarnation, other.version)
