"""The header reader accepts what llama.cpp accepts and refuses everything else with a reason, quickly."""

import io
import os
import random
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshllm.core import limits
from meshllm.inventory import gguf
from meshllm.inventory.gguf import GgufHeader, Skipped, parse_header, read_header
from meshllm.inventory.gguf_facts import facts
from meshllm.inventory.invalid import InvalidModel, InvalidModelError
from tests.inventory.gguf_builder import ARRAY, I32, STRING, U32, U64, Tensor, Typed, build, llama, text, typed, write

MUTATIONS = 10_000
EXTRA = "test.extra"


def parse(content: bytes) -> GgufHeader:
    """Parse a file that exists in memory only."""
    return parse_header(io.BytesIO(content), len(content))


def refusal(content: bytes) -> InvalidModelError:
    """Return why a file is refused."""
    with pytest.raises(InvalidModelError) as caught:
        parse(content)
    return caught.value


@pytest.mark.parametrize("version", [2, 3])
def test_a_valid_file_is_read(tmp_path: Path, version: int) -> None:
    """Versions 2 and 3 differ in nothing that we read."""
    path = write(tmp_path / "model.gguf", version=version)

    header = read_header(path)

    assert header.version == version
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["tokenizer.ggml.tokens"] == ("a", "b", "c")
    assert (header.tensors.count, header.tensors.parameters, header.tensors.types) == (1, 128, {"F32": 128})
    assert header.data_end_bytes == path.stat().st_size


def test_a_long_array_is_counted_and_not_kept() -> None:
    """A vocabulary would take more memory than everything else together."""
    tokens = [f"token {number}" for number in range(limits.GGUF_ARRAY_KEPT_ITEMS + 1)]
    numbers = Typed(ARRAY, range(5000), I32)

    header = parse(build({**llama(), "tokenizer.ggml.tokens": tokens, EXTRA: numbers}))

    assert header.metadata["tokenizer.ggml.tokens"] == Skipped("array", len(tokens))
    assert header.metadata[EXTRA] == Skipped("array", 5000)


def test_a_vocabulary_larger_than_the_window_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strings lie across the edges of what is read at once."""
    monkeypatch.setattr("meshllm.inventory.byte_reader._WINDOW_BYTES", 64)
    tokens = [f"{'x' * (number % 97)}" for number in range(3000)]

    header = parse(build({**llama(), "tokenizer.ggml.tokens": tokens, "after": "it"}))

    assert header.metadata["tokenizer.ggml.tokens"] == Skipped("array", 3000)
    assert header.metadata["after"] == "it"


def test_a_long_string_is_skipped() -> None:
    """Some files carry a whole tokenizer as one string."""
    header = parse(build({**llama(), EXTRA: "x" * (limits.GGUF_VALUE_BYTES + 1), "after": 7}))

    assert header.metadata[EXTRA] == Skipped("string", limits.GGUF_VALUE_BYTES + 1)
    assert header.metadata["after"] == 7


def test_invalid_text_in_a_value_does_not_make_a_file_invalid() -> None:
    """Only keys and names have to be valid."""
    header = parse(build({**llama(), EXTRA: b"caf\xe9"}))

    assert header.metadata[EXTRA] == "caf\ufffd"


def test_a_declared_alignment_is_used() -> None:
    """The data start at the next multiple of it."""
    header = parse(build(llama(general__alignment=128), alignment=128))

    assert header.alignment == 128
    assert header.data_start_bytes % 128 == 0


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"", InvalidModel.EMPTY, id="0 bytes"),
        pytest.param(b"GGU", InvalidModel.INCOMPLETE, id="3 bytes"),
        pytest.param(build(magic=b"GGML"), InvalidModel.NOT_GGUF, id="magic"),
        pytest.param(build(magic=b"tjgg"), InvalidModel.NOT_GGUF, id="old magic"),
        pytest.param(build(version=0), InvalidModel.UNSUPPORTED_VERSION, id="version 0"),
        pytest.param(build(version=1), InvalidModel.UNSUPPORTED_VERSION, id="version 1"),
        pytest.param(build(version=99), InvalidModel.UNSUPPORTED_VERSION, id="version 99"),
        pytest.param(build(version=3 << 24), InvalidModel.BIG_ENDIAN, id="big endian"),
        pytest.param(build(tensor_count=0), InvalidModel.BAD_TENSOR, id="no tensors"),
        pytest.param(build(key_count=0), InvalidModel.MISSING_METADATA, id="no keys"),
        pytest.param(build(tensor_count=2**63), InvalidModel.TOO_LARGE, id="2^63 tensors"),
        pytest.param(build(key_count=2**63), InvalidModel.TOO_LARGE, id="2^63 keys"),
        pytest.param(build(cut_bytes=1), InvalidModel.INCOMPLETE, id="data cut"),
        pytest.param(build(cut_bytes=600), InvalidModel.INCOMPLETE, id="header cut"),
        pytest.param(build(llama(general__alignment=0)), InvalidModel.BAD_VALUE, id="alignment 0"),
        pytest.param(build(llama(general__alignment=3)), InvalidModel.BAD_VALUE, id="alignment 3"),
        pytest.param(build(llama(general__alignment=2**31)), InvalidModel.BAD_VALUE, id="alignment 2^31"),
        pytest.param(build(llama(general__alignment="x")), InvalidModel.BAD_VALUE, id="alignment text"),
        pytest.param(build(llama(general__alignment=True)), InvalidModel.BAD_VALUE, id="alignment bool"),
        pytest.param(build([("a", 1), ("a", 2)]), InvalidModel.DUPLICATE, id="duplicate key"),
        pytest.param(build([("k" * 65_537, 1)]), InvalidModel.TOO_LARGE, id="long key"),
        pytest.param(build([(b"\xff", 1)]), InvalidModel.BAD_VALUE, id="key not UTF-8"),
        pytest.param(build(tensors=[Tensor(), Tensor()]), InvalidModel.DUPLICATE, id="duplicate tensor"),
        pytest.param(build(tensors=[Tensor(name=b"\xff")]), InvalidModel.BAD_VALUE, id="name not UTF-8"),
        pytest.param(build(tensors=[Tensor(kind=999)]), InvalidModel.BAD_TENSOR, id="type 999"),
        pytest.param(build(tensors=[Tensor(dimensions=())]), InvalidModel.BAD_TENSOR, id="no dimensions"),
        pytest.param(build(tensors=[Tensor(dimensions=(1,) * 5)]), InvalidModel.BAD_TENSOR, id="5 dimensions"),
        pytest.param(build(tensors=[Tensor(dimensions=(0, 4))]), InvalidModel.BAD_TENSOR, id="dimension 0"),
        pytest.param(build(tensors=[Tensor(dimensions=(2**40, 2**40))]), InvalidModel.BAD_TENSOR, id="overflow"),
        pytest.param(build(tensors=[Tensor(dimensions=(31, 4), kind=8)]), InvalidModel.BAD_TENSOR, id="half a block"),
        pytest.param(build(tensors=[Tensor(offset=1)]), InvalidModel.BAD_TENSOR, id="unaligned"),
        pytest.param(build(tensors=[Tensor(offset=2**62)]), InvalidModel.INCOMPLETE, id="far beyond the file"),
        pytest.param(build(tensors=[Tensor(offset=2**64 - 32)]), InvalidModel.BAD_TENSOR, id="beyond any file"),
        pytest.param(build(tensors=[Tensor(), Tensor("b", offset=32)]), InvalidModel.BAD_TENSOR, id="overlap"),
    ],
)
def test_a_malformed_file_is_refused_with_its_reason(content: bytes, code: InvalidModel) -> None:
    """Every row of the table of malformed model files."""
    error = refusal(content)

    assert error.code is code
    assert error.message


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        pytest.param(struct.pack("<IQ", STRING, 2**62), InvalidModel.INCOMPLETE, id="string beyond the file"),
        pytest.param(struct.pack("<IIQ", ARRAY, U32, 2**40), InvalidModel.TOO_LARGE, id="array of 2^40"),
        pytest.param(struct.pack("<IIQ", ARRAY, U32, 2**20), InvalidModel.INCOMPLETE, id="array beyond the file"),
        pytest.param(struct.pack("<IIQ", ARRAY, STRING, 2**20), InvalidModel.INCOMPLETE, id="strings beyond the file"),
        pytest.param(struct.pack("<IIQ", ARRAY, ARRAY, 1), InvalidModel.BAD_VALUE, id="array of arrays"),
        pytest.param(struct.pack("<IIQ", ARRAY, 999, 1), InvalidModel.BAD_VALUE, id="array of type 999"),
        pytest.param(struct.pack("<I", 999), InvalidModel.BAD_VALUE, id="type 999"),
    ],
)
def test_a_malformed_value_is_refused_with_its_reason(raw: bytes, code: InvalidModel) -> None:
    """Counts and lengths are checked against the file before anything is reserved for them."""
    content = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text(EXTRA) + raw + bytes(64)

    error = refusal(content)

    assert error.code is code


def test_the_message_never_shows_raw_bytes_of_the_file() -> None:
    """Control characters in a key would reach terminals and logs."""
    error = refusal(build([("\x1b[2J\n" + "k" * 200, 1), ("\x1b[2J\n" + "k" * 200, 2)]))

    assert error.message.isprintable()
    assert len(error.message) < 160


def test_the_first_shard_may_have_no_tensors() -> None:
    """llama.cpp can split so that the first file carries metadata only."""
    header = parse(build({**llama(), "split.count": 2}, tensors=()))

    assert header.tensors.count == 0


def test_what_is_no_regular_file_is_refused_without_blocking(tmp_path: Path) -> None:
    """To open a pipe would wait for a writer for ever."""
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    odd = [tmp_path / "pipe.gguf", tmp_path / "folder.gguf", Path("/dev/zero")]

    codes = []
    for path in odd:
        with pytest.raises(InvalidModelError) as caught:
            read_header(path)
        codes.append(caught.value.code)

    assert codes == [InvalidModel.NOT_A_FILE] * 3


def test_a_link_to_a_regular_file_is_followed(tmp_path: Path) -> None:
    """Hub caches consist of links."""
    write(tmp_path / "blob")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "blob")

    header = read_header(tmp_path / "link.gguf")

    assert header.tensors.count == 1


@pytest.mark.parametrize("name", ["absent.gguf", "dangling.gguf", "nul\0.gguf"])
def test_a_file_that_cannot_be_opened_is_a_reason_too(tmp_path: Path, name: str) -> None:
    """Callers catch one type."""
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "nowhere")

    with pytest.raises(InvalidModelError) as caught:
        read_header(tmp_path / name)

    assert caught.value.code is InvalidModel.UNREADABLE


def test_a_read_error_midway_is_a_reason_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing disk gives an error for some pages only."""

    def broken(stream: object, size_bytes: int) -> GgufHeader:
        raise OSError(5, "Input/output error")

    path = write(tmp_path / "model.gguf")
    monkeypatch.setattr(gguf, "parse_header", broken)

    with pytest.raises(InvalidModelError) as caught:
        read_header(path)

    assert caught.value.code is InvalidModel.UNREADABLE
    assert "Input/output error" in caught.value.message


def test_a_file_that_shrinks_while_it_is_read_is_incomplete() -> None:
    """The size that was asked for first is no promise."""
    content = build()

    with pytest.raises(InvalidModelError) as caught:
        parse_header(io.BytesIO(content[:100]), len(content))

    assert caught.value.code is InvalidModel.INCOMPLETE


def test_a_header_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on processor time; this header takes none, so the bound is set below nothing."""
    monkeypatch.setattr(limits, "GGUF_READ_S", -1.0)

    error = refusal(build())

    assert error.code is InvalidModel.TOO_LARGE


def test_keys_that_fill_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone is small enough."""
    monkeypatch.setattr(limits, "GGUF_READ_MEMORY_BYTES", 4096)

    error = refusal(build([(f"{number}" + "k" * 200, 1) for number in range(100)]))

    assert error.code is InvalidModel.TOO_LARGE


def test_values_that_fill_the_memory_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with much text in it is still a good file."""
    monkeypatch.setattr(limits, "GGUF_READ_MEMORY_BYTES", 4096)

    header = parse(build({"a": "x" * 3000, "b": "x" * 3000, "c": ["x" * 900, "y" * 900]}))

    assert header.metadata["a"] == "x" * 3000
    assert header.metadata["b"] == Skipped("string", 3000)
    assert header.metadata["c"] == Skipped("array", 2)


def test_a_header_past_its_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of any size may follow, a header may not be as large."""
    monkeypatch.setattr(limits, "GGUF_HEADER_BYTES", 200)

    error = refusal(build())

    assert error.code is InvalidModel.TOO_LARGE


def test_a_huge_announcement_takes_no_memory() -> None:
    """Nothing is reserved for what a header only claims."""
    content = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text(EXTRA) + struct.pack("<IIQ", ARRAY, U64, 2**21) + bytes(64)
    tracemalloc.start()

    refusal(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < limits.MIB


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return a file with some bytes changed, cut, doubled or replaced by extreme numbers."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(len(changed), 1))
        match rng.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                changed[at : at + 8] = struct.pack("<Q", rng.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
            case 2:
                del changed[at:]
            case 3:
                del changed[at : at + rng.randint(1, 16)]
            case _:
                changed[at:at] = changed[at : at + rng.randint(1, 32)]
    return bytes(changed)


def judge(content: bytes) -> str:
    """Return what becomes of a file: `valid`, or the code of the refusal."""
    try:
        facts(parse(content))
    except InvalidModelError as error:
        return error.code
    return "valid"


def test_ten_thousand_mutated_files_give_a_verdict_each() -> None:
    """No exception but our own, whatever the bytes."""
    seeds = [build(), build(tensors=[Tensor(), Tensor("b", kind=8)]), build(llama(general__alignment=64), alignment=64)]
    rng = random.Random(20)

    verdicts = [judge(mutated(seeds[number % len(seeds)], rng)) for number in range(MUTATIONS)]

    assert len(verdicts) == MUTATIONS
    assert {"valid", InvalidModel.INCOMPLETE, InvalidModel.BAD_TENSOR, InvalidModel.BAD_VALUE} <= set(verdicts)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300))
def test_any_bytes_behind_a_valid_preamble_give_a_verdict(tail: bytes) -> None:
    """The same for bytes that no valid file was the model of."""
    verdict = judge(b"GGUF" + struct.pack("<IQQ", 3, 2, 3) + tail)

    assert verdict


def test_the_builder_writes_what_it_is_told() -> None:
    """A builder that is wrong would make every other test here worthless."""
    raw = typed(Typed(ARRAY, [1, 2], U32))

    assert raw == struct.pack("<IIQII", ARRAY, U32, 2, 1, 2)
