"""URLs of servers to adopt: what is read from them, and what is refused with a sentence."""

import pytest

from meshllm.core.remotes import RemoteBackend, is_key, place_of


@pytest.mark.parametrize(
    ("base_url", "host", "port", "is_tls", "authority", "prefix"),
    [
        ("http://localhost:11434", "localhost", 11434, False, "localhost:11434", ""),
        ("http://localhost:11434/v1", "localhost", 11434, False, "localhost:11434", ""),
        ("http://localhost:11434/v1/", "localhost", 11434, False, "localhost:11434", ""),
        ("HTTPS://API.example.org/openai/v1", "api.example.org", 443, True, "api.example.org", "/openai"),
        ("https://example.org:8443/a/b/", "example.org", 8443, True, "example.org:8443", "/a/b"),
        ("http://[::1]:8080", "::1", 8080, False, "[::1]:8080", ""),
        (" http://10.0.0.1 ", "10.0.0.1", 80, False, "10.0.0.1", ""),
        ("http://h/v1beta", "h", 80, False, "h", "/v1beta"),
    ],
)
def test_a_url_says_where_a_server_answers(
    base_url: str, host: str, port: int, is_tls: bool, authority: str, prefix: str
) -> None:
    """With `/v1` or without: people copy both."""
    place = place_of(base_url)

    assert (place.host, place.port, place.is_tls) == (host, port, is_tls)
    assert (place.authority, place.prefix) == (authority, prefix)


@pytest.mark.parametrize(
    ("base_url", "why"),
    [
        ("localhost:11434", "begins with http"), ("ftp://h", "begins with http"), ("", "begins with http"),
        ("http://user:secret@host", "no user and no key"), ("http://h/v1?key=secret", "no `?`"),
        ("http://h/#secret", "no `?`"), ("http://h:99999", "no port 99999"), ("http://h:0", "no port 0"),
        ("http://", "no URL of a server"), ("http://a b", "no URL of a server"),
        ("http://h/a\r\nX-Evil: 1", "no URL of a server"), ("http://h:80x", "no URL of a server"),
        ("http://" + "a" * 64, "no host can"), ("http://a..b", "no host can"), ("http://" + "a." * 130, "no host can"),
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_refused_without_showing_it(base_url: str, why: str) -> None:
    """The sentence goes to logs and screens; a key in the URL must not."""
    with pytest.raises(ValueError, match=why) as refused:
        place_of(base_url)

    assert "secret" not in str(refused.value)


def test_a_place_is_shown_as_a_url() -> None:
    """Without `/v1`, which every path begins with."""
    assert place_of("https://Example.org:8443/openai/v1/").url == "https://example.org:8443/openai"


def test_a_key_never_shows() -> None:
    """Journals and logs show representations."""
    assert "secret" not in repr(RemoteBackend(name="x", base_url="http://h", api_key="secret"))


def test_a_key_is_visible_ascii() -> None:
    """Anything else would split the request, or stop it."""
    assert [is_key(text) for text in ("", "sk-1/a+b=", "a b", "a\r\nb", "clé")] == [True, True, False, False, False]
