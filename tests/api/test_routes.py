"""The table of routes: nothing is registered that is not in it, and every entry says what goes in and comes out."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import pytest

from meshllm.api.app import make_app
from meshllm.api.bodies import Body
from meshllm.api.console_files import ConsoleFiles
from meshllm.api.deps import MeshRefusalError
from meshllm.api.routes import ROUTES, Route, Text
from tests.api.described import DOCUMENT, operation
from tests.api.node import FakeNode, a_node
from tests.core.builders import a_spec, a_story

READ_BY_THE_CORE = {"change_routing", "change_quotas", "change_cache"}
"""Handlers that hand the whole body to the core, which refuses keys that it doesn't know."""
BODIES = [route for route in ROUTES if route.takes is not None and route.handler not in READ_BY_THE_CORE]
NOBODY = "127.0.0.1:1"
"""Where no front door listens."""
NAMES = {"id", "model_id", "model", "name", "max_new_tokens"}
"""Where the first of several names is missing, the next one is read."""
EXAMPLES: dict[str, object] = {"scope": "node", "rights": ["infer"], "ttl_s": 600, "prompts": ["a"], "version": "1.0.0"}
ANYTHING: dict[str, object] = {
    "string": "tiny", "boolean": True, "integer": 1, "number": 1.0, "array": ["tiny"], "object": {},
}  # fmt: skip


async def test_every_registered_route_is_in_the_reference() -> None:
    """Whatever answers is written down: the app has nothing but the table and the console's files."""
    console = ConsoleFiles()

    app = make_app(FakeNode(a_story(a_spec())), console)  # type: ignore[arg-type]
    files = {f"/{name}" for name in console._files}
    found = {
        (route.method, re.sub(r"{(\w+):[^}]*}", r"{\1}", route.resource.canonical))
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }

    missing = [(method, path) for method, path in found if path not in files and not _is_described(method, path)]
    assert missing == []
    assert len(found) >= len(ROUTES)


def _is_described(method: str, path: str) -> bool:
    return method.lower() in DOCUMENT["paths"].get(path, {})


def test_a_route_cannot_be_made_without_its_types() -> None:
    """What goes in and what comes out have no default."""
    required = {field.name for field in dataclasses.fields(Route) if field.default is dataclasses.MISSING}

    assert required == {"method", "path", "summary", "handler", "takes", "answers"}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_says_what_it_answers_in_the_reference(route: Route) -> None:
    """Status, type, body, topic."""
    said = operation(route.method, route.template)
    content = said["responses"][str(route.status)]["content"]
    media = route.answers.media_type if isinstance(route.answers, Text) else "application/json"

    assert list(content) == [media]
    assert content[media]["schema"]
    assert ("requestBody" in said) == (route.takes is not None)
    assert said["tags"] == [route.topic]
    assert len(said["summary"]) > 10


@pytest.mark.parametrize("route", BODIES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_handler_reads_the_fields_that_the_reference_names(
    route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, and no other: a field that is read and not written down is a secret, the other way a lie."""
    read: set[str] = set()
    sent = _example(operation(route.method, route.template))
    monkeypatch.setattr(Body, "__init__", lambda self, values: setattr(self, "_values", Noting(values, read)))
    async with a_node(a_spec("tiny"), is_ready=False) as (node, client):
        node.refusal = MeshRefusalError("not_permitted", "no")
        node.address = NOBODY
        for body in (sent, {key: value for key, value in sent.items() if key not in NAMES}):
            request = node.begin(client.post(route.template.replace("{node}", "a" * 52), json=body))
            await node.asked_or_done(request)

    assert read == sent.keys()


class Noting(dict[str, object]):
    """A body that notes what is asked of it."""

    def __init__(self, values: Mapping[str, object], read: set[str]) -> None:
        """Note in `read`."""
        super().__init__(values)
        self._read = read

    def get(self, key: str, default: Any = None) -> Any:
        """Note the key."""
        self._read.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> object:
        self._read.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._read.add(str(key))
        return super().__contains__(key)


def _example(said: Any) -> dict[str, object]:
    schema = said["requestBody"]["content"]["application/json"]["schema"]
    properties = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
    return {name: EXAMPLES.get(name, _value(one)) for name, one in properties.items()}


def _value(schema: Any) -> object:
    kinds = schema.get("type") or schema["anyOf"][0]["type"]
    return ANYTHING[kinds if isinstance(kinds, str) else kinds[0]]
