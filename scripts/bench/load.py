"""Load from `wrk`, and what it costs the process under test.

Owns the call of `wrk`, the reading of its report, and the processor time of a contender from /proc.
Decides nothing about contenders.
"""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

KEY = "sk-bench-only-0123456789abcdef0123456789abcdef"
"""LiteLLM refuses to start without one; nobody else looks at it."""
_SCALE_US = {"us": 1.0, "ms": 1e3, "s": 1e6}
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: requests per second, latencies in microseconds, processor time for each request."""

    per_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    cpu_us: float
    errors: int


def middle(samples: list[Sample]) -> Sample:
    """Return the median of every number over several runs."""
    return Sample(
        per_s=median(sample.per_s for sample in samples), p50_us=median(sample.p50_us for sample in samples),
        p90_us=median(sample.p90_us for sample in samples), p99_us=median(sample.p99_us for sample in samples),
        cpu_us=median(sample.cpu_us for sample in samples), errors=sum(sample.errors for sample in samples),
    )  # fmt: skip


class Wrk:
    """Runs `wrk` on one core with one kind of request."""

    def __init__(self, program: str, core: int, body: str, *, varied: bool) -> None:
        """Send `body`; `varied` gives every request another head, so that no head is ever seen twice."""
        self._program = program
        self._core = core
        self._script = Path(tempfile.mkstemp(suffix=".lua")[1])
        headers = f'wrk.headers["Content-Type"] = "application/json"\nwrk.headers["Authorization"] = "Bearer {KEY}"\n'
        lines = f'wrk.method = "POST"\nwrk.body = [[{body}]]\n{headers}'
        if varied:
            lines += (
                "local n = 0\nfunction request()\n  n = n + 1\n"
                '  wrk.headers["X-Request-ID"] = "varied-" .. n\n  return wrk.format()\nend\n'
            )
        self._script.write_text(lines, encoding="utf-8")

    def run(self, url: str, connections: int, seconds: int, pid: int | None) -> Sample:
        """Load a URL; `pid` is the process whose time is counted."""
        before_s = _cpu_s(pid)
        report = subprocess.run(
            ["taskset", "-c", str(self._core), self._program, "-t1", f"-c{connections}", f"-d{seconds}s",
             "--timeout", "30s", "--latency", "-s", str(self._script), url],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        spent_s = _cpu_s(pid) - before_s
        requests = int(_number(r"(\d+) requests in", report))
        errors = int(_number(r"Non-2xx or 3xx responses: (\d+)", report))
        errors += sum(int(count) for count in re.findall(r"(?:connect|read|write|timeout) (\d+)", report))
        return Sample(
            per_s=_number(r"Requests/sec:\s+([\d.]+)", report), errors=errors,
            p50_us=_latency("50%", report), p90_us=_latency("90%", report), p99_us=_latency("99%", report),
            cpu_us=spent_s * 1e6 / max(requests, 1),
        )  # fmt: skip

    def close(self) -> None:
        """Remove the script."""
        self._script.unlink()


def _number(pattern: str, report: str) -> float:
    found = re.search(pattern, report)
    return float(found[1]) if found else 0.0


def _latency(share: str, report: str) -> float:
    found = re.search(rf"{share}\s+([\d.]+)(us|ms|s)", report)
    return float(found[1]) * _SCALE_US[found[2]] if found else 0.0


def _cpu_s(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
