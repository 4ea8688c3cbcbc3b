"""The streaming decoders of libzstd and libbrotlidec, through ctypes."""

from __future__ import annotations

import ctypes
from typing import Callable, Dict, Iterator, Optional, Tuple, Union

from ..errors import ContentError
from .nar_parser import BLOCK


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer (source: zstd.h; stable since 1.0)."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


class Zstd:
    """libzstd's streaming decoder. Its default window limit of 128 MiB bounds the memory."""

    def __init__(self, library: ctypes.CDLL) -> None:
        library.ZSTD_createDStream.restype = ctypes.c_void_p
        library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
        library.ZSTD_decompressStream.restype = ctypes.c_size_t
        library.ZSTD_decompressStream.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(_Buffer),
            ctypes.POINTER(_Buffer),
        ]
        library.ZSTD_isError.argtypes = [ctypes.c_size_t]
        library.ZSTD_getErrorName.argtypes = [ctypes.c_size_t]
        library.ZSTD_getErrorName.restype = ctypes.c_char_p
        self._library = library
        self._stream: Optional[int] = library.ZSTD_createDStream()
        self._room = ctypes.create_string_buffer(BLOCK)
        self.finished = False

    def decode(self, block: bytes) -> Iterator[bytes]:
        """Give what a block of input unpacks to. See `decompress.Decoder`."""
        source = ctypes.create_string_buffer(block, len(block))
        given = _Buffer(ctypes.addressof(source), len(block), 0)
        full = False
        while given.pos < given.size or full:
            taken = _Buffer(ctypes.addressof(self._room), BLOCK, 0)
            left = self._library.ZSTD_decompressStream(self._stream, ctypes.byref(taken), ctypes.byref(given))
            if self._library.ZSTD_isError(left):
                name = self._library.ZSTD_getErrorName(left).decode("ascii", "replace")
                raise ContentError("the compressed data is damaged", why=f"zstd: {name}")
            self.finished = left == 0
            full = taken.pos == BLOCK and not self.finished
            yield ctypes.string_at(self._room, taken.pos)

    def close(self) -> None:
        """Free the decoder."""
        if self._stream is not None:
            self._library.ZSTD_freeDStream(self._stream)
            self._stream = None


class Brotli:
    """libbrotlidec's streaming decoder (source: brotli/decode.h). The format's window has at most 16 MiB."""

    def __init__(self, library: ctypes.CDLL) -> None:
        library.BrotliDecoderCreateInstance.restype = ctypes.c_void_p
        library.BrotliDecoderCreateInstance.argtypes = [ctypes.c_void_p] * 3
        library.BrotliDecoderDestroyInstance.argtypes = [ctypes.c_void_p]
        library.BrotliDecoderDecompressStream.argtypes = [ctypes.c_void_p] * 6
        self._library = library
        self._state: Optional[int] = library.BrotliDecoderCreateInstance(None, None, None)
        self._room = ctypes.create_string_buffer(BLOCK)
        self.finished = False

    def decode(self, block: bytes) -> Iterator[bytes]:
        """Give what a block of input unpacks to. See `decompress.Decoder`."""
        if self.finished:
            raise ContentError("there are bytes behind the end of the compressed data")
        source = ctypes.create_string_buffer(block, len(block))
        left, at = ctypes.c_size_t(len(block)), ctypes.c_void_p(ctypes.addressof(source))
        result = 3
        while result == 3:  # BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT
            free, to = ctypes.c_size_t(BLOCK), ctypes.c_void_p(ctypes.addressof(self._room))
            result = self._library.BrotliDecoderDecompressStream(
                self._state, *map(ctypes.byref, (left, at, free, to)), None
            )
            if result == 0:
                raise ContentError("the compressed data is damaged", why="brotli cannot decode it")
            yield ctypes.string_at(self._room, BLOCK - free.value)
        self.finished = result == 1
        if self.finished and left.value:
            raise ContentError("there are bytes behind the end of the compressed data")

    def close(self) -> None:
        """Free the decoder."""
        if self._state is not None:
            self._library.BrotliDecoderDestroyInstance(self._state)
            self._state = None


LIBRARIES: Dict[str, Tuple[str, str, Callable[[ctypes.CDLL], Union[Zstd, Brotli]]]] = {
    "zstd": ("libzstd.so.1", "*-zstd-*", Zstd),
    "br": ("libbrotlidec.so.1", "*-brotli-*", Brotli),
}
"""Name of the compression to the library's name, its package in a Nix store, and its decoder."""
