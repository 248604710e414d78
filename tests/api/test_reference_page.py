"""The page shows every route and every shape, and text from the document is text."""

import base64
import hashlib
import re

from meshllm.api.reference_page import STYLE_HASH, page
from tests.api.described import DOCUMENT


def test_every_route_and_every_shape_stands_on_the_page() -> None:
    """And each link within it leads to one."""
    text = page(DOCUMENT)

    for path in DOCUMENT["paths"]:
        assert f"<code>{path}</code>" in text
    anchors = set(re.findall(r'<section id="(\w+)">', text))
    assert anchors == set(DOCUMENT["components"]["schemas"])
    assert set(re.findall(r'href="#(\w+)"', text)) <= anchors


def test_the_style_is_the_one_that_the_policy_allows() -> None:
    """A browser would leave out any other."""
    style = re.search(r"<style>(.*?)</style>", page(DOCUMENT), re.DOTALL)

    assert style is not None
    assert f"sha256-{base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()}" == STYLE_HASH


def test_text_is_no_markup() -> None:
    """Whatever a description says."""
    schema = {"type": "object", "description": "<b>`x`</b>", "properties": {"a": {"type": "integer", "minimum": 1}}}
    document = {
        "info": {"title": "<t>", "version": "1", "description": "d"}, "paths": {},
        "components": {"schemas": {"S": schema, "L": {"type": "array", "items": {}, "description": "l"}}},
    }  # fmt: skip

    text = page(document)

    assert "&lt;b&gt;<code>x</code>&lt;/b&gt;" in text
    assert "<title>&lt;t&gt;" in text
    assert "from 1" in text
    assert "list of anything" in text
