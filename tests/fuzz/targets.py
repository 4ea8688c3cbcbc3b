"""What is fuzzed: each target takes any bytes and raises only when kingpost did what it never may.

A target compares kingpost with a plain reading of the same bytes by something else. `run.py` drives them with
atheris; `test_corpus.py` runs each over its corpus and, without atheris, over many small changes of it.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import zlib
from typing import Final

import brotli
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.cache.nars import HASH, Promise, book_says, nar, validate

from kingpost.cache.compression import KNOWN, decompressor
from kingpost.cache.fetch import BinaryCache, Body, FetchError, Hop, Trouble
from kingpost.cache.nar import NarError
from kingpost.cache.narinfo import NarInfoError, parse_narinfo
from kingpost.cache.signatures import Trust, TrustedKeys
from kingpost.cache.storepath import parse_path
from kingpost.cache.zstd_frames import DecompressionError
from kingpost.observe import audit_codes as codes
from kingpost.observe.audit import Auditor, Target

NAR: Final = nar(
    {b"bin": {b"hello": ("x", b"#!/bin/sh\n" * 30)}, b"lib": ("->", b"bin"), b"share": bytes(700)}
)
#: More than this is never read of one input: an input may be a bomb, and that it is one is no fault.
MOST: Final = 4 << 20
_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEYS: Final = TrustedKeys({"key": _KEY.public_key()})
#: What `KEYS` signed: nothing else may ever count as signed.
SIGNED: Final = parse_narinfo(Promise(nar=NAR, body=NAR).text()).fingerprint()


def sign(text: str) -> str:
    import base64

    return base64.b64encode(_KEY.sign(text.encode())).decode()


COMPRESS: Final = {
    "none": bytes,
    "zstd": lambda data: b"".join(
        zstandard.ZstdCompressor(write_checksum=True).compress(d) for d in (data[:900], data[900:])
    ),
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "br": brotli.compress,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
}


WHOLE: Final = {kind: compress(NAR) for kind, compress in COMPRESS.items()}


def plainly(compression: str, body: bytes) -> bytes:
    """Decompress as the libraries do at once."""
    match compression:
        case "none":
            return body
        case "zstd":
            decoder = zstandard.ZstdDecompressor()
            return decoder.stream_reader(io.BytesIO(body), read_across_frames=True).read(MOST)
        case "xz" | "lzma":
            return lzma.decompress(body, lzma.FORMAT_XZ if compression == "xz" else lzma.FORMAT_ALONE)
        case "bzip2":
            return bz2.decompress(body)
        case "br":
            return bytes(brotli.decompress(body))
        case "gzip":
            return gzip.decompress(body)
        case _:
            return zlib.decompress(body)


class Drip:
    """A source that gives at most `step` bytes at once."""

    def __init__(self, data: bytes, step: int) -> None:
        self._inner, self._step = io.BytesIO(data), step

    def read(self, size: int, /) -> bytes:
        return self._inner.read(min(size, self._step))

    def readinto(self, buffer: memoryview, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def narinfo(data: bytes) -> None:
    """Parse: refused by name, or a narinfo whose parts are what they must be and whose signature is no forgery."""
    try:
        info = parse_narinfo(data)
    except NarInfoError:
        return
    assert 0 < info.nar_size < 2**63
    assert len(info.nar_hash.digest) == 32
    for path in (info.path, *info.references):
        assert parse_path(str(path)) == path
    if KEYS.judge(info) is Trust.SIGNED:
        assert info.fingerprint() == SIGNED


def archive(data: bytes) -> None:
    """Read a NAR: taken exactly when the book takes it, in pieces of any size."""
    step, data = 1 + 13 * data[0] if data else 1, data[1:]
    try:
        validate(data, step)
        taken = True
    except NarError:
        taken = False
    assert taken == book_says(data)


def read(compression: str, body: bytes, step: int, room: int) -> bytes | None:
    """Decompress as the audit does; None for what is damaged. No more than `room` comes at once."""
    source, buffer, out = (
        decompressor(compression, Drip(body, step)),
        memoryview(bytearray(room)),
        bytearray(),
    )
    try:
        while len(out) < MOST and (count := source.readinto(buffer)):
            assert count <= room
            out += buffer[:count]
    except DecompressionError:
        return None
    return bytes(out)


def compression(data: bytes) -> None:
    """Decompress: the same in steps of any size, and whole only when the library by itself reads the same."""
    if len(data) < 3:
        return
    kind, step, room = KNOWN[data[0] % len(KNOWN)], 1 + data[1], 1 + 5 * data[2]
    body = data[3:]
    found = read(kind, body, 1 << 16, 1 << 17)
    if found is not None and len(found) >= MOST // 2:
        return
    assert read(kind, body, step, room) == found
    if found is not None:
        assert plainly(kind, body) == found


class _Bytes(Body):
    def __init__(self, data: bytes, url: str) -> None:
        self._inner = Drip(data, 1 << 16)
        self.hops = (Hop(url, 200),)

    def read(self, size: int, /) -> bytes:
        data = self._inner.read(size)
        self.received += len(data)
        return data

    def close(self) -> None:
        pass


class Shelf(BinaryCache):
    """A cache of one narinfo and one body, which lies wherever the narinfo says."""

    url = "file:///shelf"

    def __init__(self, info: bytes, body: bytes) -> None:
        self._info, self._body = info, body

    def get(self, location: str) -> Body:
        if location == f"{HASH}.narinfo":
            return _Bytes(self._info, location)
        if not location.startswith("nar/"):
            raise FetchError(Trouble.STATUS, "there is no such file", url=location, status=404)
        return _Bytes(self._body, location)


def found_ok(info: bytes, body: bytes) -> bool:
    """Audit, and give whether the body counts as good."""
    auditor = Auditor(Shelf(info, body), KEYS, attempts=1, sleep=lambda _: None)
    outcome = auditor.audit(Target(HASH))
    assert outcome.verdicts
    names = {verdict.code for verdict in outcome.verdicts}
    assert all(verdict.subject and verdict.summary for verdict in outcome.verdicts)
    return names == {codes.BODY_OK.name}


def damage(data: bytes) -> None:
    """Change a good body by a list of edits: good still only if the very NAR comes out, from the very file promised."""
    if len(data) < 2:
        return
    kind, with_file = KNOWN[data[0] % len(KNOWN)], bool(data[1] & 1)
    whole = WHOLE[kind]
    body = bytearray(whole)
    for at in range(2, len(data) - 3, 4):
        operation, place, value = data[at] % 5, int.from_bytes(data[at + 1 : at + 3], "big"), data[at + 3]
        place %= len(body) + 1
        match operation:
            case 0 if place < len(body):
                body[place] ^= value
            case 1:
                del body[place : place + 1 + value]
            case 2:
                body[place:place] = bytes([value])
            case 3:
                body += body[place : place + value]
            case 4:
                del body[place:]
    promise = Promise(nar=NAR, body=whole, compression=kind, file=with_file)
    text = promise.text() + f"Sig: key:{sign(SIGNED)}\n"
    ok = found_ok(text.encode(), bytes(body))
    if body == whole:
        assert ok
    elif ok:
        assert not with_file
        assert plainly(kind, bytes(body)) == NAR


def pipeline(data: bytes) -> None:
    """Audit any narinfo with any body: good only with its signature and the hash and size that it promises."""
    length = int.from_bytes(data[:2], "big")
    text, body = data[2 : 2 + length], data[2 + length :]
    if not found_ok(text, body):
        return
    info = parse_narinfo(text)
    assert info.fingerprint() == SIGNED or info.content_address
    plain = plainly(info.compression, body)
    assert (len(plain), hashlib.sha256(plain).digest()) == (info.nar_size, info.nar_hash.digest)
    assert book_says(plain)
    if info.file_hash is not None:
        assert hashlib.sha256(body).digest() == info.file_hash.digest


TARGETS: Final = {one.__name__: one for one in (narinfo, archive, compression, damage, pipeline)}


def seeds() -> dict[str, dict[str, bytes]]:
    """Give what each target's corpus began with, by name."""
    good = Promise(nar=NAR, body=NAR)
    signed = good.text() + f"Sig: key:{sign(SIGNED)}\n"
    attic = good.but(file=False).text() + f"Deriver: unknown-deriver\nSig: key:{sign(SIGNED)}\n"
    addressed = good.text() + f"CA: fixed:r:sha256:{hashlib.sha256(NAR).hexdigest()}\n"
    found: dict[str, dict[str, bytes]] = {
        "narinfo": {
            "signed": signed.encode(),
            "attic": attic.encode(),
            "addressed": addressed.encode(),
            "references": good.but(references=f"{HASH}-hello {HASH[::-1]}-b").text().encode(),
        },
        "archive": {
            "tree": b"\x20" + NAR,
            "file": b"\x00" + nar(b"abc"),
            "link": b"\x07" + nar(("->", b"/nix")),
            "empty": b"\xff" + nar({}),
        },
        "compression": {k: bytes([n, 40, 30]) + COMPRESS[k](NAR) for n, k in enumerate(KNOWN)},
        "damage": {k: bytes([n, n & 1, 0, 0, 40, 1]) for n, k in enumerate(KNOWN)},
        "pipeline": {},
    }
    for kind in KNOWN:
        body = COMPRESS[kind](NAR)
        text = Promise(nar=NAR, body=body, compression=kind).text() + f"Sig: key:{sign(SIGNED)}\n"
        found["pipeline"][kind] = len(text).to_bytes(2, "big") + text.encode() + body
    return found
