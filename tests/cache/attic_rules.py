"""Attic's rules for tokens, written a second time from its source and sharing nothing with kingpost.

The source: token/src/lib.rs (claims, choice of an entry, permissions), attic/src/cache.rs (names),
server/src/access/http.rs (a bad token is anonymous), jwt-simple 0.11.9 (times, no tolerance). Only the
standard library is used, so that a mistake of PyJWT or of kingpost cannot hide here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import ClassVar

BITS = ("r", "w", "d", "cc", "cr", "cq", "cd")


class BadTokenError(Exception):
    """Attic would log "Ignoring bad JWT token" and treat the request as anonymous."""


@dataclass
class Verifier:
    """Attic's `Token::from_jwt` for HS256, or for RS256 with the public numbers of the key."""

    secret: bytes | None = None
    rsa: tuple[int, int] | None = None  # n, e
    issuer: str | None = None
    audiences: frozenset[str] | None = None

    SHA256_PREFIX: ClassVar[bytes] = bytes.fromhex("3031300d060960864801650304020105000420")

    def permissions(self, token: str, cache: str, now: int) -> frozenset[str]:
        """Give the bits that a token has on a cache; raises BadTokenError."""
        return choose(self.entries(token, now), cache)

    def entries(self, token: str, now: int) -> list[tuple[str, frozenset[str]]]:
        try:
            head, body, signature = token.split(".")
            header, claims = json.loads(unpadded(head)), json.loads(unpadded(body))
            signed = unpadded(signature)
        except ValueError as error:
            raise BadTokenError(f"not a JWT: {error}") from error
        if not isinstance(claims, dict):
            raise BadTokenError("claims are no object")
        self._check_header(header)
        self._check_signature(f"{head}.{body}".encode(), signed)
        self._check_times(claims, now)
        if self.issuer is not None and claims.get("iss") != self.issuer:
            raise BadTokenError("issuer")
        if self.audiences is not None:
            named = claims.get("aud", [])
            if not self.audiences & set([named] if isinstance(named, str) else named):
                raise BadTokenError("audience")
        return read_entries(claims)

    def _check_header(self, header):
        if header.get("alg") != ("HS256" if self.secret is not None else "RS256"):
            raise BadTokenError("algorithm")
        kind = header.get("typ")
        if kind is not None and kind.upper() != "JWT" and not kind.upper().endswith("+JWT"):
            raise BadTokenError("type")

    def _check_signature(self, text, signature):
        if self.secret is not None:
            if not hmac.compare_digest(hmac.digest(self.secret, text, "sha256"), signature):
                raise BadTokenError("signature")
            return
        n, e = self.rsa
        size = (n.bit_length() + 7) // 8
        digest = self.SHA256_PREFIX + hashlib.sha256(text).digest()
        padded = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
        if (
            len(signature) != size
            or pow(int.from_bytes(signature, "big"), e, n).to_bytes(size, "big") != padded
        ):
            raise BadTokenError("signature")

    @staticmethod
    def _check_times(claims, now):
        for name in ("iat", "exp", "nbf"):
            if name in claims and type(claims[name]) is not int:
                raise BadTokenError(f"{name} is no integer")
        if now < claims.get("iat", 0):
            raise BadTokenError("clock drift")
        if now > claims.get("exp", now):
            raise BadTokenError("expired")
        if now < claims.get("nbf", 0):
            raise BadTokenError("not valid yet")


def read_entries(claims: dict) -> list[tuple[str, frozenset[str]]]:
    """Decode the Attic claim as serde does: both levels required, bits are the integers 0 and 1."""
    try:
        caches = claims["https://jwt.attic.rs/v1"]["caches"]
        pairs = [(pattern, dict(bits)) for pattern, bits in caches.items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadTokenError("no Attic claim") from error
    entries = []
    for pattern, bits in pairs:
        if not re.fullmatch(r"[A-Za-z0-9*][A-Za-z0-9\-_+*]{0,49}", pattern):
            raise BadTokenError("pattern")
        for bit in BITS:
            if bit in bits and (type(bits[bit]) is not int or bits[bit] not in (0, 1)):
                raise BadTokenError("bit")
        entries.append((pattern, frozenset(bit for bit in BITS if bits.get(bit) == 1)))
    return entries


def choose(entries: list[tuple[str, frozenset[str]]], cache: str) -> frozenset[str]:
    """Give the permissions of the exact entry, else of the first that matches, else none."""
    for pattern, bits in entries:
        if pattern == cache:
            return bits
    for pattern, bits in entries:
        if glob(pattern, cache):
            return bits
    return frozenset()


def glob(pattern: str, name: str) -> bool:
    """Match as the crate `wildmatch` does: `*` is any characters or none."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def unpadded(text: str) -> bytes:
    """Decode unpadded base64url, strictly."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise ValueError("not base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
