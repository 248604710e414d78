"""Documents about models are made once for a view, and never more of them are kept than a few."""

import json
from dataclasses import replace

from meshllm.proxy.access import AccessRules
from meshllm.proxy.http1 import parse_head
from meshllm.proxy.intake import Intake, take_in
from meshllm.proxy.model_lists import ModelLists
from tests.proxy.builders import a_model, a_view

RULES = AccessRules(bound_host="127.0.0.1")


def asking(path: str) -> Intake:
    """Return what is made of a GET."""
    return take_in(parse_head(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()), RULES, "127.0.0.1")


def test_a_list_is_made_once_for_a_view() -> None:
    """The next view is another list."""
    lists = ModelLists(lambda: 1)
    view = a_view(a_model("tiny"))

    status, first, _ = lists.document(view, asking("/v1/models"))
    _, again, _ = lists.document(view, asking("/v1/models"))
    _, later, _ = lists.document(a_view(a_model("other"), epoch=2), asking("/v1/models"))

    assert status == 200
    assert again is first
    assert [entry["id"] for entry in json.loads(later)["data"]] == ["default", "other"]


def test_one_model_and_an_unknown_one_are_answered() -> None:
    """The unknown one as an error document."""
    lists, view = ModelLists(lambda: 1), a_view(a_model("tiny"))

    known = lists.document(view, asking("/v1/models/tiny"))
    unknown = lists.document(view, asking("/v1/models/nobody"))

    assert (known[0], json.loads(known[1])["id"]) == (200, "tiny")
    assert (unknown[0], json.loads(unknown[1])["error"]["code"]) == (404, "model_not_found")


def test_a_model_that_is_looked_for_is_told_to_be_asked_for_again() -> None:
    """Nobody hears that a model does not exist which is found a second later."""
    view = replace(a_view(), has_inventory=False)

    status, document, lines = ModelLists(lambda: 7).document(view, asking("/v1/models/tiny"))

    assert (status, json.loads(document)["error"]["code"]) == (503, "model_loading")
    assert lines == b"Retry-After: 7\r\n"


def test_many_different_questions_are_not_all_remembered() -> None:
    """Whoever asks for a thousand names does not fill the memory."""
    lists, view = ModelLists(lambda: 1), a_view(a_model("tiny"))

    for number in range(1000):
        lists.document(view, asking(f"/v1/models/name-{number}"))

    assert len(lists._known) <= 256
