"""What a person sees while a node starts: its successive views as lines, and at the end where to go.

Owns the words and when each is said: once for every change. Doesn't start anything; `serve` feeds it.
"""

from collections.abc import Callable
from typing import Protocol

from meshllm.cli.mesh_news import MeshNews
from meshllm.cli.render import download_detail
from meshllm.cli.summary import HOW_TO_INVITE, addresses_of, invitation, join_lines, start_summary
from meshllm.core.engines import EngineBuild, EngineState
from meshllm.core.ids import ModelId
from meshllm.core.resources import Resources, format_bytes
from meshllm.core.rights import Rights
from meshllm.core.view import LoadProgress, LocalModel, MeshView

HOW_TO_BEGIN = (
    "no model is on this disk yet. The node runs and waits for one; in another terminal:",
    "  mesh-llm load smollm2-135m       fetches a small one (98 MB), ready in a minute on any machine",
    "  mesh-llm load USER/REPO:Q4_K_M   fetches one from a Hugging Face repository; or put GGUF files into {folder}",
)


class Bars(Protocol):
    """What is needed to show progress."""

    def show(self, key: str, label: str, share: float, detail: str = "") -> None:
        """Show how far something is."""

    def done(self, key: str) -> None:
        """Forget something that is finished."""


class Startup:
    """Turns views into lines."""

    def __init__(
        self, say: Callable[[str], None], bars: Bars, folder: str, *, is_empty: bool, needs_key: bool = False,
        is_client: bool = False, shows_token: bool = True, console: str = "",
    ) -> None:  # fmt: skip
        """Speak by `say`. `folder` takes models.

        `is_empty`: nothing was asked for and no model is on disk; `needs_key`: users have to show an API key;
        `is_client`: the node serves nothing itself; `shows_token`: only a person reads this, and no file keeps it.
        `console`: where the console is, besides the API's address.
        """
        self._say = say
        self._bars = bars
        self._folder = folder
        self._is_empty = is_empty
        self._needs_key = needs_key
        self._address = ""
        self._said: dict[str, str] = {}
        """What was last said about each subject."""
        self._is_settled = False
        self._is_summed_up = False
        self._is_client = is_client
        self._shows_token = shows_token
        self._console = console
        self._join: tuple[str, ...] = ()
        self._members = MeshNews(say)

    def started(self, address: str) -> None:
        """The API listens."""
        self._address = address
        self._once("listening", f"listening on http://{address}")
        if self._console:
            self._once("console", f"console on http://{self._console}")
        if self._is_client:
            self._is_settled = True
            self._summary(model=None)
        elif self._is_empty:
            for line in HOW_TO_BEGIN:
                self._say(line.format(folder=self._folder))
            self._summary(model=None)

    def joinable(self, rights: Rights, make_token: Callable[[], str]) -> None:
        """Others can join with some rights, by a token that is made where it is shown."""
        self._invite(invitation(make_token(), rights) if self._shows_token else (HOW_TO_INVITE,))

    def _invite(self, lines: tuple[str, ...]) -> None:
        """Tell how others join, where the start ends or behind it."""
        self._join = lines
        if self._is_summed_up:
            for line in join_lines(lines):
                self._say(line)

    def report(self, view: MeshView) -> None:
        """Say what this view has that was not said."""
        if not self._is_client:
            self._machine(view.resources)
            self._engine(view)
        if not self._join and Rights.ADMIN in view.me.rights and not self._is_client:
            self._invite((HOW_TO_INVITE,))
        self._members.tell(view)
        for name, message in view.unresolved.items():
            self._once(f"name {name}", f"{name}: {message}")
        for model in view.local.values():
            self._model(model)
        if view.leaving:
            self._once("leaving", "stopping: requests in flight may finish; Ctrl-C again cuts them off")
        else:
            self._settle(view)

    def _once(self, subject: str, line: str) -> None:
        if self._said.get(subject) != line:
            self._said[subject] = line
            self._say(line)

    def _machine(self, resources: Resources | None) -> None:
        if resources is None or "machine" in self._said:
            return  # free memory changes all the time; `status` shows it
        memory = f"{format_bytes(resources.memory_total_bytes)} memory, {resources.cores} cores"
        gpus = ", ".join(f"{gpu.name} ({format_bytes(gpu.total_bytes)})" for gpu in resources.gpus)
        reason = f" ({resources.gpu_problem})" if resources.gpu_problem else ""
        self._once("machine", f"machine:  {memory}; GPU: {gpus or f'none{reason}'}")

    def _engine(self, view: MeshView) -> None:
        if view.engine_failure is not None:
            self._once("engine", f"engine:   none can run here: {view.engine_failure.message}")
        elif view.engine_build is not None:
            self._once("engine", f"engine:   {_described(view.engine_build)}")

    def _model(self, model: LocalModel) -> None:
        if model.progress is not None and model.state is not EngineState.READY:
            self._progress(model.id, model.progress)
            return
        self._bars.done(model.id)
        if model.state is EngineState.READY:
            plan = f"{model.context_tokens} tokens of context, {model.slots} at a time"
            self._once(model.id, f"{model.id}: ready in {model.load_s:.1f} s ({plan})")
        elif model.state is EngineState.FAILED and model.failure is not None:
            self._once(model.id, f"{model.id}: failed: {model.failure.message}")
        elif model.state is EngineState.BACKING_OFF and model.failure is not None:
            self._once(model.id, f"{model.id}: ended, starting it again: {model.failure.message}")
        elif model.wanted and model.waiting:
            self._once(model.id, f"{model.id}: waits: {model.waiting}")
        elif ": ready" in self._said.get(model.id, "") and model.state is EngineState.STOPPED:
            self._once(model.id, f"{model.id}: unloaded")

    def _progress(self, model: ModelId, progress: LoadProgress) -> None:
        is_download = progress.stage == "downloading"
        detail = download_detail(progress.done_bytes, progress.total_bytes) if is_download else ""
        self._bars.show(model, f"{model}: {progress.stage}", progress.share, detail)
        self._said[model] = progress.stage

    def _settle(self, view: MeshView) -> None:
        """Say where to go when the first model answers, or why none will; once."""
        if self._is_settled or not self._address or view.engine_build is None:
            return
        ready = [model.id for model in view.local.values() if model.is_ready]
        if ready:
            self._is_settled = True
            self._summary(view.default_model if view.default_model in ready else ready[0])
        elif view.resources is not None and view.local and not any(_is_moving(model) for model in view.local.values()):
            self._once("idle", f"{len(view.local)} models are on this disk, none is loaded: `mesh-llm load MODEL` does")

    def _summary(self, model: ModelId | None) -> None:
        for line in start_summary(addresses_of(self._address), model, needs_key=self._needs_key, join=self._join):
            self._say(line)
        self._is_summed_up = True


def _described(build: EngineBuild) -> str:
    return f"{build.kind} {build.version} on the {'GPU' if build.uses_gpu else 'CPU'}"


def _is_moving(model: LocalModel) -> bool:
    """Tell whether a model is on its way, or said already why it is not."""
    return (
        model.wanted
        or model.failure is not None
        or model.held
        or model.dropped
        or model.state is not EngineState.STOPPED
    )
