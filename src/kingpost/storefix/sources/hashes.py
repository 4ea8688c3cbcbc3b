"""Hashes as Nix writes them: hexadecimal, base 32, base 64, SRI (source: NixOS/nix src/libutil/hash.cc)."""

from __future__ import annotations

import base64
import binascii
from typing import Dict, Tuple

ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"
"""Nix's base 32: no e, o, u, t (source: src/libutil/base-nix-32.cc)."""

SIZES: Dict[str, int] = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}
"""Bytes of a digest. BLAKE3 is an experimental feature of Nix that Python has no implementation of."""

_DIGITS = {character: value for value, character in enumerate(ALPHABET)}


def to_nix32(digest: bytes) -> str:
    """Write bytes in Nix's base 32: the digits of a little-endian number, the most significant first."""
    number = int.from_bytes(digest, "little")
    length = (len(digest) * 8 + 4) // 5
    return "".join(ALPHABET[number >> (5 * place) & 31] for place in reversed(range(length)))


def from_nix32(text: str, size: int) -> bytes:
    """Read Nix's base 32.

    Args:
        text: The digits.
        size: Bytes expected.

    Raises:
        ValueError: Another length, a foreign character, or bits beyond `size`.

    """
    if len(text) != (size * 8 + 4) // 5:
        raise ValueError(f"{text!r} is no base-32 hash of {size} bytes")
    number = 0
    for character in text:
        if character not in _DIGITS:
            raise ValueError(f"{text!r} holds {character!r}, which is no digit of Nix's base 32")
        number = number << 5 | _DIGITS[character]
    try:
        return number.to_bytes(size, "little")
    except OverflowError:
        raise ValueError(f"{text!r} is larger than a hash of {size} bytes") from None


def parse(text: str) -> Tuple[str, bytes]:
    """Read a hash that names its algorithm: `sha256:` with hexadecimal, base 32 or 64, or `sha256-BASE64`.

    Returns:
        The algorithm and the digest.

    Raises:
        ValueError: It is none of these.

    """
    for separator in ":-":
        algorithm, found, value = text.partition(separator)
        if found and algorithm in SIZES:
            return algorithm, _digest(value, SIZES[algorithm], sri=separator == "-")
    raise ValueError(f"{text!r} names no hash algorithm of {', '.join(SIZES)}")


def _digest(value: str, size: int, *, sri: bool) -> bytes:
    try:
        if not sri and len(value) == size * 2:
            return binascii.unhexlify(value)
        if not sri and len(value) == (size * 8 + 4) // 5:
            return from_nix32(value, size)
        digest = base64.b64decode(value, validate=True)
    except ValueError as error:  # binascii.Error is one
        raise ValueError(f"{value!r} is no hash: {error}") from None
    if len(digest) != size:
        raise ValueError(f"{value!r} has {len(digest)} bytes, not {size}")
    return digest


def nar_hash(text: str) -> str:
    """Give a NAR hash in any spelling as the database spells it: `sha256:` and hexadecimal digits.

    Raises:
        ValueError: It is no SHA-256 hash; NAR hashes are nothing else.

    """
    algorithm, digest = parse(text)
    if algorithm != "sha256":
        raise ValueError(f"{text!r} is no SHA-256 hash, as NAR hashes are")
    return f"sha256:{digest.hex()}"


def compress(digest: bytes, size: int) -> bytes:
    """Fold a digest by xor, as store paths do (source: src/libutil/hash.cc, compressHash)."""
    folded = bytearray(size)
    for place, byte in enumerate(digest):
        folded[place % size] ^= byte
    return bytes(folded)
