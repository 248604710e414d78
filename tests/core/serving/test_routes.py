"""What routing is asked and what it answers, as shapes."""

from meshllm.core.serving.routes import Refusal, RefusalCode, RouteRequest


def test_a_plain_request_asks_for_nothing_special() -> None:
    """Neither another model instead, nor to be served here and nowhere else."""
    asked = RouteRequest(model="tiny")

    assert (asked.needs, asked.falls_back, asked.is_forwarded) == (None, False, False)


def test_a_refusal_lets_no_other_model_stand_in_unless_it_says_so() -> None:
    """Only a name that nothing has may fall back."""
    assert not Refusal(code=RefusalCode.MODEL_NOT_FOUND, message="dropped").is_unknown
