"""NARs and narinfos made by the book, to compare kingpost's fast reading with."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from kingpost.cache.hashes import Hash, nix32
from kingpost.cache.nar import HEADROOM, NarValidator

#: `KINGPOST_FUZZ=100 pytest tests/cache tests/observe/test_audit.py` soaks for hours instead of seconds.
SOAK = int(os.environ.get("KINGPOST_FUZZ", "1"))

HASH = "8iv5j0f2difw6wg9vwj9r2raacb08fkv"


def word(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text + bytes(-len(text) % 8)


def node(tree) -> bytes:
    """A tree is bytes (a file), ("x", bytes) (executable), ("->", bytes) (symlink) or a dict (directory)."""
    match tree:
        case bytes():
            inner = word(b"regular") + word(b"contents") + word(tree)
        case ("x", contents):
            inner = word(b"regular") + word(b"executable") + word(b"") + word(b"contents") + word(contents)
        case ("->", target):
            inner = word(b"symlink") + word(b"target") + word(target)
        case dict():
            inner = word(b"directory") + b"".join(
                word(b"entry")
                + word(b"(")
                + word(b"name")
                + word(name)
                + word(b"node")
                + node(child)
                + word(b")")
                for name, child in sorted(tree.items())
            )
    return word(b"(") + word(b"type") + inner + word(b")")


def nar(tree) -> bytes:
    return word(b"nix-archive-1") + node(tree)


contents = st.one_of(st.binary(max_size=40), st.integers(0, 9000).map(bytes))
names = st.binary(min_size=1, max_size=20).filter(
    lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
)
targets = st.binary(min_size=1, max_size=40).filter(lambda t: b"\0" not in t)
leaves = st.one_of(contents, contents.map(lambda c: ("x", c)), targets.map(lambda t: ("->", t)))
trees = st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=5), max_leaves=12)


def validate(data: bytes, size: int = 4096) -> NarValidator:
    """Feed a NAR in pieces of a size, as the audit does; raises NarError."""
    validator = NarValidator()
    buffer = bytearray(HEADROOM + size)
    kept = 0
    for at in range(0, len(data), size):
        piece = data[at : at + size]
        buffer[kept : kept + len(piece)] = piece
        kept = validator.feed(buffer, kept + len(piece))
        assert kept <= HEADROOM
    validator.finish(kept)
    return validator


def book_says(data: bytes) -> bool:  # noqa: C901 - the whole format in one place
    """Read a NAR word by word, slowly and plainly; tell whether it is one."""
    position = 0

    def take(most=None):
        nonlocal position
        size = int.from_bytes(data[position : position + 8], "little")
        stop = position + 8 + size
        text, padding = data[position + 8 : stop], data[stop : stop + -size % 8]
        if len(data) < position + 8 or len(text) < size or padding != bytes(-size % 8):
            raise ValueError
        if most is not None and not 0 < size <= most:
            raise ValueError
        position = stop + -size % 8
        return text

    def expect(*words):
        for one in words:
            if take() != one:
                raise ValueError

    def read_node(depth):  # noqa: C901 - likewise
        if depth > 500:
            raise ValueError
        expect(b"(", b"type")
        match take():
            case b"regular":
                first = take()
                if first == b"executable":
                    expect(b"", b"contents")
                elif first != b"contents":
                    raise ValueError
                take()
                expect(b")")
            case b"symlink":
                expect(b"target")
                if b"\0" in take(4096):
                    raise ValueError
                expect(b")")
            case b"directory":
                last = b""
                while (following := take()) != b")":
                    if following != b"entry":
                        raise ValueError
                    expect(b"(", b"name")
                    name = take(4096)
                    if name <= last or b"/" in name or b"\0" in name or name in (b".", b".."):
                        raise ValueError
                    last = name
                    expect(b"node")
                    read_node(depth + 1)
                    expect(b")")
            case _:
                raise ValueError

    try:
        expect(b"nix-archive-1")
        read_node(0)
    except ValueError:
        return False
    return position == len(data)


@dataclass(frozen=True)
class Promise:
    """A narinfo to be written, with lines that can be left out (None)."""

    body: bytes = b""
    path: str = f"/nix/store/{HASH}-hello"
    url: str = f"nar/{HASH}.nar"
    compression: str | None = "none"
    nar: bytes = b""
    references: str = ""
    file: bool = True
    extra: str = ""

    def text(self) -> str:
        digest = Hash("sha256", hashlib.sha256(self.nar).digest())
        lines = [f"StorePath: {self.path}", f"URL: {self.url}"]
        if self.compression is not None:
            lines.append(f"Compression: {self.compression}")
        if self.file:
            lines.append(f"FileHash: sha256:{nix32(hashlib.sha256(self.body).digest())}")
            lines.append(f"FileSize: {len(self.body)}")
        lines += [f"NarHash: {digest}", f"NarSize: {len(self.nar)}", f"References: {self.references}"]
        return "\n".join(lines) + "\n" + self.extra

    def but(self, **changes) -> Promise:
        return replace(self, **changes)
