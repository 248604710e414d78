"""The options of a node reach the configuration under its names."""

import inspect
from dataclasses import fields

import typer

from meshllm.cli.options import NODE_OPTIONS, with_node_options
from meshllm.config import Config


def test_every_option_is_a_setting() -> None:
    """A flag that nothing reads would be a lie."""
    settings = {field.name for field in fields(Config)}

    assert set(NODE_OPTIONS) - settings == {"config", "verbose", "quiet"}


def test_function_keeps_its_own_parameters() -> None:
    """`serve` has another `-m` than the root."""

    @with_node_options
    def command(ctx: typer.Context, models: str = "own", **flags: object) -> None:
        del ctx, models, flags

    parameters = inspect.signature(command).parameters

    assert parameters["models"].annotation is str
    assert set(parameters) == {"ctx", *NODE_OPTIONS}
