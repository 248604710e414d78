"""Model files between real daemons: from two at once, with one of them killed, and never for those who may not."""

import hashlib
import json
import random
import re
import socket
import ssl
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.daemons import WAIT_S, Daemon, until
from tests.e2e.test_mesh import token_of
from tests.inventory import gguf_builder

pytestmark = pytest.mark.e2e

Make = Callable[..., Daemon]
FILE_BYTES = 50_000_000
COPIED_S = 60.0


def own_model(path: Path) -> str:
    """Write somebody's own model of some 50 MB, the same each time; return its SHA-256."""
    tensor = gguf_builder.Tensor(size_bytes=FILE_BYTES)
    head = gguf_builder.build(gguf_builder.llama(**{"general.name": "own"}), (tensor,))[:-FILE_BYTES]
    content = head + random.Random(7).randbytes(FILE_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def with_own_model(made: Daemon) -> Daemon:
    """Give a daemon the model before it starts."""
    own_model(made.models / "own.gguf")
    return made


def until_known(node: Daemon, digest: str, holders: int) -> None:
    """Wait until a node has heard that so many others serve the file with a digest."""
    until(
        lambda: json.dumps(node.get("/api/status")["members"]).count(digest) >= holders, f"{holders} holders", COPIED_S
    )


def sha256(file: Path) -> str:
    """Return a file's digest."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def given_bytes(node: Daemon) -> int:
    """Return how many bytes of files a node has given, by its log."""
    return sum(int(count) for count in re.findall(r"files given node=\w+ bytes=(\d+)", node.log))


def test_a_file_that_only_members_have_is_pulled_from_two_at_once(daemon: Make) -> None:
    """Nobody else has it: no catalogue, no package. Each gives a part, and no byte comes twice."""
    with with_own_model(daemon("--model", "own", "--name", "n1", models=())) as n1:
        token = token_of(n1)
        with with_own_model(daemon("--model", "own", "--join", token, "--name", "n2", models=())) as n2:
            digest = n2.until_model("own", phase="ready") and sha256(n2.models / "own.gguf")
            with daemon("--join", token, "--assign", "off", models=()) as n3:
                until_known(n3, digest, 2)

                answer = n3.request("POST", "/api/pull", {"model": "own"}, timeout_s=COPIED_S)

                lines = [json.loads(line) for line in answer.body.decode().splitlines()]
                given = [until(partial(given_bytes, node), "what it gave to be told") for node in (n1, n2)]
                assert lines[-1]["status"] == "success"
                assert sha256(n3.models / "own.gguf") == digest
                assert re.search("n1, n2|n2, n1", n3.log)
                assert sum(given) == (n3.models / "own.gguf").stat().st_size


@pytest.mark.parametrize("victim", [0, 1])
def test_a_file_arrives_whole_when_one_of_two_peers_is_killed(daemon: Make, victim: int) -> None:
    """Its pieces come from the other one."""
    with with_own_model(daemon("--model", "own", "--name", "n1", models=())) as n1:
        token = token_of(n1)
        with with_own_model(daemon("--model", "own", "--join", token, "--name", "n2", models=())) as n2:
            digest = n2.until_model("own", phase="ready") and sha256(n2.models / "own.gguf")
            with daemon("--join", token, "--assign", "off", models=()) as n3:
                until_known(n3, digest, 2)
                pulling = subprocess.Popen(
                    n3.command("pull", "own"), env=n3.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
                )
                until(lambda: list(n3.models.glob(".own*")) or (n3.models / "own.gguf").exists(), "the copy to begin")
                (n1, n2)[victim].process.kill()

                _, said = pulling.communicate(timeout=COPIED_S)

                assert pulling.returncode == 0, said
                assert sha256(n3.models / "own.gguf") == digest
                assert [file.name for file in n3.models.iterdir()] == ["own.gguf"]


def test_a_model_that_is_wanted_is_fetched_from_a_member_by_itself(daemon: Make) -> None:
    """Two hosts are wanted of it, and only one member has the file."""
    made = with_own_model(daemon("--config", "{config}", "--name", "n1", models=()))
    config = made.home / "mesh-llm.toml"
    config.write_text('[[models]]\nname = "own"\nload = "eager"\nmin_replicas = 2\n')
    made.arguments = tuple(str(config) if one == "{config}" else one for one in made.arguments)
    with made as n1:
        n1.until_model("own", phase="ready")
        with daemon("--join", token_of(n1), models=()) as n2:
            n2.until_model("own", phase="ready", within_s=COPIED_S)

            assert sha256(n2.models / "own.gguf") == sha256(n1.models / "own.gguf")


def test_a_machine_that_only_sends_requests_gets_no_file(daemon: Make) -> None:
    """The right is looked at where the file is."""
    with with_own_model(daemon("--model", "own", models=())) as n1:
        n1.until_model("own", phase="ready")
        digest = sha256(n1.models / "own.gguf")
        with daemon("--join", token_of(n1, "--client-only"), models=()) as n2:
            until_known(n2, digest, 1)

            pulled = n2.run("pull", "own", within_s=COPIED_S)

            assert pulled.returncode != 0
            assert "no_right" in pulled.stderr or "does not serve" in pulled.stderr
            assert not list(n2.models.glob("*.gguf"))


def test_a_port_scan_finds_tls_that_refuses(daemon: Make) -> None:
    """Every TCP port of a daemon but its API says nothing to strangers."""
    with daemon(models=()) as n1:
        import psutil  # noqa: PLC0415

        listening = [
            each.laddr.port
            for each in psutil.Process(n1.process.pid).net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr.port != n1.port
        ]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

        assert len(listening) == 1
        with (
            socket.create_connection(("127.0.0.1", listening[0]), timeout=WAIT_S) as raw,
            context.wrap_socket(raw) as stream,
        ):
            assert stream.version() == "TLSv1.3"
            assert stream.recv(1) == b""
