"""What a configuration says of OpenAI-compatible servers that run elsewhere and answer as engines of this node.

Owns the shapes, and the reading of a server's URL. Decides nothing else: which of their models are served is
`serving.adopted`'s. Doesn't know how a configuration is written, nor how a server is asked.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<authority>(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?)"
    r"(?P<path>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*)",
    re.IGNORECASE,
)
ADOPTED_KIND = "adopted:"
"""How digests begin that are of a server and a name there, not of a file."""
_VERSION = "/v1"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBackend:
    """A server to adopt: it is listed, probed, routed to and shared with the mesh; never started or stopped."""

    name: str
    """For people, and unique on this node: `ollama`. What its models' engines are called by."""
    base_url: str
    """`http://host:port` or `https://host[:port]`, and the prefix before `/v1` if there is one; `/v1` may be there."""
    api_key: str = field(default="", repr=False)
    """Sent as the bearer key; empty for none. A client's own key is never passed on."""
    models: tuple[str, ...] = ()
    """Which of its models are served, as it calls them; empty: whatever it lists."""
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """What the mesh calls a model, where that is not what the server calls it: its name to ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePlace:
    """Where a server answers, read from its URL."""

    host: str
    """Without brackets."""
    port: int
    is_tls: bool
    authority: str
    """What `Host` says: the host, and the port where it was written."""
    prefix: str
    """What comes before `/v1/…`; empty or with a slash in front."""

    @property
    def is_loopback(self) -> bool:
        """Tell whether it is on the machine that asks, by its name or address."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.") or self.host.endswith(".localhost")

    @property
    def url(self) -> str:
        """Return the place as a URL without `/v1`."""
        return f"{'https' if self.is_tls else 'http'}://{self.authority}{self.prefix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A model in a server's list."""

    name: str
    context_tokens: int = 0
    """What one request may use; 0 where the list does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteState:
    """How it goes with a server, for people."""

    name: str
    url: str
    is_up: bool
    models: int = 0
    """Of its models, how many this node serves."""
    left_out: int = 0
    """Of those that it lists, how many this node does not serve: unspeakable names, or more than are taken."""
    message: str = ""
    """What is wrong with it; empty while it answers."""
    is_awaited: bool = False
    """It was never heard of since the start: neither that it answers, nor that it does not."""


def place_of(base_url: str) -> RemotePlace:
    """Return where a server answers. Raises ValueError with what is wrong, for people; never with the URL in it.

    A key, a query or a fragment in it are refused: the first would be shown, the others would be lost.
    """
    found = _URL.fullmatch(base_url.strip())
    if found is None:
        raise ValueError(_complaint(base_url.strip()))
    scheme = found["scheme"].lower()
    port = int(found["port"]) if found["port"] else _PORTS[scheme]
    if not 0 < port < 65_536:
        msg = f"there is no port {port}"
        raise ValueError(msg)
    path = found["path"].rstrip("/").removesuffix(_VERSION).rstrip("/")
    host = found["host"].strip("[]").lower()
    if len(host) > 253 or not all(0 < len(label) < 64 for label in host.rstrip(".").split(".")):
        msg = "no host can have that name"
        raise ValueError(msg)
    return RemotePlace(
        host=host, port=port, is_tls=scheme == "https", authority=found["authority"].lower(), prefix=path
    )


def _complaint(base_url: str) -> str:
    """Say what is wrong with a URL that was not understood."""
    scheme, separator, rest = base_url.partition("://")
    if not separator or scheme.lower() not in _PORTS:
        return "a server's URL begins with http:// or https://"
    if "@" in rest.partition("/")[0]:
        return "a server's URL holds no user and no key; the key is a setting of its own"
    if "?" in rest or "#" in rest:
        return "a server's URL ends with its path: no `?`, no `#`"
    return "this is no URL of a server: http://host:port or https://host/prefix"


def is_key(text: str) -> bool:
    """Tell whether a text can be sent as a bearer key: visible ASCII, or nothing."""
    return text.isascii() and text.isprintable() and " " not in text
