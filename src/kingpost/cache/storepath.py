"""Store paths: `/nix/store/HASH-NAME`, and the path that a content address must have.

Source of the rules: NixOS/nix src/libstore/path.cc and store-dir-config.cc (`makeFixedOutputPath`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kingpost.cache.hashes import ALPHABET, nix32, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

HASH_LENGTH: Final = 32
DEFAULT_STORE: Final = "/nix/store"

_HASH: Final = re.compile(rf"[{ALPHABET}]{{{HASH_LENGTH}}}")
_NAME: Final = re.compile(r"(?!\.\.?(-|$))[0-9a-zA-Z+\-._?=]{1,211}")


@dataclass(frozen=True, slots=True, order=True)
class StorePath:
    """A store path.

    Attributes:
        hash_part: 32 letters; the key of a cache's narinfo.
        name: What follows the hyphen.
        store: The store directory.

    """

    hash_part: str
    name: str
    store: str = DEFAULT_STORE

    @property
    def base(self) -> str:
        """`HASH-NAME`, as references are written in a narinfo."""
        return f"{self.hash_part}-{self.name}"

    def __str__(self) -> str:
        return f"{self.store}/{self.hash_part}-{self.name}"


def is_hash_part(text: str) -> bool:
    """Tell whether a text is the hash part of a store path."""
    return _HASH.fullmatch(text) is not None


def parse_base(text: str, store: str = DEFAULT_STORE) -> StorePath:
    """Read `HASH-NAME`.

    Raises:
        ValueError: It is no base name of a store path.

    """
    hash_part, hyphen, name = text[:HASH_LENGTH], text[HASH_LENGTH : HASH_LENGTH + 1], text[HASH_LENGTH + 1 :]
    if hyphen != "-" or not _HASH.fullmatch(hash_part) or not _NAME.fullmatch(name):
        raise ValueError(f"{text[:300]!r} is no base name of a store path")
    return StorePath(hash_part, name, store)


def parse_path(text: str) -> StorePath:
    """Read an absolute store path in whatever store directory it is.

    Raises:
        ValueError: It is no store path.

    """
    store, slash, base = text.rpartition("/")
    if not slash or not store.startswith("/"):
        raise ValueError(f"{text[:300]!r} is no absolute store path")
    return parse_base(base, store)


def from_content_address(
    content_address: str, name: str, references: Sequence[str], store: str = DEFAULT_STORE
) -> StorePath | None:
    """Give the store path that a content address stands for; None for a form that is not known.

    Args:
        content_address: The narinfo's `CA`: `text:sha256:…`, `fixed:sha256:…` or `fixed:r:sha256:…`.
        name: The path's name.
        references: Full paths of the references; a path that refers to itself is not handled (None).
        store: The store directory.

    """
    method, _, rest = content_address.partition(":")
    recursive = rest.startswith("r:")
    try:
        digest = parse(rest.removeprefix("r:"))
    except ValueError:
        return None
    if any(reference.endswith(f"-{name}") for reference in references):
        return None
    sha256 = digest.algorithm == "sha256"
    plain = f"{digest.algorithm}:{digest.digest.hex()}"
    if method == "text" and sha256 and not recursive:
        return _make(":".join(["text", *sorted(references)]), plain, name, store)
    if method == "fixed" and sha256 and recursive:
        return _make(":".join(["source", *sorted(references)]), plain, name, store)
    if method == "fixed" and not references:
        inner = hashlib.sha256(f"fixed:out:{'r:' if recursive else ''}{plain}:".encode())
        return _make("output:out", f"sha256:{inner.hexdigest()}", name, store)
    return None


def _make(kind: str, digest: str, name: str, store: str) -> StorePath:
    full = hashlib.sha256(f"{kind}:{digest}:{store}:{name}".encode()).digest()
    folded = bytearray(20)
    for index, byte in enumerate(full):
        folded[index % 20] ^= byte
    return StorePath(nix32(bytes(folded)), name, store)
