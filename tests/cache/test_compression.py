"""Every compression: whole streams in bounded steps; a cut, damage and a tail are told apart."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import zlib
from contextlib import suppress

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kingpost.cache.compression import UnknownCompressionError, decompressor
from kingpost.cache.zstd_frames import DecompressionError, TrailingError, TruncatedError

COMPRESS = {
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "br": lambda data: brotli.compress(data, quality=5),
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "none": lambda data: data,
}
COMPRESSED = [name for name in COMPRESS if name != "none"]
DATA = random.Random(7).randbytes(200_000) + b"nix" * 200_000


class Drip(io.RawIOBase):
    """A source that gives at most so many bytes at once, as a socket does."""

    def __init__(self, data, step):
        self.data, self.step = data, step

    def read(self, size):
        piece, self.data = self.data[: min(size, self.step)], self.data[min(size, self.step) :]
        return piece

    def readinto(self, buffer):
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def decompressed(name, data, step=10_000, room=65_536):
    source = decompressor(name, Drip(data, step))
    buffer = bytearray(room)
    out = bytearray()
    while count := source.readinto(memoryview(buffer)):
        assert count <= room
        out += buffer[:count]
    assert source.readinto(memoryview(buffer)) == 0
    return bytes(out)


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("step", [1000, 77_777])
def test_whole(name, step):
    assert decompressed(name, COMPRESS[name](DATA), step) == DATA


@pytest.mark.parametrize("name", COMPRESS)
@given(data=st.binary(max_size=2000), step=st.integers(1, 50), room=st.integers(1, 100))
def test_whole_in_small_steps(name, data, step, room):
    assert decompressed(name, COMPRESS[name](data), step, room) == data


@pytest.mark.parametrize("name", ["zstd", "xz", "bzip2", "gzip"])
@given(pieces=st.lists(st.binary(max_size=500), min_size=1, max_size=5), step=st.integers(1, 60))
def test_frames_joined_as_attic_joins_chunks(name, pieces, step):
    joined = b"".join(map(COMPRESS[name], pieces))
    assert decompressed(name, joined, step) == b"".join(pieces)


@pytest.mark.parametrize("name", COMPRESSED)
@given(data=st.binary(min_size=1, max_size=2000), cut=st.integers(1, 3000), step=st.integers(1, 60))
def test_cut_anywhere(name, data, cut, step):
    whole = COMPRESS[name](data)
    with pytest.raises(TruncatedError):
        decompressed(name, whole[: -min(cut, len(whole))], step)


@pytest.mark.parametrize("name", COMPRESSED)
def test_empty_is_cut(name):
    with pytest.raises(TruncatedError):
        decompressed(name, b"")


def test_a_second_frame_cut_in_its_magic_number():
    frame = COMPRESS["zstd"](b"abc")
    for length in range(1, len(frame)):
        with pytest.raises(TruncatedError):
            decompressed("zstd", frame + frame[:length], 5)


@pytest.mark.parametrize("name", ["zstd", "xz", "bzip2", "gzip", "lzma", "deflate"])
@given(tail=st.binary(min_size=1, max_size=300).filter(lambda t: t.strip(b"\0")), step=st.integers(1, 60))
def test_a_tail_is_told_from_damage(name, tail, step):
    data = b"nix" * 100
    begins = {"zstd": b"\x28\xb5\x2f\xfd"}.get(name, b"\0")
    if name in ("xz", "gzip", "bzip2"):
        tail = b"T" + tail
    if begins.startswith(tail[:4]) or (name == "zstd" and tail[1:4] == b"\x2a\x4d\x18"):
        return
    out = bytearray()
    source = decompressor(name, Drip(COMPRESS[name](data) + tail, step))
    buffer = bytearray(64)
    told = False
    try:
        while count := source.readinto(memoryview(buffer)):
            out += buffer[:count]
    except TrailingError:
        told = True
    assert (told, bytes(out)) == (True, data)


@pytest.mark.parametrize(("name", "unit"), [("xz", 4), ("gzip", 1)])
@given(zeros=st.integers(0, 20), again=st.booleans(), step=st.integers(1, 60))
def test_only_as_many_zeros_as_the_format_allows_lie_behind_a_stream(name, unit, zeros, again, step):
    whole = COMPRESS[name](b"nix")
    joined = whole + bytes(zeros) + (whole if again else b"")
    if zeros % unit:
        with pytest.raises(TrailingError):
            decompressed(name, joined, step)
    else:
        assert decompressed(name, joined, step) == b"nix" * (2 if again else 1)


def test_brotli_tail():
    whole = COMPRESS["br"](DATA[:1000])
    with pytest.raises(DecompressionError):
        decompressed("br", whole + b"tail")
    with pytest.raises(TrailingError):
        decompressed("br", whole + b"tail", step=len(whole))


@pytest.mark.parametrize("name", COMPRESSED)
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), step=st.integers(1, 300))
def test_damage_never_crashes(name, at, bit, step):
    whole = bytearray(COMPRESS[name](DATA[199_000:201_000]))
    whole[int(at * len(whole))] ^= 1 << bit
    with suppress(DecompressionError):
        decompressed(name, bytes(whole), step)


@pytest.mark.parametrize("name", COMPRESSED)
@given(data=st.binary(max_size=200))
def test_any_bytes_never_crash(name, data):
    with suppress(DecompressionError):
        decompressed(name, data)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_bomb_comes_out_in_bounded_steps(name):
    bomb = COMPRESS[name](bytes(64_000_000))
    source = decompressor(name, io.BytesIO(bomb))
    buffer = memoryview(bytearray(65_536))
    total = 0
    while count := source.readinto(buffer):
        total += count
    assert total == 64_000_000


def test_skippable_zstd_frames_are_skipped():
    skippable = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    frame = COMPRESS["zstd"](b"abc")
    assert decompressed("zstd", skippable + frame + skippable + frame, 3) == b"abcabc"
    with pytest.raises(TruncatedError):
        decompressed("zstd", frame + skippable[:-1])


def test_zstd_without_content_size_and_with_checksum():
    out = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).stream_writer(
        out, closefd=False
    ) as w:
        w.write(DATA)
    assert decompressed("zstd", out.getvalue(), 999) == DATA
    with pytest.raises(TruncatedError):  # only the checksum is cut: all data came, and still it is cut
        decompressed("zstd", out.getvalue()[:-1])
    broken = out.getvalue()[:-1] + bytes([out.getvalue()[-1] ^ 1])
    with pytest.raises(DecompressionError):
        decompressed("zstd", broken)


@given(
    pieces=st.lists(
        st.one_of(st.binary(max_size=40), st.integers(1, 300).map(bytes)), min_size=1, max_size=30
    ),
    cut=st.integers(0, 9000),
    step=st.integers(1, 700),
)
def test_a_frame_of_many_blocks_whole_and_cut_anywhere(pieces, cut, step):
    out = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(out, closefd=False) as writer:
        for piece in pieces:
            writer.write(piece)
            writer.flush(zstandard.FLUSH_BLOCK)
    whole = out.getvalue()
    assert decompressed("zstd", whole, step) == b"".join(pieces)
    with pytest.raises(TruncatedError):
        decompressed("zstd", whole[: cut % len(whole)], step)


def test_a_frame_that_wants_too_much_memory_is_refused():
    out = io.BytesIO()
    parameters = zstandard.ZstdCompressionParameters(window_log=30)
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(out, closefd=False) as writer:
        writer.write(b"abc")
    with pytest.raises(DecompressionError):
        decompressed("zstd", out.getvalue())


def test_unknown_names():
    with pytest.raises(UnknownCompressionError):
        decompressor("lz4", io.BytesIO())


def test_an_old_brotli_is_said_and_no_damage(monkeypatch):
    monkeypatch.setattr(brotli, "Decompressor", object)
    with pytest.raises(UnknownCompressionError, match=r"brotli 1\.2"):
        decompressor("br", io.BytesIO())


def test_errors_of_the_source_pass_through():
    class Broken(Drip):
        def read(self, size):
            raise ConnectionResetError

    for name in COMPRESSED:
        source = decompressor(name, Broken(b"", 1))
        with pytest.raises(ConnectionResetError):
            source.readinto(memoryview(bytearray(10)))


@given(st.permutations(range(6)), st.integers(1, 3))
def test_zstd_streams_that_overlap_do_not_disturb_each_other(order, overlapping):
    bodies = [bytes([n]) * 50_000 * (n + 1) for n in range(6)]
    view = memoryview(bytearray(70_000))
    for start in range(0, 6, overlapping):
        streams = {
            n: decompressor("zstd", io.BytesIO(zstandard.ZstdCompressor().compress(bodies[n])))
            for n in order[start : start + overlapping]
        }
        got = dict.fromkeys(streams, b"")
        for _ in range(20):  # some streams are asked again long after their end
            for number, stream in streams.items():
                got[number] += bytes(view[: stream.readinto(view)])
        assert got == {number: bodies[number] for number in streams}
