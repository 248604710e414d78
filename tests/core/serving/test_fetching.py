"""From a name to a file on this disk."""

import pytest

from meshllm.core import events as ev
from meshllm.core.announcement import DiskModel
from meshllm.core.catalog import ModelReference
from meshllm.core.effects import Answer, CancelDownload, Download, Leave, ResolveModel, StartEngine
from meshllm.core.engines import EngineFault
from meshllm.core.ids import ModelId
from meshllm.core.intents import Intent, OutcomeCode, Verb
from meshllm.core.known_models import choose_file, find, reference_of
from tests.core.builders import Story, a_spec, a_story, ready
from tests.core.serving.neighbours import Neighbourhood, a_node

TINY = ModelId("tiny")


def catalogued(name: str) -> ModelReference:
    """Return where a catalogue file is."""
    model = find(name)
    assert model is not None
    file = model[1] or choose_file(model[0], 10**12)
    assert file is not None
    return reference_of(model[0], file, name)


def served(name: str = "tiny") -> Story:
    """Return a story in which one requested model is ready."""
    story = a_story(a_spec(name), requested=(name,))
    story.tell(ev.EngineStarted(model=ModelId(name), pid=100), ready(name))
    return story


def test_a_catalogue_name_is_downloaded_then_served() -> None:
    """The README's first command on a fresh machine."""
    story = a_story(requested=("smollm2-135m",))
    reference = story.of(Download)[0].reference

    story.tell(ev.DownloadProgressed(model=reference.id, done_bytes=reference.size_bytes // 4, total_bytes=0))
    progress = story.model(reference.id).progress
    assert progress is not None
    assert (progress.stage, round(progress.share, 2)) == ("downloading", 0.25)

    story.tell(ev.DownloadFinished(model=reference.id, path="/models/x.gguf"))
    assert len(story.of(Download)) == 1
    effects = story.tell(ev.InventoryChanged(models=(a_spec(reference.id),)))
    assert [effect.plan.model.id for effect in effects if isinstance(effect, StartEngine)] == [reference.id]


def test_a_failed_download_fails_the_model_with_its_reason() -> None:
    """`status` says why there is no model."""
    story = a_story(requested=("smollm2-135m",))
    model = story.of(Download)[0].reference.id

    story.tell(ev.DownloadFailed(model=model, code="network", message="no hub in reach"))

    failure = story.model(model).failure
    assert failure is not None
    assert (failure.fault, failure.message) == (EngineFault.DOWNLOAD_FAILED, "no hub in reach")
    assert len(story.of(Download)) == 1


@pytest.mark.rows("QTA-1")
def test_a_file_that_is_larger_than_its_quota_is_not_fetched() -> None:
    """Whoever waits for it is told both numbers; with more, it is."""
    story = a_story()
    model = catalogued("smollm2-135m").id
    for request_id, most_gb in (("q1", 0.01), ("q2", 10)):
        story.tell(ev.QuotaChangeAsked(request_id=request_id, model=model, document={"max_ssd_gb": most_gb}))
        intent = Intent(verb=Verb.PULL, model="smollm2-135m", request_id=f"{request_id} pull")
        effects = story.tell(ev.IntentReceived(intent=intent))
        fetched = [effect.reference.id for effect in effects if isinstance(effect, Download)]
        refused = [one.outcome for one in effects if isinstance(one, Answer) and one.request_id == intent.request_id]

        assert fetched == ([] if most_gb < 1 else [model])
        assert [outcome.code for outcome in refused] == ([OutcomeCode.DOWNLOAD_FAILED] if most_gb < 1 else [])


def test_a_failed_download_is_tried_again_by_load() -> None:
    """The network may be back."""
    story = a_story(requested=("smollm2-135m",))
    model = story.of(Download)[0].reference.id
    story.tell(ev.DownloadFailed(model=model, code="network", message="no hub in reach"))

    story.ask(Verb.LOAD, model)

    assert len(story.of(Download)) == 2


def test_unload_cancels_a_download() -> None:
    """Somebody changed their mind."""
    story = a_story(requested=("smollm2-135m",))
    model = story.of(Download)[0].reference.id

    story.ask(Verb.UNLOAD, model)

    assert story.of(CancelDownload) == [CancelDownload(model=model)]


def test_pull_only_downloads() -> None:
    """The file is on the disk and the memory stays free."""
    story = a_story(a_spec(), requested=("tiny",))

    request = story.ask(Verb.PULL, "smollm2-135m")
    model = story.of(Download)[0].reference.id
    story.tell(ev.DownloadFinished(model=model, path="/models/x.gguf"))
    story.tell(ev.InventoryChanged(models=(a_spec(), a_spec(model))))

    outcome = story.outcome(request)
    assert outcome is not None
    assert outcome.is_done
    assert [effect.plan.model.id for effect in story.of(StartEngine)] == ["tiny"]


def test_a_name_that_nothing_knows_ends_a_node_that_has_nothing_else() -> None:
    """A typing error is told at once, with a failing exit code."""
    story = a_story(requested=("user/nonsense",))
    assert story.of(ResolveModel) == [ResolveModel(asked="user/nonsense")]

    story.tell(ev.ModelAsked(asked="user/nonsense", reference=None, message="no such model"))

    assert [(effect.reason, effect.exit_code) for effect in story.of(Leave)] == [("user/nonsense: no such model", 1)]


def test_a_typing_error_is_told_without_asking_outside() -> None:
    """Only names with a slash can be a hub's; the rest is known here, with names that were perhaps meant."""
    story = a_story(requested=("smolm2-135m",))

    assert not story.of(ResolveModel)
    assert "did you mean smollm2-135m" in story.of(Leave)[0].reason


def test_load_of_a_typing_error_is_answered_at_once() -> None:
    """The same words for a command as for the start."""
    story = a_story(a_spec())

    outcome = story.outcome(story.ask(Verb.LOAD, "tyni"))

    assert outcome is not None
    assert outcome.code is OutcomeCode.UNKNOWN_MODEL
    assert "did you mean tiny" in outcome.message


def test_a_name_that_nothing_knows_does_not_end_a_node_that_serves() -> None:
    """One of two names was right."""
    story = a_story(a_spec(), requested=("tiny", "u/nonsense"))

    story.tell(ev.ModelAsked(asked="u/nonsense", reference=None, message="no such model"))

    assert not story.of(Leave)
    assert story.core.view.unresolved["u/nonsense"] == "no such model"


def test_names_that_programs_get_wrong_are_not_kept() -> None:
    """A client that asks for nonsense all day must not fill the memory."""
    story = a_story(a_spec())
    story.ask(Verb.PULL, "u/nonsense")

    story.tell(ev.ModelAsked(asked="u/nonsense", reference=None, message="no such model"))

    assert not story.core.view.unresolved


def test_members_with_the_very_file_are_asked_first() -> None:
    """By the digest of the catalogue; the progress says from whom it comes."""
    story = Neighbourhood()
    story.meet()
    reference = catalogued("smollm2-135m")
    file = DiskModel(
        model=ModelId("called-otherwise"), digest=f"sha256:{reference.sha256}", size_bytes=reference.size_bytes
    )
    story.hear(a_node("q", models_on_disk=(file,), bulk_port=4001))

    story.ask(Verb.PULL, reference.id)
    story.tell(ev.DownloadProgressed(model=reference.id, done_bytes=1, total_bytes=2, peers=("q",)))

    download = story.of(Download)[0]
    progress = story.model(reference.id).progress
    assert [peer.name for peer in download.peers] == ["q"]
    assert download.reference.sha256 == reference.sha256
    assert progress is not None
    assert progress.peers == ("q",)


def test_pull_of_a_file_that_only_members_have() -> None:
    """A name that means nothing else is theirs; without a repository nobody else is asked."""
    story = Neighbourhood()
    story.meet()
    file = DiskModel(model=ModelId("own"), digest="sha256:" + "a" * 64, size_bytes=10)
    story.hear(a_node("q", models_on_disk=(file,), bulk_port=4001))

    story.ask(Verb.PULL, "own")

    download = story.of(Download)[0]
    assert (download.reference.repository, download.reference.sha256) == ("", "a" * 64)
    assert [peer.name for peer in download.peers] == ["q"]


def test_a_file_of_somebody_who_gives_none_is_unknown() -> None:
    """As before: the name stands for nothing here."""
    story = Neighbourhood()
    story.meet()
    story.hear(
        a_node("q", models_on_disk=(DiskModel(model=ModelId("own"), digest="sha256:" + "a" * 64, size_bytes=10),))
    )

    request = story.ask(Verb.PULL, "own")

    outcome = story.outcome(request)
    assert outcome is not None
    assert outcome.code is OutcomeCode.UNKNOWN_MODEL
    assert story.of(Download) == []
