"""Who may ask: exact Host, exact Origin, the key; decided from the head alone."""

import pytest

from meshllm.proxy.access import AccessRules, check_access
from meshllm.proxy.http1 import parse_head

RULES = AccessRules(
    bound_host="127.0.0.1",
    allowed_hosts=frozenset({"mesh.example"}),
    allowed_origins=frozenset({"https://chat.example"}),
)


def health_is_open(method: str, path: str) -> bool:
    """Let everybody ask for one path."""
    return (method, path) == ("GET", "/health")


KEYED = AccessRules(bound_host="10.0.0.5", api_key="geheim-é", is_open=health_is_open)


def verdict(*lines: str, rules: AccessRules = RULES, first: str = "GET / HTTP/1.1", local: str = "127.0.0.1") -> int:
    """Return the status of a refusal, or 200."""
    head = parse_head("\r\n".join((first, *lines, "", "")).encode())
    refusal = check_access(head, rules, local).refusal
    return refusal.status if refusal is not None else 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1:9337",
        "127.8.9.10",
        "[::1]:9337",
        "[::1]",
        "mesh.example",
        "Mesh.Example:443",
    ],
)
def test_our_own_names_are_served(host: str) -> None:
    """Any port: a tunnel or a container maps it."""
    assert verdict(f"Host: {host}") == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "mesh.example.evil", "a.mesh.example", "10.0.0.5", "0.0.0.0", "",
        "[::1",
        "[::1]x", "localhost:80:80", "localhost:x", "127.0.0.1.nip.example", "2130706433", "[fe80::1]", "localhost.",
    ],
)  # fmt: skip
def test_other_peoples_names_are_refused(host: str) -> None:
    """A page whose name was pointed at this machine may not speak to it."""
    assert verdict(f"Host: {host}") == 403


def test_the_address_that_was_reached_is_ours() -> None:
    """On all interfaces the node answers to each of its addresses."""
    rules = AccessRules(bound_host="0.0.0.0")

    assert verdict("Host: 192.168.1.7:9337", rules=rules, local="192.168.1.7") == 200
    assert verdict("Host: 192.168.1.8:9337", rules=rules, local="192.168.1.7") == 403
    assert verdict("Host: [FD00:0::1]:9337", rules=AccessRules(bound_host="::"), local="fd00::1") == 200
    assert verdict("Host: [fd00::1]:9337", rules=AccessRules(bound_host="fd00::1"), local="") == 200
    assert verdict("Host: [fd00::2]:9337", rules=AccessRules(bound_host="fd00::1"), local="fd00::1") == 403


def test_http_1_0_may_come_without_a_name() -> None:
    """No browser does that."""
    assert verdict(first="GET / HTTP/1.0") == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Origin: http://localhost:9337"], 200),
        (["Origin: https://chat.example"], 200),
        (["Origin: https://CHAT.example"], 200),
        (["Origin: http://chat.example"], 403),
        (["Origin: http://localhost:1234"], 403),
        (["Origin: null"], 403),
        (["Origin: https://chat.example.evil"], 403),
        (["Sec-Fetch-Site: cross-site"], 403),
        (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], 200),
        (["Sec-Fetch-Site: same-origin"], 200),
        (["Sec-Fetch-Site: cross-site", "Origin: https://chat.example"], 200),
    ],
)
def test_pages_of_other_sites_are_refused(lines: list[str], status: int) -> None:
    """A browser sends these for them; a link to the console is no attack."""
    assert verdict("Host: localhost:9337", *lines) == status


def test_only_allowed_origins_may_read_the_answer() -> None:
    """By name, never a star."""
    foreign = parse_head(b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://chat.example\r\n\r\n")
    own = parse_head(b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n")

    cors = check_access(foreign, RULES, "127.0.0.1").cors

    assert b"Access-Control-Allow-Origin: https://chat.example\r\nVary: Origin\r\n" in cors
    assert check_access(own, RULES, "127.0.0.1").cors == b""


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Authorization: Bearer geheim-\u00e9", 200), ("authorization: bearer  geheim-\u00e9", 200),
        ("X-API-Key: geheim-\u00e9", 200), ("X-A: b", 401), ("Authorization: Bearer", 401),
        ("Authorization: Bearer geheim", 401), ("Authorization: Basic geheim-\u00e9", 401), ("X-API-Key: x", 401),
        ("Cookie: key=geheim-\u00e9", 401),
    ],
)  # fmt: skip
def test_the_key_is_needed_where_there_is_one(line: str, status: int) -> None:
    """In either field, and nowhere else."""
    assert verdict("Host: localhost", line, rules=KEYED) == status
    assert verdict("Host: localhost", line, rules=KEYED, first="GET /?api_key=geheim-%C3%A9 HTTP/1.1") == status


def test_watchers_need_no_key_and_preflights_cannot_have_one() -> None:
    """`/health` tells nothing; a preflight carries no credentials by definition."""
    rules = AccessRules(bound_host="x", api_key="k", is_open=health_is_open, allowed_origins=frozenset({"https://a"}))

    assert verdict("Host: localhost", rules=rules, first="GET /health HTTP/1.1") == 200
    assert verdict("Host: localhost", rules=rules, first="POST /health HTTP/1.1") == 401
    assert verdict("Host: localhost", "Origin: https://a", rules=rules, first="OPTIONS / HTTP/1.1") == 200
    assert verdict("Host: localhost", "Origin: https://b", rules=rules, first="OPTIONS / HTTP/1.1") == 403


@pytest.mark.rows("SEC-2")
@pytest.mark.parametrize(
    ("key", "api_key", "admin_key", "status", "shows_key"),
    [
        ("k", "k", "", 200, True), ("k", "k", "a", 200, False), ("a", "k", "a", 200, True), ("x", "k", "a", 401, False),
        ("x", "", "a", 200, False), ("a", "", "a", 200, True), ("", "", "", 200, False), ("", "", "a", 200, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["Authorization: Bearer ", "X-API-Key: "])
def test_the_admins_key_opens_what_the_other_does_and_administers(
    field: str, key: str, api_key: str, admin_key: str, status: int, shows_key: bool
) -> None:
    """Where there is none, the other one administers; no key is never one."""
    rules = AccessRules(bound_host="127.0.0.1", api_key=api_key, admin_key=admin_key)
    head = parse_head(f"POST /mesh/drop HTTP/1.1\r\nHost: localhost\r\n{field}{key}\r\n\r\n".encode())

    access = check_access(head, rules, "127.0.0.1")

    assert (access.refusal.status if access.refusal is not None else 200) == status
    assert access.shows_key is shows_key
