"""What routing is asked and what it answers, as shapes."""

from meshllm.core.routing.routes import Capability, Refusal, RefusalCode, RouteRequest, Wishes


def test_a_plain_request_asks_for_nothing_special() -> None:
    """Neither another model instead, nor to be served here and nowhere else."""
    asked = RouteRequest(model="tiny")

    assert (asked.needs, asked.is_forwarded) == (None, False)


def test_a_refusal_lets_no_other_model_stand_in_unless_it_says_so() -> None:
    """Only a name that nothing has may fall back."""
    assert not Refusal(code=RefusalCode.MODEL_NOT_FOUND, message="dropped").is_unknown


def test_what_a_request_wants_of_a_model_is_what_its_path_its_images_and_its_body_want() -> None:
    """Each once, and nothing where nothing is said."""
    wishes = Wishes(capabilities=("chat", "vision"), has_images=True)

    assert RouteRequest(model="tiny").wanted == ()
    assert RouteRequest(model="tiny", needs=Capability.RERANK).wanted == ("rerank",)
    assert RouteRequest(model="tiny", wishes=wishes).wanted == ("vision", "chat")
    assert RouteRequest(model="tiny", needs=Capability.COMPLETION, wishes=wishes).wanted == (
        "completion", "vision", "chat",
    )  # fmt: skip
