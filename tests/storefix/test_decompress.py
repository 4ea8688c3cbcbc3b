"""Every compression by every way that can undo it: a module, a library, a program."""

import bz2
import ctypes
import gzip
import io
import lzma
import random
import shutil
import tracemalloc
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path

import brotli
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kingpost.storefix.errors import ContentError, SourceError, UnreachableError
from kingpost.storefix.sources import decompress
from kingpost.storefix.sources.decompress import Decompressor

COMPRESS = {
    "none": bytes,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "br": partial(brotli.compress, quality=1),
}
WAYS = [
    ("none", "module"),
    *((name, "module") for name in ("xz", "bzip2", "gzip")),
    *((name, "library") for name in ("zstd", "br")),
    *((name, "program") for name in ("xz", "bzip2", "gzip", "zstd", "br")),
]
TEXT = random.Random(1).randbytes(1 << 17) + b"store " * (1 << 15)


@pytest.fixture(params=WAYS, ids="-".join)
def compression(request, monkeypatch):
    """Allow one way only, and give the name of the compression."""
    name, way = request.param
    decompress._decoder.cache_clear()
    if way != "module":
        monkeypatch.setattr(decompress, "_from_stdlib", lambda _: None)
    if way == "library" and decompress._from_library(name, ()) is None:
        pytest.skip(f"the library for {name} is not here: run `make real` (as root) first")
    if way == "program":
        monkeypatch.setattr(decompress, "_from_library", lambda *_: None)
        if shutil.which(decompress._PROGRAMS[name]) is None:
            pytest.skip(
                f"the program {decompress._PROGRAMS[name]} is not here: run `make real` (as root) first"
            )
    yield name
    decompress._decoder.cache_clear()


def undo(name, data, step=1 << 16):
    stream = io.BytesIO(data)
    with Decompressor(name, lambda size: stream.read(min(size, step))) as plain:
        return b"".join(iter(plain.read, b""))


@pytest.mark.parametrize("text", [b"", b"x", TEXT], ids=["nothing", "a byte", "many"])
def test_it_comes_back(compression, text):
    assert undo(compression, COMPRESS[compression](text)) == text


def test_it_comes_back_from_crumbs(compression):
    text = TEXT[-5000:]
    assert undo(compression, COMPRESS[compression](text), step=1) == text


def test_a_stream_of_several_frames(compression):
    frames = b"".join(COMPRESS[compression](part) for part in (TEXT[:1000], b"", TEXT[-70000:]))
    if compression == "br":  # brotli has none
        with pytest.raises(ContentError):
            undo(compression, frames)
        return
    assert undo(compression, frames) == TEXT[:1000] + TEXT[-70000:]
    assert undo(compression, frames, step=7) == TEXT[:1000] + TEXT[-70000:]


@pytest.mark.parametrize("left", [0, 1, 10, 5000, -1])
def test_what_is_cut_off_is_an_error(compression, left):
    data = COMPRESS[compression](TEXT)
    if compression == "none":
        return
    with pytest.raises(ContentError):
        undo(compression, data[:left])


def test_what_is_no_such_data_is_an_error(compression):
    if compression == "none":
        return
    for data in (b"<html>not found</html>" * 50, b"\xff" * 100):
        with pytest.raises(ContentError):
            undo(compression, data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), step=st.integers(1, 1 << 17))
def test_a_flipped_bit_is_an_error_or_other_bytes(compression, place, bit, step):
    data = bytearray(COMPRESS[compression](TEXT[-40000:]))
    data[int(place * len(data))] ^= 1 << bit
    with suppress(ContentError):
        undo(compression, bytes(data), step)


def test_a_bomb_does_not_fill_the_memory(compression):
    if compression == "none":
        return
    data = COMPRESS[compression](bytes(32 << 20))
    tracemalloc.start()
    try:
        stream = io.BytesIO(data)
        with Decompressor(compression, stream.read) as plain:
            size = sum(map(len, iter(plain.read, b"")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == 32 << 20
    assert peak < 12 << 20


def test_an_xz_that_asks_for_gigabytes_is_refused():
    data = bytearray(lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]))
    # The block header: its size, flags, filter 0x21 with one byte that is the dictionary's size, padding, CRC.
    assert data[14:16] == b"\x21\x01"
    data[16] = 40  # 4 GiB - 1
    data[20:24] = zlib.crc32(bytes(data[12:20])).to_bytes(4, "little")
    with pytest.raises(ContentError, match="damaged"):
        undo("xz", bytes(data))


def test_the_sources_own_error_comes_through(compression):
    data = COMPRESS[compression](TEXT)

    def broken(size, sent=[]):  # noqa: B006  # remembers on purpose
        if sent:
            raise UnreachableError("it broke off")
        sent.append(1)
        return data[:1000]

    with pytest.raises(UnreachableError, match="it broke off"), Decompressor(compression, broken) as plain:
        b"".join(iter(plain.read, b""))


def test_leaving_early_ends_the_program(compression):
    data = COMPRESS[compression](TEXT)
    with Decompressor(compression, io.BytesIO(data).read) as plain:
        assert plain.read(10)


def test_an_unknown_compression():
    with pytest.raises(SourceError, match="lzip"):
        Decompressor("lzip", io.BytesIO().read)


@pytest.fixture
def bare(monkeypatch):
    """Make a machine without modules, libraries or programs."""
    decompress._decoder.cache_clear()
    monkeypatch.setattr(decompress, "_from_stdlib", lambda _: None)
    monkeypatch.setattr(decompress, "_from_library", lambda *_: None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(decompress, "_BIN", ())
    yield
    decompress._decoder.cache_clear()


def test_with_nothing_at_hand_it_says_what_to_do(bare, tmp_path):
    with pytest.raises(SourceError, match="nothing here can undo zstd") as caught:
        Decompressor("zstd", io.BytesIO().read, [tmp_path])
    assert "put a `zstd` on PATH" in caught.value.fix


def test_a_program_in_the_store_is_found_and_a_broken_one_passed_over(bare, tmp_path):
    for version, text in (
        ("1.9", "#!/bin/nowhere\n"),
        ("1.5", '#!/bin/sh\n[ "$1" = --version ] || /bin/cat\n'),
    ):
        program = tmp_path / f"0123456789abcdfghijklmnpqrsvwxyz-zstd-{version}-bin/bin/zstd"
        program.parent.mkdir(parents=True)
        program.write_text(text)
        program.chmod(0o755)
    stream = io.BytesIO(b"plain")
    with Decompressor("zstd", stream.read, [tmp_path]) as plain:
        assert plain.read() == b"plain"


def test_a_truncated_library_in_the_store_kills_another_process_not_this_one(monkeypatch, tmp_path):
    """Loading a library that ends too early raises SIGBUS; so it is tried elsewhere first."""
    whole = next((path for base in ("/usr/lib", "/usr/lib64") for path in _find(base, "libzstd.so.1")), None)
    if whole is None:
        pytest.skip("the library for zstd is not here: run `make real` (as root) first")
    folder = tmp_path / "0123456789abcdfghijklmnpqrsvwxyz-zstd-1.5/lib"
    folder.mkdir(parents=True)
    data = whole.read_bytes()
    (folder / "libzstd.so.1").write_bytes(data[: len(data) // 3])
    real = ctypes.CDLL
    only_stored = lambda name: real(name if "/" in name else "libnowhere.so")  # noqa: E731  # said where used
    monkeypatch.setattr(ctypes, "CDLL", only_stored)
    assert decompress._from_library("zstd", [tmp_path]) is None
    (folder / "libzstd.so.1").write_bytes(data)
    assert decompress._from_library("zstd", [tmp_path]) is not None


def _find(base, name):
    """Look two levels deep: /usr/lib/x86_64-linux-gnu is where Debian has it."""
    yield from (path for pattern in (name, f"*/{name}") for path in Path(base).glob(pattern))
