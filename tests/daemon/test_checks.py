"""What `doctor` looks at itself, and where it looks for a model that somebody misses."""

import os
import socket
from pathlib import Path

import pytest

from meshllm.core.doctor.discovery import Stray, discovery
from meshllm.core.doctor.findings import Result
from meshllm.daemon import checks
from meshllm.inventory.addresses import InterfaceAddress
from tests.daemon.test_standalone import a_config
from tests.inventory import gguf_builder


async def test_checks_name_what_is_wrong(tmp_path: Path) -> None:
    """`doctor` finds a taken port and a damaged file."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = {check.name: check for check in await checks.checks(a_config(tmp_path, taken.getsockname()[1]))}

    assert found["port"].result is Result.NOTE
    assert "held by process" in found["port"].message
    assert found["engine"].result is Result.OK
    assert found["model file"].result is Result.FAIL
    assert "bad.gguf" in found["model file"].message
    assert found["machine"].result is Result.OK


def test_addresses_for_other_nodes_are_named_without_bridges() -> None:
    """What somebody types at the other machine; a machine without a network is no fault."""
    found = [
        InterfaceAddress(host="10.0.0.7", interface="eth0", is_virtual=False),
        InterfaceAddress(host="172.17.0.1", interface="docker0", is_virtual=True),
    ]

    assert checks.network_check(found).message == "other nodes reach this one at 10.0.0.7"
    assert checks.network_check(found[1:]).result is Result.NOTE


@pytest.mark.rows("OPS-1")
def test_a_model_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    """In any case of letters; what is missed hears of names like it."""
    config = a_config(tmp_path)
    file = tmp_path / "models" / "tiny.gguf"

    by_name, by_path, missed = (checks.search(config, asked) for asked in ("TINY", str(file), "tinu"))

    assert (by_name.found, by_name.path) == (by_path.found, by_path.path) == ("tiny", str(file))
    assert (missed.found, missed.near) == ("", ("tiny",))


@pytest.mark.rows("OPS-1")
def test_what_may_be_a_missed_model_is_told(tmp_path: Path) -> None:
    """A damaged file of that name, one in another format; nothing of other names."""
    config = a_config(tmp_path)
    weights = tmp_path / "models" / "Mine-7B" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")

    damaged, other = checks.search(config, "bad"), checks.search(config, "mine-7b")

    assert [Path(problem.path).name for problem in damaged.problems] == ["bad.gguf"]
    assert (other.problems, other.strays) == ((), ((str(weights), Stray.FORMAT),))


@pytest.mark.rows("OPS-1")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_closed_folder_may_hold_what_is_missed(tmp_path: Path) -> None:
    """Then permissions are what fails."""
    config = a_config(tmp_path)
    closed = tmp_path / "models" / "closed"
    gguf_builder.write(closed / "mine.gguf")
    closed.chmod(0)

    found = {one.name: one for one in discovery(checks.search(config, "mine"))}

    closed.chmod(0o755)
    assert found["permissions"].result is Result.FAIL
    assert str(closed) in found["permissions"].message
