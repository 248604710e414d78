"""meshllm: a peer-to-peer inference mesh daemon, and a node of it within a program: `MeshNode`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshllm.sdk import MeshNode as MeshNode

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Return what is imported only when somebody asks for it: the daemon is large, and commands do without."""
    if name == "MeshNode":
        from meshllm.sdk import MeshNode  # noqa: PLC0415 - see above

        return MeshNode
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
