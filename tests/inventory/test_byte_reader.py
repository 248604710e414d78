"""Values come off a stream in order, across window edges, and never beyond what the stream has."""

import io
import struct

import pytest

from meshllm.core import limits
from meshllm.inventory.byte_reader import BoundedReader
from meshllm.inventory.invalid import InvalidModel, InvalidModelError

U32 = struct.Struct("<I")


class Trickling(io.BytesIO):
    """A stream that gives a few bytes at a time, as pipes and network disks do."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most three bytes."""
        return super().read(min(3, size if size is not None and size >= 0 else 3))


def reader_of(content: bytes, size_bytes: int | None = None) -> BoundedReader:
    """Return a reader over bytes."""
    return BoundedReader(Trickling(content), len(content) if size_bytes is None else size_bytes)


def text(value: bytes) -> bytes:
    """Return a string with its length before it."""
    return struct.pack("<Q", len(value)) + value


@pytest.fixture(params=[8, 64, 1 << 20], autouse=True)
def _window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read with windows smaller and larger than the content."""
    monkeypatch.setattr("meshllm.inventory.byte_reader._WINDOW_BYTES", request.param)


def code_of(reader: BoundedReader, action: str, *args: object) -> InvalidModel:
    """Return why an action is refused."""
    with pytest.raises(InvalidModelError) as caught:
        getattr(reader, action)(*args)
    return caught.value.code


def test_values_come_in_order() -> None:
    """Numbers, bytes, names, gaps and vocabularies."""
    words = [b"w" * length for length in (0, 1, 7, 8, 9, 100)]
    content = U32.pack(7) + b"raw" + text(b"name") + bytes(50) + b"".join(map(text, words)) + U32.pack(9)
    reader = reader_of(content)

    taken = [reader.number(U32), reader.take(3), reader.name("key")]
    reader.skip(50)
    reader.skip_strings(len(words))
    taken.append(reader.number(U32))

    assert taken == [7, b"raw", "name", 9]
    assert reader.position == len(content)


@pytest.mark.parametrize(
    ("action", "args"),
    [("take", (5,)), ("skip", (5,)), ("number", (struct.Struct("<Q"),)), ("name", ("key",)), ("skip_strings", (1,))],
)
def test_nothing_is_taken_beyond_the_end(action: str, args: tuple[object, ...]) -> None:
    """Four bytes are too few for all of these."""
    assert code_of(reader_of(bytes(4)), action, *args) is InvalidModel.INCOMPLETE


def test_a_length_beyond_the_end_is_refused_before_anything_is_read() -> None:
    """Also the largest that 64 bits hold."""
    content = struct.pack("<Q", 2**64 - 1) + bytes(100)

    assert code_of(reader_of(content), "name", "key") is InvalidModel.INCOMPLETE
    assert code_of(reader_of(content), "skip_strings", 1) is InvalidModel.INCOMPLETE


def test_a_stream_shorter_than_its_size_is_incomplete() -> None:
    """It shrank since its size was asked."""
    assert code_of(reader_of(b"abc", size_bytes=100), "take", 50) is InvalidModel.INCOMPLETE


def test_the_header_limit_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the file."""
    monkeypatch.setattr(limits, "GGUF_HEADER_BYTES", 10)

    assert code_of(reader_of(bytes(100)), "skip", 11) is InvalidModel.TOO_LARGE


def test_items_are_counted_over_all_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many arrays of the allowed length would be too many items."""
    monkeypatch.setattr(limits, "GGUF_ARRAY_ITEMS", 10)
    reader = reader_of(b"")
    reader.charge_items(6)

    assert code_of(reader, "charge_items", 5) is InvalidModel.TOO_LARGE


def test_memory_is_counted_over_all_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what Python adds to each."""
    monkeypatch.setattr(limits, "GGUF_READ_MEMORY_BYTES", 1000)
    reader = reader_of(b"")

    granted = [reader.has_memory_for(500), reader.has_memory_for(500), reader.has_memory_for(100)]

    assert granted == [True, False, True]


def test_names_are_short_and_valid() -> None:
    """Everything else of a header may be skipped, names may not."""
    assert code_of(reader_of(text(b"\xff")), "name", "key") is InvalidModel.BAD_VALUE
    assert code_of(reader_of(text(b"k" * 65_537)), "name", "key") is InvalidModel.TOO_LARGE


def test_processor_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header can be legal and still endless."""
    monkeypatch.setattr(limits, "GGUF_READ_S", -1.0)

    assert code_of(reader_of(bytes(100)), "take", 1) is InvalidModel.TOO_LARGE
