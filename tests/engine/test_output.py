"""The log of an engine, and what its end means. The lines are llama.cpp's own, recorded."""

import signal

import pytest

from meshllm.core.engines import EngineFault
from meshllm.engine.output import LogRing, explain

MALFORMED = """\
0.00.008.013 E gguf_init_from_reader: invalid magic characters: 'NOPE', expected 'GGUF'
0.00.008.113 E llama_model_load: error loading model: llama_model_loader: failed to load model from /tmp/x/magic.gguf
0.00.008.149 E cmn  common_init_: failed to load model '/tmp/x/magic.gguf'
0.00.009.136 E srv          init: exiting due to model loading error"""
TRUNCATED = """\
0.00.004.640 E llama_model_load: error loading model: tensor 'blk.0.ffn_down.weight' data is not within the file \
bounds, model is corrupted or incomplete
0.00.004.641 E llama_model_load_from_file_impl: failed to load model"""
CUT_HEADER = """\
0.00.005.363 E read: string length 25 exceeds remaining file size 16 bytes
0.00.005.383 E gguf_init_from_reader: failed to read key-value pairs
0.00.005.478 E llama_model_load: error loading model: llama_model_loader: failed to load model from /tmp/x/hdr.gguf"""
EMPTY = "0.00.006.046 E gguf_init_from_reader: failed to read magic"
TOO_NEW = """\
0.00.004.640 E gguf_init_from_reader: this GGUF file is version 99 but this software only supports up to version 3
0.00.004.659 E gguf_init_from_reader: failed to read header"""
UNKNOWN = """\
0.00.004.833 E llama_model_load: error loading model: unknown model architecture: 'quux'
0.00.004.835 E llama_model_load_from_file_impl: failed to load model"""
GONE = """\
0.00.004.394 E gguf_init_from_file: failed to open GGUF file '/tmp/x/none.gguf' (No such file or directory)
0.00.004.482 E llama_model_load: error loading model: llama_model_loader: failed to load model from /tmp/x/none.gguf"""
NO_MEMORY = """\
0.00.456.076 E ggml_aligned_malloc: insufficient memory (attempted to allocate 109867.50 MB)
0.00.456.084 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 115204423680
0.00.482.761 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache"""
CUDA_NO_MEMORY = (
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9216.00 MiB on device 0: cudaMalloc failed: out of memory"
)
VAGUE = "0.00.033.316 E srv    load_model: failed to load model, '/tmp/x/half.gguf'"
TAKEN = "0.00.003.194 E srv         start: couldn't bind HTTP server socket, hostname: /tmp/x/a.sock, port: 0"


@pytest.mark.parametrize(
    ("said", "fault", "words"),
    [
        (MALFORMED, EngineFault.BAD_FILE, "invalid magic characters: 'NOPE'"),
        (TRUNCATED, EngineFault.BAD_FILE, "tensor 'blk.0.ffn_down.weight' data is not within the file bounds"),
        (CUT_HEADER, EngineFault.BAD_FILE, "failed to read key-value pairs"),
        (EMPTY, EngineFault.BAD_FILE, "failed to read magic"),
        (TOO_NEW, EngineFault.BAD_FILE, "version 99"),
        (VAGUE, EngineFault.BAD_FILE, "cannot load the model file"),
        (UNKNOWN, EngineFault.UNKNOWN_ARCHITECTURE, "does not know the model's architecture 'quux'"),
        (GONE, EngineFault.MISSING_FILE, "no such file or directory"),
        (NO_MEMORY, EngineFault.OUT_OF_MEMORY, "attempted to allocate 109867.50 MB"),
        (CUDA_NO_MEMORY, EngineFault.OUT_OF_MEMORY, "a smaller model, context or --parallel would help"),
        (TAKEN, EngineFault.EXITED, "could not listen on its socket"),
        ("meshllm: cannot import xllamacpp: no libomp", EngineFault.CANNOT_START, "no libomp"),
    ],
    ids=[
        "magic",
        "truncated",
        "cut",
        "empty",
        "version",
        "vague",
        "unknown",
        "gone",
        "memory",
        "cuda",
        "taken",
        "import",
    ],
)
def test_known_lines_become_faults(said: str, fault: EngineFault, words: str) -> None:
    """People read one sentence with a cause, not a log."""
    failure = explain(said.splitlines(), 1)

    assert failure.fault is fault
    assert words in failure.message
    assert failure.exit_code == 1


@pytest.mark.parametrize(
    ("code", "fault", "words"),
    [
        (-signal.SIGILL, EngineFault.ILLEGAL_INSTRUCTION, "take a portable build"),
        (128 + signal.SIGILL, EngineFault.ILLEGAL_INSTRUCTION, "--engine"),
        (-signal.SIGSEGV, EngineFault.CRASHED, "signal 11 (SIGSEGV)"),
        (134, EngineFault.CRASHED, "signal 6 (SIGABRT)"),
        (-signal.SIGKILL, EngineFault.CRASHED, "killed by signal SIGKILL from outside, perhaps"),
        (-signal.SIGTERM, EngineFault.CRASHED, "killed by signal SIGTERM from outside"),
        (128 + signal.SIGINT, EngineFault.CRASHED, "killed by signal SIGINT from outside"),
        (-60, EngineFault.CRASHED, "signal 60"),
        (127, EngineFault.CANNOT_START, "cannot be executed"),
        (3, EngineFault.EXITED, "status 3"),
        (0, EngineFault.EXITED, "status 0"),
    ],
)
def test_exit_statuses_become_faults(code: int, fault: EngineFault, words: str) -> None:
    """Where the engine said nothing, its status does."""
    failure = explain(["0.01 I srv init: all is well"], code)

    assert failure.fault is fault
    assert words in failure.message


def test_a_kill_for_want_of_memory_is_told_as_such() -> None:
    """The kernel's counter rose: nobody else killed it. Any other signal is not its doing."""
    killed = explain([], -signal.SIGKILL, oom_killed=True)
    in_container = explain([], 137, oom_killed=True)
    crashed = explain([], -signal.SIGSEGV, oom_killed=True)

    assert [failure.fault for failure in (killed, in_container, crashed)] == [
        EngineFault.OUT_OF_MEMORY, EngineFault.OUT_OF_MEMORY, EngineFault.CRASHED,
    ]  # fmt: skip


def test_last_words_are_quoted() -> None:
    """An unexplained end still says what the engine said."""
    failure = explain(["terminate called", "  what():  Resource temporarily unavailable"], -signal.SIGABRT)

    assert failure.message.endswith("it said: Resource temporarily unavailable")


def test_old_troubles_explain_nothing() -> None:
    """What was survived hours ago is not why it ended."""
    failure = explain([*NO_MEMORY.splitlines(), *["0.01 I srv: a request"] * 200], -signal.SIGSEGV)

    assert failure.fault is EngineFault.CRASHED


def test_who_was_killed_from_outside_is_not_asked_for_a_reason() -> None:
    """What it said before has nothing to do with it."""
    failure = explain(NO_MEMORY.splitlines(), -signal.SIGTERM)

    assert failure.message == "it was killed by signal SIGTERM from outside"


def test_an_error_that_a_client_was_told_is_not_the_cause_of_a_crash() -> None:
    """The engine answered and lived on."""
    told = "0.01.2 E srv    send_error: task id = 4, error: request (1532 tokens) exceeds the available context size"

    failure = explain(["0.01.1 E ggml_abort: assertion failed", told], -signal.SIGABRT)

    assert failure.message.endswith("it said: assertion failed")
    assert explain([told], -signal.SIGABRT).message == "it crashed by signal 6 (SIGABRT)"


def test_log_knows_when_its_lines_came() -> None:
    """What was said long before an end does not explain it."""
    now_s = [1.0]
    ring = LogRing(clock=lambda: now_s[0])

    ring.feed(b"old\nhalf")
    now_s[0] = 2.0
    ring.feed(b" a line\nnew\n")

    assert ring.lines == ("old", "half a line", "new")
    assert ring.lines_since(1.0) == ("half a line", "new")
    assert ring.lines_since(2.0) == ()


def test_log_keeps_the_last_lines_of_any_pieces() -> None:
    """Output comes in pieces of any size."""
    ring = LogRing(lines=3)

    for byte in b"one\ntwo\n\nthree\r\nfour\nfi":
        ring.feed(bytes([byte]))

    assert ring.lines == ("two", "three", "four")
    ring.end()
    assert ring.lines == ("three", "four", "fi")
    assert ring.fed_lines == 6


def test_log_is_bounded_and_harmless() -> None:
    """Endless lines, other encodings and terminal codes come from what a model file says, too."""
    ring = LogRing(lines=10, line_bytes=16)

    ring.feed(b"x" * 1_000_000 + b"\n\xff\xfe ok\n\x1b[2J\x1b[31mred\x07\n")

    assert ring.lines == ("x" * 16, "\ufffd\ufffd ok", "red")


ABORTED = "/src/ggml/src/ggml-rpc/ggml-rpc.cpp:569: Remote RPC server crashed or returned malformed response"
UNREACHED = "/src/ggml/src/ggml-rpc/ggml-rpc.cpp:547: Failed to connect to 127.0.0.1:7002"


@pytest.mark.parametrize(
    ("line", "workers", "words"),
    [
        (ABORTED, {7001: "mia"}, "the RPC connection to mia, which shared this model, was lost"),
        (ABORTED, {7001: "mia", 7002: "tom"}, "to one of mia, tom, which"),
        (ABORTED, {}, "to a worker, which"),
        (UNREACHED, {7001: "mia", 7002: "tom"}, "tom, which was to share this model, was not reached"),
        (UNREACHED, {}, "a worker, which"),
    ],
)
def test_a_lost_worker_is_named_where_that_can_be_known(line: str, workers: dict[int, str], words: str) -> None:
    """The host of a split ends itself when one of its workers is gone: that is no mistake of the engine."""
    failure = explain([line], -signal.SIGABRT, workers=workers)

    assert failure.fault is EngineFault.CRASHED
    assert words in failure.message
