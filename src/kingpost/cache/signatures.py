"""Signatures of narinfo files: Ed25519 over the fingerprint, by keys known by name."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from kingpost.base.errors import InvalidInputError
from kingpost.cache.storepath import from_content_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from kingpost.cache.narinfo import NarInfo


class Trust(StrEnum):
    """What a narinfo's signatures are worth, given the keys that one trusts."""

    SIGNED = "signed"
    CONTENT_ADDRESSED = "content-addressed"
    NOT_CHECKED = "not-checked"
    UNSIGNED = "unsigned"
    OTHER_KEY = "other-key"
    INVALID = "invalid"

    @property
    def good(self) -> bool:
        """Whether Nix with these keys would take the path."""
        return self in (Trust.SIGNED, Trust.CONTENT_ADDRESSED, Trust.NOT_CHECKED)


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Public keys by their names; without any, nothing is checked."""

    keys: Mapping[str, Ed25519PublicKey]

    def judge(self, info: NarInfo) -> Trust:
        """Tell what a narinfo's signatures are worth.

        A path whose content address leads to just this path needs no signature, as in Nix
        (src/libstore/path-info.cc, `isContentAddressed`).
        """
        if not self.keys:
            return Trust.NOT_CHECKED
        if _content_addressed(info):
            return Trust.CONTENT_ADDRESSED
        if not info.signatures:
            return Trust.UNSIGNED
        known = [one for one in info.signatures if one.partition(":")[0] in self.keys]
        if not known:
            return Trust.OTHER_KEY
        fingerprint = info.fingerprint().encode()
        return Trust.SIGNED if any(self._verifies(one, fingerprint) for one in known) else Trust.INVALID

    def _verifies(self, signature: str, fingerprint: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - slow to import

        name, _, encoded = signature.partition(":")
        try:
            self.keys[name].verify(base64.b64decode(encoded, validate=True), fingerprint)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


def trusted_keys(texts: Iterable[str]) -> TrustedKeys:
    """Read public keys written `NAME:BASE64`, as in nix.conf's `trusted-public-keys`.

    Raises:
        InvalidInputError: One of them is no public key.

    """
    keys: dict[str, Ed25519PublicKey] = {}
    for text in texts:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - slow to import
            Ed25519PublicKey,
        )

        name, _, encoded = text.strip().partition(":")
        try:
            keys[name] = Ed25519PublicKey.from_public_bytes(_public(name, encoded))
        except (ValueError, binascii.Error) as error:
            shown = f"{name}:…" if name else "the key"
            raise InvalidInputError(
                f"{shown} is no public key of a binary cache",
                why=str(error),
                fix="write NAME:BASE64 with 32 bytes of key, as `attic cache info` or `nix key` prints it",
            ) from error
    return TrustedKeys(keys)


def _public(name: str, encoded: str) -> bytes:
    raw = base64.b64decode(encoded, validate=True)
    if len(raw) == 64:
        raise ValueError("64 bytes are a secret key: keep it out of command lines and make a new one")
    if not name:
        raise ValueError("it has no name")
    return raw


def _content_addressed(info: NarInfo) -> bool:
    if not info.content_address:
        return False
    references = [str(reference) for reference in info.references]
    path = info.path
    return from_content_address(info.content_address, path.name, references, path.store) == path
