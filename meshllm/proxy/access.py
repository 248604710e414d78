"""Who may ask: Host, Origin and key, decided from the head alone before anything else is looked at.

Owns the answer to DNS rebinding (Host), to other people's web pages (Origin, Sec-Fetch-Site) and to
missing keys. Decides by exact comparison, never by suffix or pattern. Doesn't know paths' meaning.
"""

import hmac
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from meshllm.proxy.http1 import Head
from meshllm.proxy.openai import Problem

_CORS_HEADERS = (
    "authorization, content-type, x-api-key, x-request-id, x-session-id, x-mesh-resume, x-mesh-strategy, x-priority, "
    "anthropic-version, anthropic-beta"
)
_CORS_METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
_EXPOSED = (
    "X-Request-ID, X-Mesh-Node, X-Mesh-Model, X-Mesh-Route-Reason, X-Mesh-Attempts, Retry-After, "
    "X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests, "
    "X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Tokens"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """What a node lets in."""

    bound_host: str
    """The address that the listener was asked to bind, as written in the configuration."""
    allowed_hosts: frozenset[str] = frozenset()
    """Host names without port, lower case."""
    allowed_origins: frozenset[str] = frozenset()
    """`scheme://host[:port]`, lower case."""
    api_key: str = ""
    admin_key: str = ""
    """Opens all that the other one does, too; who changes the node shows this one, where there is one."""
    is_open: Callable[[str, str], bool] = lambda _method, _path: False
    """Tells whether a method and a path need no key."""
    clients: tuple[tuple[str, str], ...] = ()
    """Further keys, and what their clients are called: good for models alone, and each with quotas of its own."""
    is_for_clients: Callable[[str], bool] = lambda _path: False
    """Tells whether a path is about models alone."""


@dataclass(frozen=True, slots=True)
class Access:
    """A verdict: the refusal, or None, and the CORS fields that the answer carries."""

    refusal: Problem | None
    cors: bytes = b""
    client: str = ""
    """Whose key was shown, where it is not the node's own."""
    shows_key: bool = False
    """The key that administers was shown: the admin's, or the node's own where there is no other."""


def check_access(head: Head, rules: AccessRules, local_address: str) -> Access:
    """Decide whether a request may come in. `local_address` is the IP that the client connected to."""
    host = head.get("host")
    if host is not None and not _is_our_host(host, rules, local_address):
        message = f"the Host {host[:100]!r} is not served here; --allowed-host adds one"
        return Access(Problem(status=403, code="host_not_allowed", message=message))
    origin = head.get("origin")
    if origin is None:
        if _is_from_other_site(head):
            return Access(Problem(status=403, code="origin_not_allowed", message="requests of other sites are refused"))
        return _by_key(head, rules, b"")
    same = host is not None and origin.lower() in {f"http://{host.lower()}", f"https://{host.lower()}"}
    if not same and origin.lower() not in rules.allowed_origins:
        message = f"the Origin {origin[:100]!r} is not allowed; --allowed-origin adds one"
        return Access(Problem(status=403, code="origin_not_allowed", message=message))
    cors = b"" if same else _cors_fields(origin)
    if head.method == "OPTIONS":
        return Access(None, cors + _preflight_fields())
    return _by_key(head, rules, cors)


def _by_key(head: Head, rules: AccessRules, cors: bytes) -> Access:
    """Decide by the key that was shown."""
    client = _client_of(head, rules)
    if client and rules.is_for_clients(head.path):
        return Access(None, cors, client)
    if client and not rules.is_open(head.method, head.path):
        message = "this key is good for models alone; whoever administers the node shows its own"
        return Access(Problem(status=403, code="not_allowed", message=message), cors)
    return Access(_check_key(head, rules), cors, shows_key=_is_shown(head, rules.admin_key or rules.api_key))


def _client_of(head: Head, rules: AccessRules) -> str:
    """Return whose key was shown; every key is compared, so that the time tells nothing."""
    if not rules.clients:
        return ""
    given = _given(head).encode("latin-1")
    found = [name for key, name in rules.clients if hmac.compare_digest(given, key.encode())]
    return found[0] if found else ""


def _is_shown(head: Head, key: str) -> bool:
    """Tell whether a key was shown; an empty one never is."""
    return bool(key) and hmac.compare_digest(_given(head).encode("latin-1"), key.encode())


def _given(head: Head) -> str:
    """Return the key that was shown; empty for none."""
    scheme, _, token = (head.get("authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else head.get("x-api-key") or ""


def _is_our_host(host: str, rules: AccessRules, local_address: str) -> bool:
    """Tell whether a Host value names this node. Any port: tunnels and port mappings change it."""
    name = host.lower()
    if name.startswith("["):
        name, bracket, port = name[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return False
        port = port[1:]
    else:
        name, _, port = name.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return False
    if name == "localhost" or name in rules.allowed_hosts:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or str(address) in {local_address, rules.bound_host}


def _is_from_other_site(head: Head) -> bool:
    """Tell whether a browser says that another site's page made this request without an Origin.

    Following a link to the console is fine; embedding or fetching from it is not.
    """
    return head.get("sec-fetch-site") == "cross-site" and head.get("sec-fetch-mode") != "navigate"


def _check_key(head: Head, rules: AccessRules) -> Problem | None:
    if not rules.api_key or rules.is_open(head.method, head.path):
        return None
    if _is_shown(head, rules.api_key) | _is_shown(head, rules.admin_key):
        return None
    message = "this node needs its API key, as `Authorization: Bearer <key>` or `X-API-Key: <key>`"
    code = "invalid_api_key" if _given(head) else "missing_api_key"
    return Problem(status=401, code=code, message=message)


def _cors_fields(origin: str) -> bytes:
    return (
        f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\nAccess-Control-Expose-Headers: {_EXPOSED}\r\n"
    ).encode("latin-1")


def _preflight_fields() -> bytes:
    return (
        f"Access-Control-Allow-Methods: {_CORS_METHODS}\r\nAccess-Control-Allow-Headers: {_CORS_HEADERS}\r\n"
        "Access-Control-Max-Age: 600\r\n"
    ).encode()
