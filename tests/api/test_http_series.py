"""Answers of the front door, as series."""

import pytest

from meshllm.core.health import FIRST_TOKEN_STEPS_S
from tests.api.node import a_node
from tests.api.scraped import scraped, value

CHAT = "/v1/chat/completions"


@pytest.mark.rows("MET-8", "MET-6")
async def test_answers_are_counted_and_timed_by_path_and_model() -> None:
    """The family that everybody knows, under our prefix; streams by model alone."""
    async with a_node() as (node, client):
        node.numbers.answered("POST", CHAT, "tiny", 200, took_s=0.2)
        node.numbers.answered("POST", CHAT, "tiny", 429, took_s=0.001)
        node.numbers.streamed("tiny", 1.0, events=11)
        node.first_tokens["tiny"] = {5: 2, 7: 1}

        found = await scraped(client)

    labels = {"path": CHAT, "model": "tiny"}
    assert value(found, "meshllm_http_requests_total", method="POST", status="200", **labels) == 1
    assert value(found, "meshllm_http_requests_total", method="POST", status="429", **labels) == 1
    assert value(found, "meshllm_http_request_duration_seconds_count", **labels) == 2
    assert value(found, "meshllm_http_request_duration_seconds_bucket", le="0.1", **labels) == 1
    step = f"{FIRST_TOKEN_STEPS_S[5]:g}"
    assert value(found, "meshllm_time_to_first_token_seconds_bucket", model="tiny", le=step) == 2
    assert value(found, "meshllm_time_to_first_token_seconds_count", model="tiny") == 3
    assert value(found, "meshllm_inter_token_seconds_sum", model="tiny") == pytest.approx(0.1)
