"""From the name in a management request to a model of the view.

Owns the meaning of `default` there, and that no order is given by it. Doesn't change anything.
"""

from aiohttp import web

from meshllm.api.answers import ApiError
from meshllm.core.ids import ModelId
from meshllm.core.names import AUTO_NAME, RESERVED_NAMES, Unknown
from meshllm.core.routing.meaning import meaning
from meshllm.core.routing.routes import Refusal, RefusalCode, RouteRequest, Wait
from meshllm.core.view import LocalModel, MeshView

RETRY_AFTER = {"Retry-After": "5"}
"""When to come back."""


def find_model(view: MeshView, asked: str) -> LocalModel | Unknown:
    """Return the model that a name means here, or what is near. Raises ApiError 409 when it could mean several."""
    found = find_id(view, asked)
    return found if isinstance(found, Unknown) else view.local.get(found) or Unknown(asked, ())


def find_id(view: MeshView, asked: str) -> ModelId | Unknown:
    """Return the model of the whole mesh that a name means, or what is near. Raises ApiError 409."""
    try:
        return require_anywhere(view, asked)
    except ApiError as error:
        if error.status != web.HTTPNotFound.status_code:
            raise
    near = view.names.resolve(asked)
    return near if isinstance(near, Unknown) else Unknown(asked, ())


def is_early(view: MeshView, asked: str) -> bool:
    """Tell whether it is not known yet what a name means: then an order by it goes to the core, which waits."""
    return isinstance(meaning(view, RouteRequest(model=asked)), Wait)


def refuse_stand_in(view: MeshView, asked: str, param: str) -> None:
    """Accept only names of models where something is changed. Raises ApiError 400 for `default` and `auto`.

    They stand for another model tomorrow, and whoever unloads or deletes one has to mean that one.
    """
    if asked.casefold() not in RESERVED_NAMES:
        return
    is_default = asked.casefold() != AUTO_NAME and view.default_model is not None
    meant = f", which is {view.default_model} at the moment" if is_default else ""
    message = f"{asked!r} is not a model's name but stands for one{meant}; say which model you mean"
    raise ApiError(400, "invalid_value", message, param=param)


def not_found_message(unknown: Unknown, who: str = "there is no") -> str:
    """Say that there is no such model, and what is near."""
    hint = f"; did you mean {' or '.join(unknown.near)}?" if unknown.near else ""
    return f"{who} model {unknown.asked!r}{hint}"


def require_model(view: MeshView, asked: str) -> LocalModel:
    """Return the model that a name means here. Raises ApiError 404 or 409."""
    found = find_model(view, asked)
    if isinstance(found, Unknown):
        raise ApiError(404, "model_not_found", not_found_message(found), param="model")
    return found


def require_anywhere(view: MeshView, asked: str) -> ModelId:
    """Return the model that a name means in the mesh, whoever has it. Raises ApiError 404 or 409.

    Raises ApiError 503 while that is not known yet: the node has just started.
    """
    found = meaning(view, RouteRequest(model=asked))
    if isinstance(found, Wait):
        raise ApiError(503, "starting", f"{found.message}; try again in a moment", param="model", headers=RETRY_AFTER)
    if isinstance(found, Refusal):
        is_clash = found.code is RefusalCode.AMBIGUOUS_MODEL
        raise ApiError(409 if is_clash else 404, str(found.code), found.message, param="model")
    return found[0]
