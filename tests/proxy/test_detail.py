"""One model in detail: wherever it is, by any of its names."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from meshllm.core.announcement import Announcement, DiskModel, NamedModel, Role
from meshllm.core.catalog import CatalogFile, CatalogModel
from meshllm.core.health import HealthChecks, Integrity
from meshllm.core.ids import ModelId, NodeId
from meshllm.core.names import GivenName
from meshllm.core.registration import Registration
from meshllm.core.routing.routes import Refusal, RefusalCode, Wait
from meshllm.core.standing import MemberState
from meshllm.core.view import ColdModel, Member, MeshView
from meshllm.proxy.detail import model_detail
from meshllm.proxy.listing_elsewhere import Document
from tests.core.builders import a_spec
from tests.proxy.builders import a_get, a_house, a_model, a_view

CATALOG = (
    CatalogModel(
        name="small", repository="maker/Small-GGUF", parameters=1_700_000_000, context_tokens=8192,
        files=(CatalogFile(quantization="Q4", filename="Small-Q4.gguf", size_bytes=5),),
    ),
)  # fmt: skip
THERE = NodeId("b" * 52)


def shown(view: MeshView, asked: str) -> Document:
    """Return a model's entry."""
    found = model_detail(view, asked, CATALOG)
    assert isinstance(found, dict)
    return found


def with_member(view: MeshView, *, file: str, names: tuple[NamedModel, ...] = (), uses: int = 0) -> MeshView:
    """Return a view with another node that has a file on its disk."""
    stored = DiskModel(model=ModelId(file), digest=f"sha256:{file}", size_bytes=9)
    said = Announcement(
        node=THERE, name="there", incarnation=1, version=1, role=Role.WORKER, resources=None, names=names,
        models_on_disk=(stored,), uses=((file, uses),),
    )  # fmt: skip
    member = Member(announcement=said, state=MemberState.ALIVE, since_s=0.0)
    return replace(view, members=MappingProxyType({THERE: member}))


@pytest.mark.rows("LST-8")
def test_one_model_is_found_by_any_of_its_names_and_nothing_by_none() -> None:
    """The same resolution as for requests."""
    view = a_view(
        a_model("tiny"), a_model("Two-Q4"), a_model("Two-Q8", spec=a_spec("Two-Q8")), aliases={"nick": "tiny"}
    )

    assert {shown(view, name)["id"] for name in ("tiny", "TINY", "nick")} == {"tiny"}
    assert shown(view, "default")["id"] == "default"
    assert shown(view, "Small-Q4")["phase"] == "not_downloaded"
    clash, nothing = model_detail(view, "two"), model_detail(view, "tini")
    assert isinstance(clash, Refusal)
    assert isinstance(nothing, Refusal)
    assert (clash.code, nothing.code) == (RefusalCode.AMBIGUOUS_MODEL, RefusalCode.MODEL_NOT_FOUND)
    early = model_detail(replace(a_view(), has_inventory=False), "tiny")
    assert isinstance(early, Wait)


@pytest.mark.rows("LST-8", "REG-11")
def test_a_model_has_its_nodes_digest_health_and_uses_in_the_whole_mesh() -> None:
    """This node's file and engine, and another node's file."""
    checks = HealthChecks(file_integrity=Integrity.OK, error_rate=0.5)
    view = with_member(a_view(a_model("tiny", requests=3, checks=checks)), file="tiny", uses=4)

    detail = shown(view, "tiny")

    assert [(node["name"], node["status"], node["health_status"]) for node in detail["nodes"]] == [  # type: ignore[attr-defined]
        ("n1", "loaded", "degraded"), ("there", "unloaded", "unknown"),
    ]  # fmt: skip
    assert {
        "health_status": "degraded",
        "use_count": 7,
        "digest": "sha256:tiny",
        "version": "1.0.0",
    }.items() <= detail.items()
    assert detail["health"]["error_rate"] == 0.5  # type: ignore[index]
    assert detail["files"] == ["tiny.gguf"]


@pytest.mark.rows("LST-8", "REG-9")
def test_a_version_is_shown_with_all_versions_of_its_name() -> None:
    """The newest first, with who has it."""
    entry = Registration(
        name="foo", version="1.1.0", model=ModelId("tiny"), digest="sha256:tiny", path="/models/tiny.gguf",
        size_bytes=1, registered_unix_s=1_700_000_000.0, aliases=("stable",),
    )  # fmt: skip
    view = a_view(a_model("tiny"))
    named = NamedModel(name="foo", model=ModelId("tiny"), version="1.1.0", registered_unix_s=1_700_000_000.0)
    disk = (DiskModel(model=ModelId("tiny"), digest="sha256:tiny", size_bytes=1),)
    view = replace(
        view, registered=(entry,), me=replace(view.me, names=(named,), models_on_disk=disk),
        names=view.names.including((), {}, (GivenName("foo", "1.1.0", ModelId("tiny")),)),
    )  # fmt: skip

    for name in ("foo", "foo@1.1.0", "tiny"):
        detail = shown(view, name)
        assert (detail["id"], detail["version"]) == ("tiny", "1.1.0")
        version = detail["versions"][0]  # type: ignore[index]
        assert (version["version"], version["registered_at"], version["nodes"]) == (
            "1.1.0", "2023-11-14T22:13:20Z", [view.me.node],
        )  # fmt: skip


@pytest.mark.rows("LST-8")
def test_a_model_on_anothers_disk_alone_has_details_too() -> None:
    """Nobody serves it, and it can be asked for."""
    view = with_member(a_view(), file="far")
    cold = ColdModel(model=ModelId("far"), nodes=(THERE,), digest="sha256:far", size_bytes=9)
    view = replace(
        view, cold=MappingProxyType({ModelId("far"): cold}), names=view.names.including([ModelId("far")], {})
    )

    detail = shown(view, "far")

    assert {"id": "far", "owned_by": "mesh", "status": "unloaded", "size_bytes": 9, "digest": "sha256:far"}.items() <= (
        detail.items()
    )
    assert [node["node_id"] for node in detail["nodes"]] == [THERE]  # type: ignore[attr-defined]


@pytest.mark.rows("LST-8")
async def test_suffixes_and_verbs_go_to_management_and_everything_else_is_a_model() -> None:
    """Greedy, with escaping; 404 in the envelope."""
    async with a_house(models=lambda socket: (a_model("a/versions", socket=socket),)) as house:
        escaped = await house.ask(a_get("/v1/models/a%2Fversions"))
        missing = await house.ask(a_get("/v1/models/b/c"))
        for path in ("/v1/models/a/versions", "/v1/models/a/health", "/v1/models/x/y/health"):
            await house.ask(a_get(path))

        assert escaped.json["id"] == "a/versions"
        assert (missing.status, missing.json["error"]["code"]) == (404, "model_not_found")
        assert [request.line.split()[1] for request in house.management.requests] == [
            "/v1/models/a/versions", "/v1/models/a/health", "/v1/models/x/y/health",
        ]  # fmt: skip
