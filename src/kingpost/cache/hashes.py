"""Hashes as Nix writes them: base 16, Nix's own base 32, base 64 and SRI.

Source of the base 32: NixOS/nix src/libutil/hash.cc and base-nix-32.cc. Its alphabet omits e, o, t and u, and the
digest is read from its last bit to its first.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

ALPHABET: Final = "0123456789abcdfghijklmnpqrsvwxyz"
# To the digits that `int` knows; whatever is no letter of Nix's becomes what is no digit of `int`'s either.
_TO_DIGITS: Final = dict.fromkeys(range(128), "!") | {
    ord(letter): digit for letter, digit in zip(ALPHABET, "0123456789abcdefghijklmnopqrstuv", strict=True)
}

#: Bytes of a digest by algorithm.
SIZES: Final = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}


@dataclass(frozen=True, slots=True)
class Hash:
    """A digest and its algorithm's name."""

    algorithm: str
    digest: bytes

    def nix32(self) -> str:
        """Give `sha256:1b8m…`, the form of narinfo files and signatures."""
        return f"{self.algorithm}:{nix32(self.digest)}"

    def hex(self) -> str:
        """Give `sha256:HEX`."""
        return f"{self.algorithm}:{self.digest.hex()}"

    def sri(self) -> str:
        """Give `sha256-…=`."""
        return f"{self.algorithm}-{base64.b64encode(self.digest).decode()}"

    def __str__(self) -> str:
        return self.nix32()


def nix32(data: bytes) -> str:
    """Encode bytes in Nix's base 32; 20 bytes give 32 letters, 32 bytes give 52."""
    length = (len(data) * 8 + 4) // 5
    number = int.from_bytes(data, "little")
    return "".join(ALPHABET[number >> 5 * place & 31] for place in range(length - 1, -1, -1))


def from_nix32(text: str) -> bytes:
    """Decode Nix's base 32.

    Raises:
        ValueError: A letter outside the alphabet, a length that no digest has, or bits beyond the last byte.

    """
    digits = text.translate(_TO_DIGITS) if text.isascii() else "!"
    if "!" in digits:
        raise ValueError(f"{text!r} is not written in Nix's base 32")
    number = int(digits or "0", 32)
    size = len(text) * 5 // 8
    if (size * 8 + 4) // 5 != len(text) or number >> size * 8:
        raise ValueError(f"{text!r} is no whole number of bytes in Nix's base 32")
    return number.to_bytes(size, "little")


def parse(text: str) -> Hash:
    """Read a hash in any of Nix's forms: `sha256:HEX`, `sha256:NIX32`, `sha256:BASE64`, `sha256-BASE64`.

    Raises:
        ValueError: It is none of these; the message says what is wrong.

    """
    algorithm, separator, encoded = text.partition(":")
    if not separator:
        algorithm, separator, encoded = text.partition("-")
    if algorithm not in SIZES:
        raise ValueError(f"{text!r} does not begin with a hash algorithm such as sha256:")
    size = SIZES[algorithm]
    try:
        if len(encoded) == size * 2 and separator == ":":
            digest = bytes.fromhex(encoded)
        elif len(encoded) == (size * 8 + 4) // 5 and separator == ":":
            digest = from_nix32(encoded)
        else:
            digest = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"{text!r} is no {algorithm} hash: {error}") from error
    if len(digest) != size:
        raise ValueError(f"{text!r} is no {algorithm} hash: it has {len(digest)} bytes, not {size}")
    return Hash(algorithm, digest)
