"""narinfo files: what a cache promises of one store path.

Read as Nix reads them (NixOS/nix src/libstore/nar-info.cc): unknown keys are ignored, a missing `Compression` means
bzip2, `unknown-deriver` means none. Attic gives neither FileHash nor FileSize (facts: server/src/narinfo/mod.rs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kingpost.cache.hashes import Hash, parse
from kingpost.cache.storepath import StorePath, parse_base, parse_path

#: No narinfo is larger: Attic's own default limit is 1 MiB, and 60,000 references fit.
MAX_BYTES: Final = 4 * 1024 * 1024
_MAX_SIZE: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class NarInfo:
    """A parsed narinfo. Sizes are bytes; `file_size` and `file_hash` are those of the compressed file.

    Attributes:
        path: The store path.
        url: Where the NAR is, relative to the cache, or absolute.
        compression: `none`, `xz`, `bzip2`, `zstd`, `br`, `gzip` or what else the file says.
        nar_hash: Of the uncompressed NAR.
        nar_size: Likewise.
        references: Base names.
        signatures: `NAME:BASE64` each.
        file_hash: None when not given.
        file_size: None when not given.
        deriver: Base name; empty when not given.
        content_address: The `CA` line; empty when not given.

    """

    path: StorePath
    url: str
    compression: str
    nar_hash: Hash
    nar_size: int
    references: tuple[StorePath, ...] = ()
    signatures: tuple[str, ...] = ()
    file_hash: Hash | None = None
    file_size: int | None = None
    deriver: str = ""
    content_address: str = ""

    def fingerprint(self) -> str:
        """Give the text that a cache's key signs (NixOS/nix src/libstore/path-info.cc)."""
        references = ",".join(str(reference) for reference in sorted(self.references))
        return f"1;{self.path};{self.nar_hash.nix32()};{self.nar_size};{references}"


class NarInfoError(ValueError):
    """It is no narinfo that Nix would take; the message says why."""


def parse_narinfo(text: str | bytes) -> NarInfo:
    """Read a narinfo.

    Raises:
        NarInfoError: Something is missing, malformed, or there twice.

    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise NarInfoError(f"it is not UTF-8 text: byte {error.start}") from error
    single, signatures = _lines(text)
    for key in ("StorePath", "URL", "NarHash", "NarSize"):
        if not single.get(key):
            raise NarInfoError(f"it has no {key}")
    try:
        path = parse_path(single["StorePath"])
        references = tuple(parse_base(base, path.store) for base in single.get("References", "").split())
        nar_hash = parse(single["NarHash"])
        file_hash = parse(single["FileHash"]) if single.get("FileHash") else None
    except ValueError as error:
        raise NarInfoError(str(error)) from error
    if nar_hash.algorithm != "sha256":
        raise NarInfoError(f"its NarHash is {nar_hash.algorithm}, and Nix takes only sha256")
    deriver = single.get("Deriver", "")
    return NarInfo(
        path=path,
        url=single["URL"],
        compression=single.get("Compression") or "bzip2",
        nar_hash=nar_hash,
        nar_size=_size("NarSize", single["NarSize"], least=1),
        references=references,
        signatures=tuple(signatures),
        file_hash=file_hash,
        file_size=_size("FileSize", single["FileSize"]) if single.get("FileSize") else None,
        deriver="" if deriver == "unknown-deriver" else deriver,
        content_address=single.get("CA", ""),
    )


def _lines(text: str) -> tuple[dict[str, str], list[str]]:
    """Split a narinfo into its single-valued lines and its signatures."""
    if not text.strip():
        raise NarInfoError("it is empty")
    if not text.endswith("\n"):
        raise NarInfoError("its last line does not end: it is cut off")
    single: dict[str, str] = {}
    signatures: list[str] = []
    for number, line in enumerate(text[:-1].split("\n"), start=1):
        key, colon, value = line.partition(":")
        if not colon:
            raise NarInfoError(f"line {number} has no colon: {line[:60]!r}")
        value = value.removeprefix(" ")
        if key == "Sig":
            signatures.append(value)
        elif key in single and key != "References":
            raise NarInfoError(f"line {number} gives {key} a second time")
        else:
            single[key] = value
    return single, signatures


def _size(key: str, text: str, *, least: int = 0) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 19 or not least <= int(text) <= _MAX_SIZE:
        raise NarInfoError(f"its {key} is no size in bytes: {text[:40]!r}")
    return int(text)
