"""What a name in a management request means."""

import pytest

from meshllm.api.answers import ApiError
from meshllm.api.names import find_model, is_early, require_model
from meshllm.core.names import Unknown
from meshllm.core.view import LocalModel
from tests.core.builders import a_spec, a_story
from tests.core.serving.neighbours import Neighbourhood


def test_name_means_what_routing_thinks_it_means() -> None:
    """Id, unique stem, default."""
    view = a_story(a_spec("tiny-Q4"), requested=("tiny-Q4",)).core.view

    for name in ("tiny-Q4", "TINY-q4", "tiny", "default", ""):
        found = find_model(view, name)
        assert isinstance(found, LocalModel)
        assert found.id == "tiny-Q4"


def test_default_of_a_node_without_models_is_unknown() -> None:
    """There is nothing to unload."""
    assert isinstance(find_model(a_story().core.view, "default"), Unknown)


@pytest.mark.parametrize(("name", "status"), [("m", 409), ("n", 404)])
def test_name_that_means_no_single_model_is_refused(name: str, status: int) -> None:
    """Nobody guesses."""
    view = a_story(a_spec("m-Q4"), a_spec("m-Q8")).core.view

    with pytest.raises(ApiError) as caught:
        require_model(view, name)

    assert caught.value.status == status


def test_a_name_that_is_not_known_yet_is_to_be_asked_for_again() -> None:
    """A node that has not looked at its folders says that, and not that there is no such model."""
    view = Neighbourhood(has_looked=False).core.view

    with pytest.raises(ApiError) as caught:
        find_model(view, "tiny")

    assert is_early(view, "tiny")
    assert (caught.value.status, caught.value.code) == (503, "starting")
    assert "Retry-After" in caught.value.headers
    assert not is_early(a_story().core.view, "tiny")
