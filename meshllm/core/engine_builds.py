"""The builds of the engine that shares models which lie in the cache, and which of them are too many. Pure.

Owns what is told of a build. Decides which of them go after another one was made. Doesn't know folders, locks or
processes: `engine.rpc_store` looks there and removes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from meshllm.core.split_limits import RPC_BUILDS_KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBuild:
    """A build in the cache: of one version, with one set of flags."""

    name: str
    """Of its folder."""
    size_bytes: int
    chosen_unix_s: float
    """When `engine build` made it, or chose it again."""
    is_current: bool
    """Nodes that start from here on take it."""
    is_used: bool
    """A running node has taken it, or the configuration names it, or nobody can tell."""


def in_order(builds: Iterable[StoredBuild]) -> tuple[StoredBuild, ...]:
    """Return builds as they are listed: the current one, then those that were chosen last."""
    return tuple(sorted(builds, key=lambda build: (not build.is_current, -build.chosen_unix_s, build.name)))


def superfluous(builds: Iterable[StoredBuild]) -> tuple[StoredBuild, ...]:
    """Return the builds that nobody needs any more.

    The one before the current one stays, too: for a node that is just starting, and for a way back.
    """
    return tuple(build for build in in_order(builds)[RPC_BUILDS_KEPT:] if not build.is_used)
