"""What stays open to a closed process: what it was told, and the system's own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRIES = """
import json, os, signal, socket, sys
from meshllm.engine.confinement import PR_SET_NO_NEW_PRIVS
from meshllm.engine.landlock import WITH_NETWORK, Opening, close_all_but
import ctypes

told = json.loads(sys.argv[1])
ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
try:
    version = close_all_but(Opening(read=told["read"], write=told["write"], listens=told["port"]))
except (OSError, AttributeError):
    print(json.dumps({"version": 0}))
    raise SystemExit

def can(what):
    try:
        what()
    except OSError:
        return False
    return True

print(json.dumps({
    "version": version,
    "reads": [can(lambda: open(path).read()) for path in told["try_read"]],
    "writes": [can(lambda: open(path, "w").write("x")) for path in told["try_write"]],
    "listens": [can(lambda: socket.create_server(("127.0.0.1", port)).close()) for port in (told["port"], 0)],
    "connects": can(lambda: socket.create_connection(("127.0.0.1", told["other"])).close()),
}))
"""


def closed(**told: object) -> dict[str, object]:
    """Return what a closed process could still do."""
    done = subprocess.run(
        [sys.executable, "-c", TRIES, json.dumps(told)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    result: dict[str, object] = json.loads(done.stdout)
    if not result["version"]:
        pytest.skip("this kernel closes nothing")
    return result


def a_port() -> int:
    """Return a port that is free just now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_files_of_others_are_closed(tmp_path: Path) -> None:
    """What it may read it cannot write; what it may write it can read; the system's libraries are there."""
    for name in ("mine", "kept", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x", encoding="utf-8")
    read, kept, secret = (str(tmp_path / name / "file") for name in ("mine", "kept", "secret"))

    could = closed(
        read=[str(tmp_path / "mine")], write=[str(tmp_path / "kept")], port=a_port(), other=0,
        try_read=[read, kept, secret, "/etc/hostname", "/proc/self/status"], try_write=[read, kept, secret],
    )  # fmt: skip

    assert could["reads"] == [True, True, False, False, True]
    assert could["writes"] == [False, True, False]


def test_the_network_is_closed_but_for_one_port() -> None:
    """It may listen there, and connect to nothing."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        could = closed(
            read=[], write=[], port=a_port(), other=other.getsockname()[1], try_read=[], try_write=[]
        )  # fmt: skip

    if int(str(could["version"])) < 4:
        pytest.skip("this kernel closes no ports")
    assert could["listens"] == [True, False]
    assert could["connects"] is False
