"""A `.narinfo`: what a binary cache says of a path (source: NixOS/nix src/libstore/nar-info.cc)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

from ..errors import ContentError
from ..interface import BASE_NAME, PathInfo
from . import hashes

_ONCE = ("StorePath", "URL", "Compression", "FileHash", "FileSize", "NarHash", "NarSize", "References", "CA")
_REQUIRED = ("StorePath", "URL", "NarHash", "NarSize")
LARGEST = 1 << 22
"""Bytes of a narinfo that are read at most: references of the largest known closures take a tenth."""


@dataclass(frozen=True)
class NarInfo:
    """A parsed narinfo.

    Attributes:
        info: What the database would know of the path; `ultimate` and `registered` are not in a narinfo.
        url: Where the NAR is, relative to the cache unless absolute.
        compression: `xz`, `zstd`, `none`…; `bzip2` if the narinfo does not say.
        file_size: Bytes of the compressed NAR; 0 is unknown. Caches have been seen to be wrong here.

    """

    info: PathInfo
    url: str
    compression: str
    file_size: int


def parse(text: str, store_dir: str) -> NarInfo:
    """Read a narinfo.

    Args:
        text: The file.
        store_dir: The logical store directory that its paths must be in.

    Raises:
        ContentError: It is corrupt, an HTML page for instance, or for another store.

    """
    fields, sigs = _fields(text)
    missing = [name for name in _REQUIRED if not fields.get(name)]
    if missing:
        raise ContentError(f"the narinfo has no {' and no '.join(missing)}")
    head, _, base_name = fields["StorePath"].rpartition("/")
    if head != store_dir:
        raise ContentError(f"the narinfo is for the store {head!r}, not {store_dir!r}")
    names = (base_name, *fields.get("References", "").split())
    deriver = fields.get("Deriver", "")
    if deriver == "unknown-deriver":
        deriver = ""
    for name in (*names, *([deriver] if deriver else [])):
        if not BASE_NAME.fullmatch(name):
            raise ContentError(f"the narinfo names {name!r}, which is no name of a store path")
    nar_size = _number(fields, "NarSize")
    if nar_size == 0:
        raise ContentError("the narinfo says that the NAR is empty")
    try:
        nar_hash = hashes.nar_hash(fields["NarHash"])
    except ValueError as error:
        raise ContentError("the narinfo's NarHash cannot be read", why=str(error)) from None
    info = PathInfo(
        path=f"{store_dir}/{base_name}",
        nar_hash=nar_hash,
        nar_size=nar_size,
        references=tuple(sorted({f"{store_dir}/{name}" for name in names[1:]})),
        deriver=f"{store_dir}/{deriver}" if deriver else "",
        sigs=sigs,
        ca=fields.get("CA", ""),
    )
    return NarInfo(info, fields["URL"], fields.get("Compression") or "bzip2", _number(fields, "FileSize"))


def _fields(text: str) -> Tuple[Dict[str, str], Tuple[str, ...]]:
    fields: Dict[str, str] = {}
    sigs = []
    if not text.endswith("\n"):
        raise ContentError("the narinfo is cut off: its last line does not end")
    for number, line in enumerate(text[:-1].split("\n"), 1):
        name, colon, value = line.partition(":")
        if not colon or (value and not value.startswith(" ")):
            raise ContentError(f"line {number} of the narinfo is not `Name: value`", why=repr(line[:80]))
        value = value[1:]
        if name == "Sig":
            sigs.append(value)
        elif name in _ONCE and name in fields:
            raise ContentError(f"the narinfo says {name} twice")
        else:
            fields[name] = value
    return fields, tuple(dict.fromkeys(sigs))


def _number(fields: Dict[str, str], name: str) -> int:
    value = fields.get(name, "0")
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise ContentError(f"the narinfo's {name} is no number: {value[:40]!r}")
    return int(value)
