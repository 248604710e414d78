"""The options that several commands share: names, types, helps.

Owns the node's options as one table, from which the root command and `serve` are made. Doesn't check values
beyond their types: `config` does.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65_535, metavar="PORT", help="Port of the API and the console. [9337]"),
]
StateDir = Annotated[str | None, typer.Option("--state-dir", metavar="FOLDER", help="Folder of the node's state.")]
ConfigFile = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Configuration file: TOML, or by its name JSON or YAML.")
]
ModelsDirs = Annotated[
    list[str] | None,
    typer.Option("--models-dir", metavar="FOLDER", help="Another folder of model files; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")]
Scope = Annotated[
    str | None,
    typer.Option("--scope", metavar="SCOPE", help="mesh, node, or a node's name or id. [mesh, where this node may]"),
]
Node = Annotated[
    str | None,
    typer.Option("--node", metavar="NODE", help="Only at this node: name, id, or its beginning."),
]


CONSOLE_PORT = 3131


def _text(name: str, metavar: str, text: str) -> object:
    return Annotated[str | None, typer.Option(name, metavar=metavar, help=text)]


def _text_of(*names: str, metavar: str, text: str) -> object:
    return Annotated[str | None, typer.Option(*names, metavar=metavar, help=text)]


def _number(name: str, metavar: str, text: str) -> object:
    return Annotated[int | None, typer.Option(name, metavar=metavar, help=text)]


def _several(*names: str, metavar: str, text: str) -> object:
    return Annotated[list[str] | None, typer.Option(*names, metavar=metavar, help=text)]


def _switch(*names: str, text: str) -> object:
    return Annotated[bool | None, typer.Option(*names, help=text)]


MODELS = _several("--model", "-m", metavar="MODEL", text="Model to serve; may be repeated: in order, while they fit.")
NODE_OPTIONS: dict[str, object] = {
    "models": MODELS,
    "models_dirs": ModelsDirs,
    "default_model": _text_of(
        "--default-model",
        "--default-model-id",
        metavar="MODEL",
        text="What `default` and requests without a model stand for. [the first]",
    ),
    "quant": _text("--quant", "LEVEL", "Of which quantisation --model is: bits, as 4, or a name, as Q4_K_M."),
    "isq": Annotated[str | None, typer.Option("--isq", metavar="LEVEL", hidden=True)],
    "serve_all": _switch("--serve-all", text="Serve everything on disk, as far as it fits; what was used last stays."),
    "assign": _text("--assign", "WHAT", "Models that nobody serves: auto, disk for those that lie here, off. [auto]"),
    "join": _several(
        "--join",
        metavar="TOKEN",
        text="Join a mesh by its token; may be repeated. Visible in `ps`: better --join-file, MESH_LLM_JOIN, or '-' "
        "for standard input. 'lan' shows the meshes in reach.",
    ),
    "join_file": _text("--join-file", "FILE", "File with the token to join by."),
    "require_join": _switch("--require-join", text="End with exit code 6 when no member of the mesh can be reached."),
    "client": _switch("--client", text="Use the mesh, serve nothing: no engine, a fresh identity with each start."),
    "mesh_name": _text("--mesh-name", "NAME", "Name of a mesh that this node founds; seen on the local network."),
    "peers": _several("--peer", metavar="HOST:PORT#NODE", text="Another member that may be dialled; may be repeated."),
    "advertise": _several(
        "--advertise", metavar="IP[:PORT]", text="Where others reach this node, too; may be repeated."
    ),
    "bind_ip": _text("--bind-ip", "IP", "Address for other nodes to connect to. [all]"),
    "bind_port": _number(
        "--bind-port", "PORT", "UDP port for other nodes, and TCP for model files. [the last one, else any]"
    ),
    "no_mdns": _switch("--no-mdns", text="Neither announce this node on the local network nor look for others."),
    "split": _switch("--split", text="Share every --model with other nodes, though it may fit here; alone it waits."),
    "no_rpc": _switch("--no-rpc", text="Never lend memory and compute to models that are split between nodes."),
    "no_remote_control": _switch("--no-remote-control", text="Never let other nodes load and unload models here."),
    "host": _text("--host", "ADDRESS", "Address to listen on. [127.0.0.1]"),
    "port": Port,
    "console": _number(
        "--console",
        "[PORT]",
        "Also have the console on a port of its own, 3131 unless one is named; it is on --port, too.",
    ),
    "name": _text("--name", "NAME", "Name of this node. [the machine's]"),
    "max_vram": _text("--max-vram", "LIMIT", "Memory that models may take: 80% or 12GB. [90%]"),
    "ctx_size": _number("--ctx-size", "TOKENS", "Context of each request."),
    "parallel": _number("--parallel", "N", "Requests that a model computes at the same time."),
    "threads": _number("--threads", "N", "Processor threads of each engine."),
    "engine": _text("--engine", "ENGINE", "auto, xllamacpp, or the path of a llama-server. [auto]"),
    "api_key": _text("--api-key", "KEY", "Key that clients have to show. Visible in `ps`: better MESH_LLM_API_KEY."),
    "admin_key": _text(
        "--admin-key",
        "KEY",
        "Key of those who change the node. Visible in `ps`: better MESH_LLM_ADMIN_KEY. [the API key]",
    ),
    "insecure_no_auth": _switch("--insecure-no-auth", text="Let everybody in who can reach --host."),
    "insecure_local_admin": _switch("--insecure-local-admin", text="Let everybody on this machine change the node."),
    "allowed_hosts": _several("--allowed-host", metavar="NAME", text="Host name to answer to; may be repeated."),
    "allowed_origins": _several(
        "--allowed-origin", metavar="ORIGIN", text="Web page that may use the API; may be repeated."
    ),
    "unknown_model": _text(
        "--unknown-model", "WHAT", "For a model nobody has: reject or fallback. [what routing says: reject]"
    ),
    "offline": _switch("--offline", text="Never ask a model hub."),
    "state_dir": StateDir,
    "config": ConfigFile,
    "profile": _switch("--profile", text="Measure what takes how long; /metrics?detailed=true shows it."),
    "trace_endpoint": _text("--trace-endpoint", "URL", "Send traces to this OTLP/HTTP collector. [nowhere]"),
    "trace_share": _text("--trace-share", "SHARE", "Of the requests to trace whose clients do not say, 0 to 1. [1]"),
    "log_level": _text("--log-level", "LEVEL", "debug, info, warn, error or fatal."),
    "log_format": _text("--log-format", "FORMAT", "pretty or json. [pretty]"),
    "log_file": _text("--log-file", "FILE", "Write the log here too."),
    "verbose": _switch("--verbose", "-v", text="Same as --log-level debug."),
    "quiet": _switch("--quiet", "-q", text="Same as --log-level warning."),
}
"""Option of a node by setting. None of them has a default here: `config` knows it."""


def with_console_port(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which `--console` has its port also where none is named.

    Options with a value that may be absent are beyond the parser: it would take the next word.
    """
    found = []
    for index, argument in enumerate(arguments):
        is_bare = argument == "--console" and not "".join(arguments[index + 1 : index + 2]).lstrip("+-").isdigit()
        found.append(f"--console={CONSOLE_PORT}" if is_bare else argument)
    return found


def with_node_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a function `(ctx, **flags)` the node's options, for typer to see; its own parameters stay."""
    own = [each for each in inspect.signature(function).parameters.values() if each.kind is not each.VAR_KEYWORD]
    named = {each.name for each in own}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=None)
        for name, annotation in NODE_OPTIONS.items()
        if name not in named
    ]
    function.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    return function
