"""An answer that is a refusal becomes an error with the words of the answer."""

from meshllm.sdk.errors import MeshNodeError, refusal_of


def test_the_envelope_becomes_an_error_with_its_code_and_parameter() -> None:
    """Programs look at `code`."""
    envelope = {"error": {"message": "there is no model 'x'", "code": "model_not_found", "param": "model"}}

    error = refusal_of(404, envelope)

    assert isinstance(error, MeshNodeError)
    assert (error.status, error.code, error.param, str(error)) == (404, "model_not_found", "model", error.message)


def test_the_words_of_the_lifecycle_become_one_too() -> None:
    """`status` is the word for programs there; an answer without any has its number."""
    error = refusal_of(503, {"model_id": "m", "status": "unloaded", "error": "no room"})
    empty = refusal_of(502, {"error": {}})
    silent = refusal_of(502, {})

    assert (error.code, error.message, error.param) == ("unloaded", "no room", None)
    assert (empty.code, silent.code, silent.message) == ("", "", "the node answered 502")
