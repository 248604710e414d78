"""Folders become models and problems: every layout, every fault, and changes while someone watches."""

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from meshllm.core import limits
from meshllm.core.catalog import ModelSpec
from meshllm.inventory import gguf, model_files
from meshllm.inventory.digests import FileVersion
from meshllm.inventory.model_files import Inventory, ModelScanner, scan
from tests.core.builders import a_spec
from tests.inventory.gguf_builder import Tensor, build, llama, write


class NoDigests:
    """Knows no digest at all."""

    def combined(self, versions: Iterable[FileVersion]) -> str:
        """Return that nothing is known."""
        return ""

    def damage_of(self, version: FileVersion) -> str:
        """Return that nothing is wrong."""
        return ""


def look(*folders: Path) -> Inventory:
    """Scan folders without digests."""
    return scan(folders, NoDigests())


def ids(inventory: Inventory) -> list[str]:
    """Return the ids of the models."""
    return [str(spec.id) for spec in inventory.models]


def codes(inventory: Inventory) -> list[str]:
    """Return the codes of the problems."""
    return [problem.code for problem in inventory.problems]


def only(inventory: Inventory) -> ModelSpec:
    """Return the one model of a clean inventory."""
    assert not inventory.problems
    (spec,) = inventory.models
    return spec


def write_shards(folder: Path, count: int, *, stem: str = "Big-Q4_K_M", announced: int | None = None) -> list[Path]:
    """Write a whole set of shards, one tensor each."""
    split = {"split.count": announced or count, "split.tensors.count": count}
    paths = []
    for number in range(count):
        metadata = {**(llama() if number == 0 else {}), **split, "split.no": number}
        path = folder / f"{stem}-{number + 1:05}-of-{count:05}.gguf"
        paths.append(write(path, metadata, (Tensor(f"blk.{number}"),)))
    return paths


def write_projector(path: Path) -> Path:
    """Write a multimodal projector."""
    return write(path, {"general.architecture": "clip", "general.type": "mmproj"})


@pytest.mark.rows("REG-1")
def test_the_given_layouts_are_found(tmp_path: Path) -> None:
    """Flat files, folders of files, and the vendor's `<Name>/model.gguf`."""
    write(tmp_path / "Flat-1B-Q4_0.gguf")
    write(tmp_path / "Folder" / "Inner-1B.gguf")
    write(tmp_path / "Named-7B" / "model.gguf")
    write(tmp_path / "vendor" / "Deep" / "Deepest.GGUF")

    inventory = look(tmp_path)

    assert ids(inventory) == ["Deepest", "Flat-1B-Q4_0", "Inner-1B", "Named-7B"]
    assert not inventory.problems


def test_a_file_that_is_named_is_a_model_by_its_own_name(tmp_path: Path) -> None:
    """Whatever else lies there, and though its name says little."""
    file = write(tmp_path / "Named-7B" / "model.gguf")
    write(tmp_path / "Named-7B" / "other.gguf")

    inventory = look(file)

    assert ids(inventory) == ["model"]
    assert not inventory.problems


@pytest.mark.rows("REG-3", "T12")
def test_the_header_counts_and_not_the_name(tmp_path: Path) -> None:
    """T12: a file renamed to `Foo-1B` still shows what it is."""
    path = write(tmp_path / "Foo-1B-Q8_0.gguf", llama(general__file_type=2))

    spec = only(look(tmp_path))

    assert (spec.architecture.name, spec.quantization, spec.parameters) == ("llama", "Q4_0", 128)
    assert (spec.path, spec.files, spec.size_bytes) == (str(path), (str(path),), path.stat().st_size)
    assert spec.modified_s == pytest.approx(path.stat().st_mtime)


def test_what_is_hidden_unfinished_or_too_deep_is_not_looked_at(tmp_path: Path) -> None:
    """A download has `.part` until it is verified."""
    write(tmp_path / ".hidden.gguf")
    write(tmp_path / ".cache" / "Cached.gguf")
    write(tmp_path / "Half.gguf.part")
    write(tmp_path / "Bad.gguf.corrupt")
    write(tmp_path / "a" / "b" / "c" / "TooDeep.gguf")

    inventory = look(tmp_path)

    assert inventory == Inventory()


def test_a_folder_that_is_absent_has_no_models_and_no_problem(tmp_path: Path) -> None:
    """`~/.models` need not exist."""
    inventory = look(tmp_path / "absent")

    assert inventory == Inventory()


def test_a_models_folder_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    """Someone named the file instead of its folder."""
    path = write(tmp_path / "model.txt")

    inventory = look(path)

    assert codes(inventory) == ["not_a_file"]


def test_files_that_are_no_models_are_problems_with_reasons(tmp_path: Path) -> None:
    """One bad file does not hide the good ones."""
    write(tmp_path / "Good.gguf")
    (tmp_path / "Text.gguf").write_text("hello")
    (tmp_path / "Empty.gguf").touch()
    (tmp_path / "Gone.gguf").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "Pipe.gguf")

    inventory = look(tmp_path)

    assert ids(inventory) == ["Good"]
    assert codes(inventory) == ["empty", "unreadable", "not_a_file", "not_gguf"]
    assert all(problem.message for problem in inventory.problems)


def test_adapters_and_importance_matrices_are_passed_over(tmp_path: Path) -> None:
    """They lie beside models by right."""
    write(tmp_path / "lora.gguf", llama(general__type="adapter"))
    write(tmp_path / "imatrix.gguf", llama(general__type="imatrix"))

    inventory = look(tmp_path)

    assert inventory == Inventory()


@pytest.mark.rows("REG-1")
def test_a_shard_set_is_one_model(tmp_path: Path) -> None:
    """Size and parameters are those of all files."""
    paths = write_shards(tmp_path, 3)

    spec = only(look(tmp_path))

    assert spec.id == "Big-Q4_K_M"
    assert spec.files == tuple(str(path) for path in paths)
    assert spec.path == str(paths[0])
    assert spec.size_bytes == sum(path.stat().st_size for path in paths)
    assert spec.parameters == 3 * 128


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_shard_set_with_a_gap_is_a_problem(tmp_path: Path, lost: int) -> None:
    """The set is complete or it is nothing."""
    write_shards(tmp_path, 3)[lost].unlink()

    inventory = look(tmp_path)

    assert (ids(inventory), codes(inventory)) == ([], ["shards"])
    assert f"number {lost + 1}" in inventory.problems[0].message


def test_shards_of_different_sets_are_a_problem(tmp_path: Path) -> None:
    """A file of another split has the right name and the wrong number inside."""
    first, second = write_shards(tmp_path, 2)
    second.write_bytes(first.read_bytes())

    inventory = look(tmp_path)

    assert codes(inventory) == ["shards"]


def test_shards_that_announce_another_count_are_a_problem(tmp_path: Path) -> None:
    """The header says how many there are."""
    write_shards(tmp_path, 2, announced=3)

    inventory = look(tmp_path)

    assert codes(inventory) == ["shards"]


def test_shards_that_lack_tensors_are_a_problem(tmp_path: Path) -> None:
    """The first file announces how many tensors the set has."""
    write(tmp_path / "Big-00001-of-00002.gguf", {**llama(), "split.count": 2, "split.no": 0, "split.tensors.count": 9})
    write(tmp_path / "Big-00002-of-00002.gguf", {"split.count": 2, "split.no": 1})

    inventory = look(tmp_path)

    assert codes(inventory) == ["shards"]


def test_a_renamed_shard_is_a_problem(tmp_path: Path) -> None:
    """Alone it would load as half a model."""
    write_shards(tmp_path, 2)[0].rename(tmp_path / "Whole.gguf")
    (tmp_path / "Big-Q4_K_M-00002-of-00002.gguf").unlink()

    inventory = look(tmp_path)

    assert codes(inventory) == ["shards"]


def test_a_damaged_shard_is_named_itself(tmp_path: Path) -> None:
    """Which of thirty files to download again."""
    shard = write_shards(tmp_path, 2)[1]
    shard.write_bytes(shard.read_bytes()[:-100])

    inventory = look(tmp_path)

    assert [(problem.path, problem.code) for problem in inventory.problems] == [(str(shard), "incomplete")]


def test_a_single_file_named_like_a_shard_is_a_model(tmp_path: Path) -> None:
    """Some uploads are sets of one."""
    write(tmp_path / "Small-00001-of-00001.gguf")

    spec = only(look(tmp_path))

    assert spec.id == "Small"


@pytest.mark.rows("REG-1")
def test_in_a_folder_of_its_own_a_model_takes_the_projector_beside_it(tmp_path: Path) -> None:
    """Half precision is preferred, as llama.cpp does."""
    write(tmp_path / "Gemma" / "gemma-3-4b-it-Q4_K_M.gguf")
    write_projector(tmp_path / "Gemma" / "mmproj-F32.gguf")
    wanted = write_projector(tmp_path / "Gemma" / "mmproj-F16.gguf")

    spec = only(look(tmp_path))

    assert spec.mmproj == str(wanted)
    assert "vision" in spec.capabilities


def test_in_a_common_folder_only_a_projector_that_names_the_model_is_taken(tmp_path: Path) -> None:
    """Another model's projector would make nonsense of every picture."""
    write(tmp_path / "gemma-3-4b-it-Q4_K_M.gguf")
    write(tmp_path / "Other-7B.gguf")
    wanted = write_projector(tmp_path / "mmproj-gemma-3-4b-it-f16.gguf")

    inventory = look(tmp_path)

    assert {spec.id: spec.mmproj for spec in inventory.models} == {
        "gemma-3-4b-it-Q4_K_M": str(wanted),
        "Other-7B": None,
    }


def test_of_two_models_with_one_id_the_first_folder_wins(tmp_path: Path) -> None:
    """The second is said to be there."""
    first = write(tmp_path / "a" / "Twin.gguf")
    second = write(tmp_path / "b" / "Twin.gguf")

    inventory = look(tmp_path / "a", tmp_path / "b")

    assert [spec.path for spec in inventory.models] == [str(first)]
    assert [(problem.path, problem.code) for problem in inventory.problems] == [(str(second), "duplicate_id")]


@pytest.mark.rows("REG-9")
def test_two_versions_may_lie_side_by_side_under_one_file_name(tmp_path: Path) -> None:
    """One goes by its folder's name; a third of the same folder's name has nothing left to be called."""
    write(tmp_path / "Foo" / "Foo.gguf")
    write(tmp_path / "Foo-v1.1" / "Foo.gguf", llama(general__name="Next"))
    third = write(tmp_path / "more" / "Foo-v1.1" / "Foo.gguf")

    inventory = look(tmp_path, tmp_path / "Foo-v1.1")

    assert {spec.id: spec.display_name for spec in inventory.models} == {"Foo": "Test Model", "Foo-v1.1": "Next"}
    assert [(problem.path, problem.code) for problem in inventory.problems] == [(str(third), "duplicate_id")]


@pytest.mark.slow
@pytest.mark.rows("REG-15")
def test_two_hundred_models_are_listed_and_looked_at_again_quickly(tmp_path: Path) -> None:
    """No fixed number of models that anybody would meet; headers are read once."""
    for number in range(200):
        write(tmp_path / f"Model-{number:03}-1B.gguf")
    scanner = ModelScanner((tmp_path,), NoDigests())
    first = scanner.scan()

    began_s = time.process_time()
    again = scanner.scan()

    assert len(first.models) == 200
    assert again == first
    assert time.process_time() - began_s < 1.0


def test_folders_within_folders_are_no_duplicates(tmp_path: Path) -> None:
    """`--models-dir` twice, once deeper."""
    write(tmp_path / "inner" / "One.gguf")

    inventory = look(tmp_path, tmp_path / "inner")

    assert ids(inventory) == ["One"]
    assert not inventory.problems


@pytest.mark.parametrize("name", ["auto.gguf", "Default.gguf", "new\nline.gguf", os.fsdecode(b"caf\xe9.gguf")])
def test_names_that_cannot_be_asked_for_are_problems(tmp_path: Path, name: str) -> None:
    """And the problem itself can be shown."""
    write(tmp_path / name)

    inventory = look(tmp_path)

    assert (ids(inventory), codes(inventory)) == ([], ["bad_value"])
    assert inventory.problems[0].path.encode()


def test_more_models_than_a_node_lists_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Announcements have a size."""
    monkeypatch.setattr(limits, "MODELS_PER_NODE", 2)
    for number in range(3):
        write(tmp_path / f"M{number}.gguf")

    inventory = look(tmp_path)

    assert (ids(inventory), codes(inventory)) == (["M0", "M1"], ["too_many"])


def test_a_folder_with_too_many_entries_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone named a home folder."""
    monkeypatch.setattr(limits, "MODEL_FOLDER_ENTRIES", 2)
    for number in range(3):
        write(tmp_path / f"M{number}.gguf")

    inventory = look(tmp_path)

    assert (ids(inventory), codes(inventory)) == (["M0", "M1"], ["too_large"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """The models in the others are still found."""
    (tmp_path / "locked").mkdir(mode=0o000)
    write(tmp_path / "Good.gguf")

    inventory = look(tmp_path)

    assert (ids(inventory), codes(inventory)) == (["Good"], ["unreadable"])


def test_a_file_that_is_still_copied_is_picked_up_when_it_is_whole(tmp_path: Path) -> None:
    """First too short, then still growing, then a model."""
    content = build()
    path = tmp_path / "Copy.gguf"
    scanner = ModelScanner((tmp_path,), NoDigests())

    path.write_bytes(content[:-100])
    short = scanner.scan()
    path.write_bytes(content)
    growing = scanner.scan()
    whole = scanner.scan()

    assert (codes(short), codes(growing), codes(whole)) == (["incomplete"], ["incomplete"], [])
    assert (ids(short), ids(growing), ids(whole)) == ([], [], ["Copy"])


def test_a_file_replaced_by_a_larger_one_is_a_model_at_once(tmp_path: Path) -> None:
    """A download gives the name to a finished file."""
    path = write(tmp_path / "Model.gguf")
    scanner = ModelScanner((tmp_path,), NoDigests())
    before = only(scanner.scan())
    write(tmp_path / "next", llama(general__name="A much longer name")).replace(path)

    after = only(scanner.scan())

    assert after.display_name == "A much longer name"
    assert before.display_name == "Test Model"


def test_a_header_is_read_once_for_each_version_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking again every two seconds has to be cheap."""
    read: list[str] = []

    def counting(path: Path) -> object:
        read.append(path.name)
        return real(path)

    real = gguf.read_header
    monkeypatch.setattr(model_files, "read_header", counting)
    write(tmp_path / "A.gguf")
    (tmp_path / "Bad.gguf").write_text("no")
    scanner = ModelScanner((tmp_path,), NoDigests())

    first = scanner.scan()
    again = scanner.scan()
    write(tmp_path / "B.gguf")
    scanner.scan()

    assert first == again
    assert read == ["A.gguf", "Bad.gguf", "B.gguf"]


def test_a_removed_file_is_gone(tmp_path: Path) -> None:
    """No restart is needed when files go."""
    path = write(tmp_path / "A.gguf")
    scanner = ModelScanner((tmp_path,), NoDigests())
    before = scanner.scan()
    path.unlink()

    after = scanner.scan()

    assert (ids(before), ids(after)) == (["A"], [])


def test_a_known_digest_is_in_the_spec(tmp_path: Path) -> None:
    """The spec appears at once without it and again with it."""

    class Known(NoDigests):
        def combined(self, versions: Iterable[FileVersion]) -> str:
            return f"sha256:{len(list(versions))}"

    write(tmp_path / "A.gguf")
    bare = only(look(tmp_path))

    full = only(scan((tmp_path,), Known()))

    assert full == replace(bare, digest="sha256:1")


def test_a_models_files_are_deleted_together(tmp_path: Path) -> None:
    """Half a set of shards is of no use; what is gone already is no error."""
    files = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    files[0].write_bytes(b"x")
    spec = replace(a_spec("m"), files=tuple(map(str, files)))

    assert model_files.delete(spec) == tuple(files)
    assert list(tmp_path.iterdir()) == []
