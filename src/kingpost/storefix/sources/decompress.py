"""Undo the compression of a NAR while it streams, in bounded memory, with what the machine has.

xz, bzip2 and gzip come from the standard library, zstd from Python 3.14's. Older Pythons get zstd, and all
of them brotli, from the C library through ctypes: the system's, or one in the Nix store. A library in a
damaged store may be damaged too, and loading a truncated one kills the process; so another process tries it
first. Then come the programs (`zstd -dc`, `brotli -dc`), for a Python that was built without some module too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache, partial
from shutil import which
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Iterator,
    List,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    Union,
)

from ..errors import ContentError, SourceError
from .nar_parser import BLOCK, Read
from .pipe import Pipe

if TYPE_CHECKING:
    from pathlib import Path

# A hostile xz header can ask for 4 GiB. `xz -9`, the largest preset, needs 65 MiB.
_XZ_MEMORY = 512 << 20
_FAULTS = (OSError, ValueError, EOFError)


class Decoder(Protocol):
    """One kind of compression, fed block by block.

    `finished` is true between two frames: there the input may end, or another frame begin.
    """

    finished: bool

    def decode(self, block: bytes) -> Iterator[bytes]:
        """Give what a block of input unpacks to, in pieces of bounded size.

        Raises:
            ContentError: The input is damaged.

        """

    def close(self) -> None:
        """Free what the decoder holds."""


class Decompressor:
    """Reads compressed bytes and gives plain ones; `read` fits `nar.Reader`. Use as a context manager.

    Args:
        compression: As in a narinfo: none, xz, bzip2, gzip, zstd, br.
        read: The compressed stream.
        stores: Nix stores to look for libraries and programs in.

    Raises:
        SourceError: The compression is unknown, or nothing here can undo it; says what to do.

    """

    def __init__(self, compression: str, read: Read, stores: Sequence[Path] = ()) -> None:
        self._read = read
        self._decoder: Optional[Decoder] = None
        self._pipe: Optional[Pipe] = None
        self._pieces: Iterator[bytes] = iter(())
        if compression in ("none", ""):
            return
        make = _decoder(compression, tuple(stores))
        if isinstance(make, list):
            self._pipe = Pipe(make, read)
            self._read = self._pipe.read
        else:
            self._decoder = make()

    def __enter__(self) -> Decompressor:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        if self._decoder is not None:
            self._decoder.close()
        if self._pipe is not None:
            self._pipe.close()

    def read(self, size: int = BLOCK) -> bytes:
        """Give at least one byte, or none at the end. A decoder gives pieces of its own size.

        Raises:
            ContentError: The stream is damaged or cut off.

        """
        if self._decoder is None:
            return self._read(size)
        while True:
            for piece in self._pieces:
                if piece:
                    return piece
            block = self._read(size)
            if not block:
                if not self._decoder.finished:
                    raise ContentError("the compressed data is cut off")
                return b""
            self._pieces = self._decoder.decode(block)


class _Stdlib:
    """xz, bzip2, gzip and Python 3.14's zstd share one shape: `decompress(data, max_length)`."""

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new = new
        self._frame: Any = None
        self.finished = False

    def decode(self, block: bytes) -> Iterator[bytes]:
        try:
            while block or not self.finished:
                if self._frame is None:
                    block = block.lstrip(b"\0") if self.finished else block  # xz pads between streams
                    if not block:
                        return
                    self._frame, self.finished = self._new(), False
                frame = self._frame
                piece = frame.decompress(block, BLOCK)
                block = getattr(frame, "unconsumed_tail", b"")  # zlib gives it back, the others keep it
                yield piece
                if frame.eof:
                    block, self._frame, self.finished = frame.unused_data, None, True
                elif not block and (getattr(frame, "needs_input", not piece)):
                    return
        except _FAULTS as error:
            raise ContentError("the compressed data is damaged", why=str(error)) from None
        except Exception as error:
            if type(error).__name__ in ("LZMAError", "error", "ZstdError"):
                raise ContentError("the compressed data is damaged", why=str(error)) from None
            raise

    def close(self) -> None:
        self._frame = None


_PROGRAMS = {"xz": "xz", "bzip2": "bzip2", "gzip": "gzip", "zstd": "zstd", "br": "brotli"}
_BIN = ("/run/current-system/sw/bin", "/nix/var/nix/profiles/default/bin")
_MOST_CANDIDATES = 8


@lru_cache(maxsize=None)
def _decoder(compression: str, stores: Tuple[Path, ...]) -> Union[Callable[[], Decoder], List[str]]:
    """Give what makes a decoder, or the argument list of a program that decodes its standard input."""
    if compression not in _PROGRAMS:
        raise SourceError(
            f"NARs compressed with {compression!r} cannot be read", why=f"known: none, {', '.join(_PROGRAMS)}"
        )
    new = _from_stdlib(compression)
    if new is not None:
        return partial(_Stdlib, new)
    library = _from_library(compression, stores)
    if library is not None:
        return library
    program = _PROGRAMS[compression]
    found = which(program) or which(program, path=os.pathsep.join(_BIN))
    stored = [str(path) for store in stores for path in _newest(store, f"*-{program}-*/bin/{program}")]
    for path in [found] if found else stored:
        if _runs([path, "--version"]):
            return [path, "-dc"]
    raise SourceError(
        f"nothing here can undo {compression} compression",
        why=f"no module of Python {sys.version.split()[0]}, no library, no program `{program}`",
        fix=f"put a `{program}` on PATH (a static one will do), run this with Python 3.14 if it is for zstd, "
        "or name a source that compresses otherwise with --from",
    )


def _from_stdlib(compression: str) -> Optional[Callable[[], Any]]:
    try:
        if compression == "xz":
            import lzma

            return partial(lzma.LZMADecompressor, memlimit=_XZ_MEMORY)
        if compression == "bzip2":
            import bz2

            return bz2.BZ2Decompressor
        if compression == "gzip":
            import zlib

            return partial(zlib.decompressobj, wbits=31)
        if compression == "zstd" and sys.version_info >= (3, 14):
            from compression import zstd

            return zstd.ZstdDecompressor
    except ImportError:
        pass  # a Python built without it: the program is next
    return None


def _from_library(compression: str, stores: Sequence[Path]) -> Optional[Callable[[], Decoder]]:
    """Load the C library: the system's, or one in a store that another process has loaded without harm."""
    try:
        import ctypes

        from .libraries import LIBRARIES
    except ImportError:  # a Python built without ctypes
        return None
    if compression not in LIBRARIES:
        return None
    name, package, decoder = LIBRARIES[compression]
    in_store = [str(found) for store in stores for found in _newest(store, f"{package}/lib/{name}")]
    for path in [name, *in_store]:
        if path == name or _runs([sys.executable, "-I", "-S", "-c", f"import ctypes; ctypes.CDLL({path!r})"]):
            try:
                return partial(decoder, ctypes.CDLL(path))
            except OSError:
                continue
    return None


def _newest(store: Path, pattern: str) -> List[Path]:
    return sorted(store.glob(pattern), key=lambda path: path.parts[len(store.parts)][32:], reverse=True)[
        :_MOST_CANDIDATES
    ]


def _runs(argv: List[str]) -> bool:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
