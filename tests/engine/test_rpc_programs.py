"""Where programs that share models are looked for, and that they are tested once."""

from pathlib import Path

import pytest

from meshllm.core.engines import RpcBuild
from meshllm.engine import rpc_programs
from meshllm.engine.rpc_programs import RpcProblem, find_rpc
from meshllm.engine.rpc_self_test import Passed, RpcUnusableError
from tests.engine.rpc_programs import write_pair


class SelfTest:
    """Stands for the self-test: counts, and says what a test tells it to."""

    def __init__(self) -> None:
        """Pass everything."""
        self.seen: list[str] = []
        self.broken: set[str] = set()

    async def __call__(self, server: str, worker: str) -> Passed:
        """Be the self-test."""
        self.seen.append(server)
        if server in self.broken:
            raise RpcUnusableError(f"{server} is broken")
        return Passed(protocol="7.0.0", version="b7", devices=("CUDA0",))


@pytest.fixture
def tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SelfTest:
    """Look nowhere but in the test's own folders, and test nothing in truth."""
    found = SelfTest()
    monkeypatch.setattr(rpc_programs, "check_pair", found)
    monkeypatch.setattr(rpc_programs, "package_folders", lambda: (tmp_path / "packages",))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return found


def built(cache: Path, name: str = "llama-cpp-python-1") -> Path:
    """Put a build into a cache, as the one in use; return its server."""
    server = write_pair(cache / "engines" / name / "bin") / "llama-server"
    (cache / "engines" / "current").write_text(f"{name}\n")
    return server


async def test_nothing_installed_says_what_to_do(tests: SelfTest, tmp_path: Path) -> None:
    """Most nodes need none: a sentence, not a failure."""
    found = await find_rpc(tmp_path / "cache")

    assert isinstance(found, RpcProblem)
    assert "mesh-llm engine build" in found.message
    assert tests.seen == []


async def test_places_are_looked_at_in_order_and_the_first_that_works_is_taken(tests: SelfTest, tmp_path: Path) -> None:
    """The named program's folder, the own build, a package's, PATH."""
    named = write_pair(tmp_path / "named") / "llama-server"
    own = built(tmp_path / "cache")
    package = write_pair(tmp_path / "packages" / "bin") / "llama-server"
    on_path = write_pair(tmp_path / "path") / "llama-server"
    tests.broken = {str(named), str(own), str(package)}

    found = await find_rpc(tmp_path / "cache", str(named))

    assert isinstance(found, RpcBuild)
    assert found.server == str(on_path)
    assert found.devices == ("CUDA0",)
    assert tests.seen == [str(named), str(own), str(package), str(on_path)]


async def test_good_and_bad_verdicts_are_remembered_until_the_files_change(tests: SelfTest, tmp_path: Path) -> None:
    """The start of a daemon repeats no self-test; who asks by hand has failed ones repeated."""
    own = built(tmp_path / "cache")
    good = [await find_rpc(tmp_path / "cache") for _ in range(2)]
    own.write_text(f"{own.read_text()}\n# another\n")
    tests.broken = {str(own)}
    bad = [await find_rpc(tmp_path / "cache") for _ in range(2)]
    tests.broken = set()
    again = await find_rpc(tmp_path / "cache", again=True)

    assert good[0] == good[1] == again
    assert bad[0] == bad[1] == RpcProblem(message=f"{own} is broken")
    assert len(tests.seen) == 3


async def test_a_package_names_the_version_that_members_compare(tests: SelfTest, tmp_path: Path) -> None:
    """What a server says of itself depends on where it was built; the same package is the same everywhere."""
    write_pair(tmp_path / "packages" / "bin")
    (tmp_path / "packages" / "llama_cpp_python-0.3.36.dist-info").mkdir()
    packaged = await find_rpc(tmp_path / "cache")
    named = write_pair(tmp_path / "named") / "llama-server"
    other = await find_rpc(tmp_path / "cache", str(named))

    assert isinstance(packaged, RpcBuild)
    assert packaged.version == "7.0.0 llama-cpp-python 0.3.36"
    assert isinstance(other, RpcBuild)
    assert other.version == "7.0.0 b7"


@pytest.mark.parametrize("damage", ["", "{", '{"identity": 1}', "[]"])
async def test_damaged_verdict_is_found_anew(tests: SelfTest, tmp_path: Path, damage: str) -> None:
    """The folder is a cache: nothing in it is trusted to be whole."""
    built(tmp_path / "cache")
    first = await find_rpc(tmp_path / "cache")
    for verdict in (tmp_path / "cache" / "engines" / "verdicts").iterdir():
        verdict.write_text(damage)

    assert await find_rpc(tmp_path / "cache") == first
    assert len(tests.seen) == 2


async def test_a_cache_that_cannot_be_written_costs_only_time(tests: SelfTest, tmp_path: Path) -> None:
    """A file stands where its folder would be."""
    write_pair(tmp_path / "path")
    (tmp_path / "cache").touch()

    found = [await find_rpc(tmp_path / "cache") for _ in range(2)]

    assert isinstance(found[0], RpcBuild)
    assert len(tests.seen) == 2
