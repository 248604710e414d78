"""The processes of a comparison: two upstreams, and the proxies that stand in front of them.

Owns configuration files, ports, cores and the end of every process. Decides nothing about load. What
every proxy has in front of itself is the same: nginx for short answers, a small streaming server else.
"""

import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ANSWER = (
    '{"choices":[{"finish_reason":"length","index":0,"message":{"role":"assistant","content":"Hello! How"}}],'
    '"created":1795261168,"model":"bench","system_fingerprint":"b0-unknown","object":"chat.completion",'
    '"usage":{"completion_tokens":3,"prompt_tokens":31,"total_tokens":34,"prompt_tokens_details":{"cached_tokens":30}},'
    '"id":"chatcmpl-wsRGGBx2TpsGtDVdK5hAnAprmD8xtbL7","timings":{"cache_n":30,"prompt_n":1,"prompt_ms":20.883,'
    '"prompt_per_token_ms":20.883,"prompt_per_second":47.88584,"predicted_n":3,"predicted_ms":42.381,'
    '"predicted_per_token_ms":21.1905,"predicted_per_second":47.19095}}'
)
_NGINX = """
user root; daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.err;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600; client_body_buffer_size 64k;
  {content}
}}
"""
_UPSTREAM = """
  server {{ listen unix:{folder}/whole.sock; listen 127.0.0.1:{port};
    location / {{ default_type application/json; return 200 '{answer}'; }} }}
"""
_PROXY = """
  upstream up {{ server unix:{folder}/{kind}.sock; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} backlog=1024; location / {{
    proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; {buffering} }} }}
"""
_LITELLM = """
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "http://127.0.0.1:{port}/v1", api_key: any}}
litellm_settings: {{telemetry: false}}
general_settings: {{master_key: {key}}}
"""
START_S = 90.0


@dataclass(slots=True)
class Contender:
    """Something that answers chat requests on a port."""

    name: str
    port: int
    process: subprocess.Popen[bytes] | None = None
    worker: Callable[[], int] | None = None
    """Finds the process that does the work, if it is not the one that was started."""

    @property
    def pid(self) -> int | None:
        """Return the process whose time counts."""
        if self.worker is not None:
            return self.worker()
        return self.process.pid if self.process is not None else None


class Stage:
    """Starts contenders, each kind on its core, and ends them all."""

    def __init__(self, folder: Path, nginx: str, proxy_core: int, other_core: int) -> None:
        """Keep files in `folder`."""
        self._folder = folder
        self._nginx = nginx
        self._proxy_core = proxy_core
        self._other_core = other_core
        self._processes: list[subprocess.Popen[bytes]] = []
        self.upstream_ports = {"whole": free_port(), "stream": free_port()}

    def start_upstreams(self) -> None:
        """Start both upstreams on the core of the load."""
        port = self.upstream_ports["whole"]
        content = _UPSTREAM.format(folder=self._folder, port=port, answer=ANSWER)
        self._start([self._nginx, "-c", self._configured("upstream", content)], self._other_core)
        program = [sys.executable, str(HERE / "stream_upstream.py"), f"{self._folder}/stream.sock"]
        self._start([*program, str(self.upstream_ports["stream"])], self._other_core)
        for upstream in self.upstream_ports.values():
            wait_for(upstream)

    def direct(self, kind: str) -> Contender:
        """Return the upstream itself."""
        return Contender("direct", self.upstream_ports[kind])

    def nginx(self, kind: str) -> Contender:
        """Start nginx as a proxy: one worker, keep-alive to the upstream, no log."""
        port = free_port()
        buffering = "proxy_buffering off;" if kind == "stream" else ""
        content = _PROXY.format(folder=self._folder, port=port, kind=kind, buffering=buffering)
        process = self._start([self._nginx, "-c", self._configured(f"proxy-{kind}", content)], self._proxy_core)
        wait_for(port)
        return Contender("nginx", port, process, lambda: _only_child(process.pid))

    def ours(self, kind: str, checkout: Path = ROOT, python: Path | None = None) -> Contender:
        """Start our front door, this one or that of another checkout, which goes by the name of its folder.

        `python` is another interpreter of the same version, for which the libraries of this one are good too.
        """
        port = free_port()
        door = checkout / "scripts" / "bench" / "door.py"
        program = [str(python or sys.executable), str(door), f"{self._folder}/{kind}.sock", str(port)]
        process = self._start(program, self._proxy_core, checkout)
        wait_for(port)
        name = "ours" if checkout == ROOT else checkout.name
        return Contender(name if python is None else f"{name} on {python}", port, process)

    def litellm(self, kind: str, program: Path, key: str) -> Contender:
        """Start LiteLLM's proxy with one worker."""
        port = free_port()
        config = self._folder / f"litellm-{kind}.yaml"
        config.write_text(_LITELLM.format(port=self.upstream_ports[kind], key=key), encoding="utf-8")
        arguments = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        process = self._start(arguments, self._proxy_core)
        wait_for(port)
        return Contender("litellm", port, process)

    def close(self) -> None:
        """End every process."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _configured(self, name: str, content: str) -> str:
        path = self._folder / f"{name}.conf"
        path.write_text(_NGINX.format(folder=self._folder, name=name, content=content), encoding="utf-8")
        return str(path)

    def _start(self, arguments: list[str], core: int, checkout: Path = ROOT) -> subprocess.Popen[bytes]:
        log = (self._folder / "output.log").open("ab")
        command = ["taskset", "-c", str(core), *arguments]
        # Without the map LiteLLM waits for the network.
        environ = os.environ | {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "PYTHONPATH": f"{checkout}:{sysconfig.get_path('purelib')}",
        }
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environ)
        log.close()
        self._processes.append(process)
        return process


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    """Wait until somebody listens on a port. Raises TimeoutError."""
    ends_s = time.monotonic() + START_S
    while time.monotonic() < ends_s:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)  # noqa: TID251 - another program starts; there is nothing to wait on
        else:
            return
    raise TimeoutError(f"nothing listens on port {port} after {START_S:g} s")


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return int(children[0])
