"""Names of things, as distinct types so that one cannot stand in for another by accident."""

from typing import NewType

NodeId = NewType("NodeId", str)
"""A node's identity: the SHA-256 of its public key in lower-case base32, 52 characters."""

MeshId = NewType("MeshId", str)
"""A mesh's identity: the SHA-256 of its root public key in lower-case base32, 52 characters."""

TokenId = NewType("TokenId", str)
"""Names a token without giving it away: 16 hexadecimal digits."""

ConnectionId = NewType("ConnectionId", int)
"""Tells connections to the same peer apart: counted up by the transport, never used twice in one run."""

ModelId = NewType("ModelId", str)
"""A model's canonical name: the stem of its GGUF file, without the shard suffix."""

NO_MODEL = ModelId("")
"""Where a name stands for no model yet."""

EventId = NewType("EventId", str)
"""`e17` for the seventeenth event that this daemon's loop consumed."""

UNSTAMPED = EventId("")
"""The id of an event that the loop has not consumed yet."""

SHORT_ID_CHARS = 8
ID_CHARS = 52


def short(node: NodeId) -> str:
    """Return the first characters of a node id, enough for people to tell nodes apart."""
    return node[:SHORT_ID_CHARS]
