"""Whether an answer of a source may be registered, and why.

An answer is trusted if one of these holds, as in Nix (source: NixOS/nix src/libstore/path-info.cc):
it has the hash that our own database knows; its path is computed from its content address (`ca`), whose hash
the bytes must then meet; a trusted key has signed it; or signatures are not required.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from typing import TYPE_CHECKING, Callable, List, Mapping, Optional, Tuple

from ..errors import ContentError, UntrustedError
from ..nar import dump
from . import ed25519, hashes
from .nar_parser import BLOCK

if TYPE_CHECKING:
    from pathlib import Path

    from ..interface import PathInfo, Wanted


def fingerprint(info: PathInfo) -> bytes:
    """Give the text that a signature is over."""
    _, digest = hashes.parse(info.nar_hash)
    references = ",".join(sorted(info.references))
    return f"1;{info.path};sha256:{hashes.to_nix32(digest)};{info.nar_size};{references}".encode()


def signed_by(info: PathInfo, keys: Mapping[str, str]) -> str:
    """Give the name of the first trusted key that has signed this; empty if none has.

    Args:
        info: The answer.
        keys: Key name to the base64 text of its public key.

    """
    message = fingerprint(info)
    for sig in info.sigs:
        name, _, text = sig.partition(":")
        if name in keys and ed25519.verify(_base64(keys[name]), message, _base64(text)):
            return name
    return ""


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def check(info: PathInfo, wanted: Wanted, keys: Mapping[str, str], *, require_sigs: bool, where: str) -> None:
    """Make sure that an answer may be registered once its bytes have proven to be what it says.

    Raises:
        UntrustedError: Nothing speaks for it; says which keys have signed it.

    """
    if not require_sigs or info.nar_hash == wanted.nar_hash:
        return
    if info.ca and content_addressed(info):
        return
    if signed_by(info, keys):
        return
    signers = ", ".join(sorted({sig.partition(":")[0] for sig in info.sigs})) or "nobody"
    trusted = ", ".join(sorted(keys)) or "none"
    differs = (
        f"; and its hash is {info.nar_hash}, while this store's database says {wanted.nar_hash}"
        if wanted.nar_hash
        else ""
    )
    raise UntrustedError(
        f"{info.path} is not signed by a trusted key",
        where=where,
        why=f"signed by {signers}; trusted-public-keys: {trusted}{differs}",
        fix="add the key to trusted-public-keys in nix.conf if it is yours, or pass --no-check-sigs",
    )


_TEXT, _FLAT, _NAR = "text", "flat", "nar"


def _method(ca: str) -> Optional[Tuple[str, str, bytes]]:
    """Read a content address: method, algorithm, digest; None for one that we do not know."""
    kind, _, rest = ca.partition(":")
    method = {"text": _TEXT, "fixed": _FLAT}.get(kind)
    if method == _FLAT and rest.startswith("r:"):
        method, rest = _NAR, rest[2:]
    try:
        algorithm, digest = hashes.parse(rest)
    except ValueError:
        return None
    return (method, algorithm, digest) if method else None


def content_addressed(info: PathInfo) -> bool:
    """Tell whether the path is the one that its content address and references give.

    Then only bytes of that hash can be there, and nobody has to vouch for them: see `check_content`.
    Source: src/libstore/store-dir-config.cc, makeFixedOutputPathFromCA.
    """
    read = _method(info.ca)
    if read is None:
        return False
    method, algorithm, digest = read
    store_dir, _, base_name = info.path.rpartition("/")
    name = base_name[33:]
    others = [reference for reference in sorted(info.references) if reference != info.path]
    self_reference = len(others) != len(info.references)
    if method == _TEXT:
        if algorithm != "sha256" or self_reference:
            return False
        path = _store_path(":".join(["text", *others]), digest, store_dir, name)
    elif method == _NAR and algorithm == "sha256":
        kind = ":".join(["source", *others, *(["self"] if self_reference else [])])
        path = _store_path(kind, digest, store_dir, name)
    else:
        if info.references:
            return False
        prefix = "r:" if method == _NAR else ""
        inner = hashlib.sha256(f"fixed:out:{prefix}{algorithm}:{digest.hex()}:".encode()).digest()
        path = _store_path("output:out", inner, store_dir, name)
    return path == info.path


def _store_path(kind: str, digest: bytes, store_dir: str, name: str) -> str:
    text = f"{kind}:sha256:{digest.hex()}:{store_dir}:{name}"
    folded = hashes.compress(hashlib.sha256(text.encode()).digest(), 20)
    return f"{store_dir}/{hashes.to_nix32(folded)}-{name}"


def check_content(info: PathInfo, unpacked: Path) -> None:
    """Make sure that unpacked bytes meet the content address.

    Without a `ca`, or with one of a kind that Python cannot compute (git, BLAKE3), there is nothing to check:
    such an answer was trusted for its hash or signature.

    Raises:
        ContentError: They do not.
        OSError: They cannot be read.

    """
    read = _method(info.ca)
    if read is None:
        return
    method, algorithm, digest = read
    hasher = hashlib.new(algorithm)
    without_places = b""
    if method != _NAR:
        _hash_file(unpacked, info.path, hasher.update)
    elif info.path in info.references:
        places = _hash_modulo(unpacked, info.path.rpartition("/")[2][:32].encode(), hasher.update)
        without_places = hasher.digest()
        hasher.update(places)
    else:
        dump(os.fsencode(unpacked), hasher.update)
    if digest not in (hasher.digest(), without_places):
        raise ContentError(
            f"the contents do not meet the content address {info.ca}",
            where=info.path,
            why=f"they have {algorithm}:{hasher.hexdigest()}",
        )


def _hash_file(path: Path, name: str, update: Callable[[bytes], object]) -> None:
    if path.is_symlink() or not path.is_file():
        raise ContentError("the content address is of a single file, and this is none", where=name)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            update(block)


def _hash_modulo(path: Path, hash_part: bytes, update: Callable[[bytes], object]) -> bytes:
    """Hash with every occurrence of the path's own hash zeroed, and give the text of their places.

    Nix hashes that text too, but the versions after 3ebe1341ab and before 0c41ecb451 (2.34 among them) forget
    it, so both hashes are in the wild. Source: src/libstore/references.cc, HashModuloSink.
    """
    places: List[int] = []
    tail = b""
    begin = 0  # of tail in the NAR
    keep = len(hash_part) - 1

    def write(block: bytes) -> None:
        nonlocal tail, begin
        data = bytearray(tail)
        data += block
        at = data.find(hash_part)
        while at >= 0:
            places.append(begin + at)
            data[at : at + len(hash_part)] = bytes(len(hash_part))
            at = data.find(hash_part, at)
        done = max(0, len(data) - keep)
        update(bytes(data[:done]))
        tail = bytes(data[done:])
        begin += done

    dump(os.fsencode(path), write)
    update(tail)
    return b"".join(b"|%d" % place for place in places)
