"""Adopted servers, asked for their models: lists as servers write them, and every way to have none."""

import json
from pathlib import Path

import pytest

from meshllm.core import limits
from meshllm.core.engines import EngineFault
from meshllm.core.events import RemoteProbed
from meshllm.core.remotes import RemoteBackend
from meshllm.engine.endpoint import models_of, probe
from meshllm.testing.fake_openai_server import FakeOpenAIServer, a_server
from tests.proxy.certificates import an_issued_certificate


async def asked(server: FakeOpenAIServer, key: str = "") -> RemoteProbed:
    """Ask a server."""
    return await probe(RemoteBackend(name="box", base_url=server.url, api_key=key))


def fault_of(told: RemoteProbed) -> tuple[EngineFault, str]:
    """Return why a server cannot be used."""
    assert told.failure is not None
    return told.failure.fault, told.failure.message


@pytest.mark.parametrize("framing", ["sized", "chunked", "closed"])
async def test_a_list_is_read_in_every_framing(framing: str) -> None:
    """Servers differ in how they end an answer."""
    async with a_server(models=["a", "b"], context_tokens=4096, prefix="/api", framing=framing) as server:
        told = await asked(server)

    assert [(model.name, model.context_tokens) for model in told.models] == [("a", 4096), ("b", 4096)]
    assert (told.server, told.has_list, told.failure) == ("box", True, None)


async def test_the_key_goes_with_the_question() -> None:
    """And without it, people are told that one is missing."""
    async with a_server(key="sk-1") as server:
        good, bad, none = await asked(server, "sk-1"), await asked(server, "sk-2"), await asked(server)

    assert good.failure is None
    assert fault_of(bad) == (EngineFault.REFUSED, "the server 'box' does not take the key (401)")
    assert fault_of(none) == (EngineFault.REFUSED, "the server 'box' asks for a key (401)")


@pytest.mark.parametrize(
    ("ways", "fault", "words"),
    [
        ({"list_status": 500}, EngineFault.UNREACHABLE, "answered 500"),
        ({"list_status": 418}, EngineFault.BAD_ANSWER, "answered 418"),
        ({"trouble": "move"}, EngineFault.BAD_ANSWER, "not followed"),
        ({"list_body": "<html>hello</html>"}, EngineFault.BAD_ANSWER, "is this its OpenAI API?"),
        ({"list_body": '{"models": []}'}, EngineFault.BAD_ANSWER, "is this its OpenAI API?"),
        ({"list_body": "[" * 5000}, EngineFault.BAD_ANSWER, "is this its OpenAI API?"),
    ],
)
async def test_what_is_no_list_is_said(ways: dict[str, object], fault: EngineFault, words: str) -> None:
    """The message is what people see in `status`."""
    async with a_server(**ways) as server:
        told = await asked(server)

    assert fault_of(told)[0] is fault
    assert words in fault_of(told)[1]


async def test_a_server_may_have_no_list() -> None:
    """Then the configuration says which models it has."""
    async with a_server(list_status=404) as server:
        told = await asked(server)

    assert (told.has_list, told.models, told.failure) == (False, (), None)


async def test_a_list_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded."""
    monkeypatch.setattr(limits, "REMOTE_LIST_BYTES", 1000)

    async with a_server(models=[f"m{number}" for number in range(1000)]) as server:
        told = await asked(server)

    assert fault_of(told) == (EngineFault.BAD_ANSWER, "the list of the server 'box' is longer than 1000 bytes")


async def test_nobody_there_and_somebody_silent_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one is gone, the other may only be late."""
    monkeypatch.setattr(limits, "REMOTE_PROBE_TIMEOUT_S", 0.1)

    async with a_server(list_s=60.0) as server:
        silent = await asked(server)
    gone = await asked(server)
    nowhere = await probe(RemoteBackend(name="box", base_url="http://nobody.invalid"))

    assert fault_of(silent) == (EngineFault.HUNG, "the server 'box' did not answer in 0.1 s")
    assert fault_of(gone) == (EngineFault.UNREACHABLE, "the server 'box' cannot be reached: Connection refused")
    assert fault_of(nowhere)[0] in {EngineFault.UNREACHABLE, EngineFault.HUNG}


async def test_a_node_of_ours_is_not_adopted() -> None:
    """Two that adopt each other would pass a request round for ever."""

    class Ours(FakeOpenAIServer):
        """Answers as a front door does."""

        async def _send(self, writer: object, status: int, body: object) -> bool:
            data = json.dumps({"data": []}).encode()
            head = f"HTTP/1.1 {status} OK\r\nX-Mesh-Node: aaaa\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            writer.write(head + data)  # type: ignore[attr-defined]
            return True

    server = Ours()
    await server.start()
    told = await asked(server)
    await server.stop()

    assert fault_of(told)[0] is EngineFault.REFUSED
    assert "join its mesh" in fault_of(told)[1]


async def test_a_certificate_that_nobody_trusts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one by somebody whom `SSL_CERT_FILE` names is not: what is said names the setting."""
    authority, tls = an_issued_certificate(tmp_path)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)

    async with a_server(tls=tls) as server:
        stranger = await asked(server)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        friend = await asked(server)

    cause = "the certificate of the server 'box' is not trusted: unable to get local issuer certificate"
    assert fault_of(stranger)[0] is EngineFault.REFUSED
    assert fault_of(stranger)[1] == f"{cause}; SSL_CERT_FILE can name a file with those to trust"
    assert friend.failure is None


async def test_an_authority_that_is_added_to_the_file_counts_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a restart: the server is asked again anyway."""
    authority, tls = an_issued_certificate(tmp_path)
    named = tmp_path / "named.pem"
    named.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(named))

    async with a_server(tls=tls) as server:
        before = await asked(server)
        named.write_bytes(authority.read_bytes())
        after = await asked(server)

    assert fault_of(before)[1].endswith(f"; SSL_CERT_FILE={named} has nobody who issued it")
    assert after.failure is None


async def test_no_setting_helps_a_certificate_that_has_expired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So none is named."""
    authority, tls = an_issued_certificate(tmp_path, days=-1)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))

    async with a_server(tls=tls) as server:
        told = await asked(server)

    assert fault_of(told)[1] == "the certificate of the server 'box' is not trusted: certificate has expired"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"data": [{"id": "a"}, {"id": "a"}, {"id": ""}, {"id": 3}, "b", None, {}]}, [("a", 0)]),
        ([{"id": "a"}], [("a", 0)]),
        ({"object": "list", "data": None}, []),
        ({"data": [{"id": "vllm", "max_model_len": 8192}]}, [("vllm", 8192)]),
        ({"data": [{"id": "llama", "meta": {"n_ctx": 2048, "n_ctx_train": 8192}}]}, [("llama", 2048)]),
        ({"data": [{"id": "odd", "context_length": "8192", "meta": []}]}, [("odd", 0)]),
        ({"data": [{"id": "odd", "context_length": True}]}, [("odd", 0)]),
        ({"data": [{"id": "odd", "context_length": 10**40}]}, [("odd", 1 << 31)]),
    ],
)
def test_lists_as_servers_write_them(body: object, found: list[tuple[str, int]]) -> None:
    """Entries that name no model are passed over."""
    assert [(model.name, model.context_tokens) for model in models_of("box", json.dumps(body).encode())] == found
