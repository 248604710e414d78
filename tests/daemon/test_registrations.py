"""Versions are kept, told to the core, and lead only to files that lie in the model folders."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from meshllm.api.deps import RegistrationWish, RegistryRefusalError
from meshllm.core.catalog import ModelProblem, ModelSpec
from meshllm.core.events import Event, InventoryChanged
from meshllm.core.ids import ModelId
from meshllm.core.registration import Registration, RegistryNotes
from meshllm.daemon import checked_file, registrations
from meshllm.daemon.current_view import CurrentView
from meshllm.daemon.registrations import Registrations
from tests.core.builders import Story, a_spec, a_story

UNIX_S = 1_700_000_000.0


class Home:
    """A model folder, a core that hears of it, and the registry over both."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "models"
        self.folder.mkdir(exist_ok=True)
        self.file = tmp_path / "state" / "registry.json"
        self.file.parent.mkdir(exist_ok=True)
        self.story: Story = a_story(min_unasked_bytes=10**15)
        self.views = CurrentView(self.story.core.view)
        self.specs: list[ModelSpec] = []
        self.problems: tuple[ModelProblem, ...] = ()
        self.looks = 0
        self.registry = Registrations(self.file, [self.folder], self.views, self._look, self._post, lambda: UNIX_S)

    def _post(self, event: Event) -> None:
        self.story.tell(event)
        self.views.publish(self.story.core.view)

    async def _look(self) -> None:
        self.looks += 1
        self.scanned()

    def scanned(self) -> None:
        """Let the core hear what lies in the folder."""
        self._post(InventoryChanged(models=tuple(self.specs), problems=self.problems))

    def has(self, *names: str, told: bool = True, **changes: object) -> None:
        """Put models into the folder; told of them, the core knows."""
        for name in names:
            path = self.folder / f"{name}.gguf"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"GGUF")
            model = path.stem
            spec = replace(a_spec(model), path=str(path), files=(str(path),), **changes)
            self.specs = [*(one for one in self.specs if one.id != model), spec]
        if told:
            self.scanned()

    async def register(self, path: str | Path, **wish: object) -> Registration:
        """Register something, by default as the first version of `foo`."""
        return await self.registry.register(
            RegistrationWish(**{"name": "foo", "version": "1.0.0", "path": str(path), **wish})
        )

    async def refused(self, path: str | Path, **wish: object) -> str:
        """Return the word with which a registration is refused."""
        with pytest.raises(RegistryRefusalError) as caught:
            await self.register(path, **wish)
        return caught.value.code


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return an empty home."""
    return Home(tmp_path)


def shown(entries: Sequence[Registration]) -> list[tuple[str, str, str]]:
    """Return names, versions and files."""
    return [(one.name, one.version, one.model) for one in entries]


@pytest.mark.rows("REG-6", "REG-9")
async def test_a_version_survives_a_restart_and_the_core_knows_it(home: Home, tmp_path: Path) -> None:
    """With everything that was said of it."""
    home.has("v1", "v2")
    notes = RegistryNotes(max_tokens=5, temperature=0.5, tags=("a",), license="MIT")

    await home.register(home.folder / "v1.gguf")
    made = await home.register("v2.gguf", version="1.1.0", alias="stable", notes=notes, digest="sha256:v2")
    again = Home(tmp_path)
    again.has("v1", "v2")
    again.registry.read()

    assert (made.model, made.aliases, made.registered_unix_s, made.notes) == ("v2", ("stable",), UNIX_S, notes)
    assert shown(home.views.newest.registered) == [("foo", "1.0.0", "v1"), ("foo", "1.1.0", "v2")]
    assert again.views.newest.registered == home.views.newest.registered
    assert [one.name for one in again.views.newest.me.names] == ["foo", "foo", "foo@stable"]


@pytest.mark.rows("REG-6")
async def test_a_path_is_a_file_a_folder_of_one_model_or_a_link_into_the_model_folders(home: Home) -> None:
    """As people name models."""
    home.has("Named/model", "plain")
    (home.folder / "link.gguf").symlink_to(home.folder / "plain.gguf")

    by_folder = await home.register("Named")
    by_link = await home.register(home.folder / "link.gguf", name="bar")

    assert (by_folder.model, by_link.model) == ("model", "plain")
    assert await home.refused(home.folder, name="baz") == "invalid_value"


@pytest.mark.rows("REG-6")
async def test_a_path_that_leads_out_of_the_model_folders_is_refused_there_or_not(home: Home, tmp_path: Path) -> None:
    """In the same words, so that nobody learns what else lies on this disk."""
    (tmp_path / "secret.gguf").write_bytes(b"GGUF")
    (home.folder / "out.gguf").symlink_to(tmp_path / "secret.gguf")
    (home.folder / "loop.gguf").symlink_to(home.folder / "loop.gguf")

    written = [tmp_path / "secret.gguf", tmp_path / "nothing", "../secret.gguf", home.folder / "out.gguf", "/", "a\0b"]

    assert {await home.refused(path) for path in written} == {"path_not_allowed"}
    assert await home.refused("loop.gguf") in {"path_not_allowed", "invalid_model"}
    assert home.looks <= 2


@pytest.mark.rows("REG-6", "REG-5")
async def test_a_file_that_has_just_come_is_found_and_one_that_is_none_is_named(home: Home) -> None:
    """One look at the folders, without waiting for the next."""
    home.has("fresh", told=False)
    made = await home.register("fresh.gguf")
    home.problems = (ModelProblem(path=str(home.folder / "bad.gguf"), code="truncated", message="ends too early"),)
    (home.folder / "bad.gguf").write_bytes(b"GG")

    with pytest.raises(RegistryRefusalError, match="ends too early") as caught:
        await home.register("bad.gguf", version="2.0.0")

    assert made.model == "fresh"
    assert (caught.value.code, caught.value.param) == ("invalid_model", "path")
    assert await home.refused("nothing.gguf", version="2.0.0") == "invalid_model"


async def test_a_registration_waits_for_the_digest_but_not_for_ever(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version without a digest would be any file."""
    home.has("v1", digest="")
    waiting = asyncio.get_running_loop().create_task(home.register("v1.gguf"))
    await asyncio.sleep(0)
    home.has("v1", digest="sha256:known")
    made = await waiting
    home.has("v2", digest="")
    monkeypatch.setattr(registrations, "REGISTER_TIMEOUT_S", 0.01)

    assert made.digest == "sha256:known"
    assert await home.refused("v2.gguf", version="2.0.0") == "not_hashed_yet"


@pytest.mark.rows("REG-6")
async def test_what_would_be_two_files_under_one_version_is_refused(home: Home) -> None:
    """And what the file is not, and what a damaged one is."""
    home.has("v1", "v2")
    home.has("rotten", damage="its content changed")
    await home.register("v1.gguf")

    assert await home.refused("v2.gguf") == "version_conflict"
    assert await home.refused("v2.gguf", version="2.0.0", digest="sha256:other") == "digest_mismatch"
    assert await home.refused("rotten.gguf", version="2.0.0") == "invalid_model"
    assert await home.refused("v1.gguf", name="default") == "reserved_name"
    assert await home.refused("v1.gguf", version="1") == "invalid_version"
    assert (await home.register("v1.gguf", alias="stable")).aliases == ("stable",)


async def test_a_version_is_taken_back_once(home: Home, tmp_path: Path) -> None:
    """Its file stays."""
    home.has("v1")
    await home.register("v1.gguf")

    gone = await home.registry.unregister("foo", "1.0.0")
    with pytest.raises(RegistryRefusalError) as caught:
        await home.registry.unregister("foo", "1.0.0")

    assert (gone.model, caught.value.code) == ("v1", "version_not_found")
    assert home.views.newest.registered == ()
    again = Home(tmp_path)
    again.registry.read()
    assert again.views.newest.registered == ()
    assert (home.folder / "v1.gguf").exists()


async def test_two_registrations_at_once_are_both_kept(home: Home) -> None:
    """One after another."""
    home.has("v1", "v2")

    await asyncio.gather(home.register("v1.gguf"), home.register("v2.gguf", version="1.1.0"))

    assert shown(home.views.newest.registered) == [("foo", "1.0.0", "v1"), ("foo", "1.1.0", "v2")]


async def test_what_cannot_be_written_down_is_not_registered(home: Home) -> None:
    """Or it would be gone with the next start."""
    home.has("v1")
    home.file.with_name("registry.json.part").mkdir()

    assert await home.refused("v1.gguf") == "cannot_save"
    assert home.views.newest.registered == ()


async def test_too_many_versions_are_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of them stays small."""
    monkeypatch.setattr(registrations, "REGISTRATIONS", 1)
    home.has("v1", "v2")
    await home.register("v1.gguf")

    assert await home.refused("v2.gguf", version="1.1.0") == "too_many"


@pytest.mark.parametrize(
    "entries",
    [
        5, [5], [{}], [{"name": 1}],
        [{"name": "a", "version": "x", "model": "m", "digest": "d", "path": "p", "size_bytes": 1,
          "registered_unix_s": 1, "aliases": []}],
        [{"name": "a", "version": "1.0.0", "model": "m", "digest": "d", "path": "p", "size_bytes": 1,
          "registered_unix_s": "now", "aliases": []}],
    ],
)  # fmt: skip
async def test_odd_entries_on_disk_are_left_out(home: Home, entries: object) -> None:
    """A node starts without them."""
    checked_file.write(home.file, {"entries": entries})

    home.registry.read()

    assert home.views.newest.registered == ()


async def test_a_damaged_file_is_put_aside(home: Home) -> None:
    """Serving goes on; nothing is thrown away."""
    home.file.write_bytes(b"rubbish")

    home.registry.read()

    assert [path.name.partition(".corrupt-")[1] for path in home.file.parent.iterdir()] == [".corrupt-"]


async def test_an_entry_without_notes_is_read(home: Home) -> None:
    """What was not said is not there."""
    home.has("v1")
    row = {
        "name": "a", "version": "1.0.0", "model": "v1", "digest": "sha256:v1", "path": "p", "size_bytes": 1,
        "registered_unix_s": 1, "aliases": ["stable"], "notes": {"tags": 5, "license": 5, "max_tokens": True},
    }  # fmt: skip
    checked_file.write(home.file, {"entries": [row]})

    home.registry.read()

    (entry,) = home.views.newest.registered
    assert (entry.model, entry.aliases, entry.notes) == (ModelId("v1"), ("stable",), RegistryNotes())
