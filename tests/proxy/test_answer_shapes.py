"""What the lists of models say is what the reference says of them, key by key."""

from typing import Any

import pytest

from meshllm.core.known_models import CATALOG
from meshllm.proxy.detail import model_detail
from meshllm.proxy.listing import ListOptions, model_list
from tests.api.described import mismatches, operation
from tests.core.builders import a_spec, a_story, ready


def schema_of(path: str) -> Any:
    """Return what the reference says of an answer."""
    return operation("GET", path)["responses"]["200"]["content"]["application/json"]["schema"]


@pytest.mark.parametrize("is_ready", [True, False])
def test_the_list_of_models_is_described(is_ready: bool) -> None:
    """In memory, on disk, in the catalogue; `default` and `auto`."""
    story = a_story(a_spec("tiny"), a_spec("other"), requested=("tiny", "nonsense"))
    if is_ready:
        story.tell(ready("tiny"))

    found = model_list(story.core.view, ListOptions.parse("catalog=1&pseudo=all"), CATALOG)

    assert mismatches(found, schema_of("/v1/models")) == []


@pytest.mark.parametrize("name", ["tiny", "default", "auto", CATALOG[0].files[0].stem])
def test_one_model_of_it_is_described(name: str) -> None:
    """With all that is known of it, or of what a name stands for."""
    story = a_story(a_spec("tiny"))
    story.tell(ready("tiny"))

    found: Any = model_detail(story.core.view, name, CATALOG)

    assert mismatches(found | {"aliases": list(found.get("aliases", ()))}, schema_of("/v1/models/x")) == []
