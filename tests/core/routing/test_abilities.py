"""What models can do, and what they are known to be able to do."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from meshllm.core import limits
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.policy import ModelPolicy
from meshllm.core.registration import Registration, RegistryNotes
from meshllm.core.routing.abilities import (
    able,
    known_abilities,
    large_enough,
    largest_context,
    none_able,
    not_able,
    tags_here,
    too_small,
)
from meshllm.core.routing.routes import RefusalCode, Remote, Route
from meshllm.core.view import MeshView
from tests.core.builders import a_spec, a_story, ready
from tests.core.routing.test_replicas import a_replica

HERE = ModelId("here")


def a_view(*, tags: tuple[str, ...] = (), noted: tuple[str, ...] = (), **facts: Any) -> MeshView:
    """Return a view with one model that is ready here, with what people say of it."""
    story = a_story(a_spec("here"), requested=("here",))
    story.tell(ready("here"))
    registration = Registration(
        name="nick", version="1.0.0", model=HERE, digest="", path="here.gguf", size_bytes=1, registered_unix_s=0.0,
        notes=RegistryNotes(tags=noted),
    )  # fmt: skip
    policies = MappingProxyType({HERE: ModelPolicy(name="here", tags=tags, context_tokens=facts.pop("context", None))})
    return replace(story.core.view, policies=policies, registered=(registration,), **facts)


@pytest.mark.parametrize(
    ("wanted", "is_here"),
    [
        ((), True), (("completion",), True), (("chat", "arabic"), True), (("arabic", "law"), True),
        (("vision",), False), (("arabic", "poems"), False), (("Chat",), False),
    ],
)  # fmt: skip
def test_a_model_can_do_what_its_file_shows_and_what_people_say_of_it(
    wanted: tuple[str, ...], *, is_here: bool
) -> None:
    """In a configuration, or with a registered version."""
    view = a_view(tags=("arabic",), noted=("law",))

    assert able(view, wanted, view.local[HERE], ()).is_here is is_here
    assert known_abilities(view, HERE) == ("arabic", "chat", "completion", "law")
    assert tags_here(view, HERE) == {"arabic", "law"}


def test_hosts_of_one_file_differ_in_what_lies_beside_it_and_share_what_people_say() -> None:
    """A projector is somewhere or not; a tag is said of the model."""
    view = a_view(tags=("arabic",))
    sees = a_replica("a", model="here", capabilities=("chat", "vision"))
    blind = a_replica("b", model="here", capabilities=("chat", "poems"))

    seeing = able(view, ("vision", "arabic"), view.local[HERE], (sees, blind))
    poets = able(view, ("poems",), view.local[HERE], (sees, blind))

    assert seeing == (False, (sees,))
    assert poets == (True, (sees, blind))


def test_what_nobody_knows_of_a_file_excludes_nobody_and_a_tag_that_nobody_gave_does() -> None:
    """Adopted servers do not say what their models can do; loading models are still being read."""
    view = a_view()
    unread = replace(view.local[HERE], spec=None)
    silent = a_replica("a", model="here")

    assert able(view, ("vision",), unread, (silent,)) == (True, (silent,))
    assert able(view, ("arabic",), unread, (silent,)) == (False, ())
    assert able(view, (), None, (silent,)) == (False, (silent,))
    assert known_abilities(view, ModelId("nobody")) == ()


def test_refusals_say_what_is_missing_and_what_there_is() -> None:
    """A person can then ask for something else."""
    view = a_view(replicas=MappingProxyType({ModelId("far"): (a_replica("a", model="far"),)}))

    named = not_able(view, HERE, ("chat", "vision"), is_wish=True)
    none = none_able(view, ("vision", "law"), [ModelId("far"), HERE], is_wish=False)
    many = none_able(view, ("law",), [ModelId(f"m{number}") for number in range(limits.MODELS_NAMED + 2)], is_wish=True)

    assert (named.code, named.param) == (RefusalCode.CAPABILITY_NOT_SUPPORTED, "capabilities")
    assert named.message == "the model 'here' cannot do vision; it can do: chat, completion"
    assert (none.code, none.param) == (RefusalCode.NO_CAPABLE_MODEL, "model")
    assert none.message == "no model can do vision and law; there is: far (unknown); here (chat, completion)"
    assert (many.param, many.message.endswith("; and 2 more")) == ("capabilities", True)


def test_a_context_is_large_enough_or_not_known() -> None:
    """Where it is not known the engine itself says so."""
    small, large, unknown = (
        Route(
            model=HERE, node=NodeId("a"), reason="remote", target=Remote(digest="", slots=1, context_tokens=tokens),
        )
        for tokens in (1024, 4096, 0)
    )  # fmt: skip
    routes = (small, large, unknown)
    refusal = too_small("the model 'here'", 8192, 4096)

    assert large_enough(routes, 0) == routes
    assert large_enough(routes, 4096) == (large, unknown)
    assert (refusal.code, refusal.param) == (RefusalCode.CONTEXT_TOO_LONG, "min_context")
    assert ("8192" in refusal.message, "4096" in refusal.message) == (True, True)


def test_a_context_is_at_most_what_a_model_was_trained_for_unless_somebody_says_otherwise() -> None:
    """And unknown while its file is."""
    plain, told = a_view(), a_view(context=2048)
    local = plain.local[HERE]

    assert largest_context(plain, local) == 8192
    assert largest_context(told, local) == 2048
    assert largest_context(plain, replace(local, spec=None)) == 0
