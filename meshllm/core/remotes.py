"""What a configuration says of OpenAI-compatible servers that run elsewhere and answer as engines of this node.

Owns the shape. Decides nothing: which of their models are served is `serving.adopted`'s. Doesn't know how a
configuration is written, nor how a server is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBackend:
    """A server to adopt: it is listed, probed, routed to and shared with the mesh; never started or stopped."""

    name: str
    """For people, and unique on this node: `ollama`. What its models' engines are called by."""
    base_url: str
    """`http://host:port` or `https://host[:port]`, with the prefix before `/v1` where there is one; `/v1` may stand."""
    api_key: str = field(default="", repr=False)
    """Sent as the bearer key; empty for none. A client's own key is never passed on."""
    models: tuple[str, ...] = ()
    """Which of its models are served, as it calls them; empty: whatever it lists."""
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """What the mesh calls a model, where that is not what the server calls it: its name to ours."""
