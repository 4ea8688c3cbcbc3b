"""What a token says, in words, and whether Attic would believe it. Nothing here shows a token itself."""

from __future__ import annotations

import base64
import json
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import UsageError
from kingpost.base.units import format_duration
from kingpost.cache import token_codes as codes
from kingpost.cache.token import BY_BIT, CLAIM, Permission, Permissions
from kingpost.cache.token_patterns import chosen, intersection, is_pattern, matches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kingpost.base.verdict import Verdict
    from kingpost.cache.token_keys import SigningKey

#: jwt-simple 0.11.9: `typ` may be absent, JWT, or end in +JWT.
_TYPE: Final = "JWT"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A token without its signature.

    Attributes:
        algorithm: As the header names it.
        kind: The header's `typ`, or "".
        claims: All claims.

    """

    algorithm: str
    kind: str
    claims: Mapping[str, Any]

    @property
    def entries(self) -> dict[str, Permissions] | None:
        """Give permissions by pattern in the token's order; None when Attic cannot read them."""
        attic = self.claims.get(CLAIM)
        caches = attic.get("caches") if isinstance(attic, dict) else None
        if not isinstance(caches, dict):
            return None
        found = {}
        for pattern, bits in caches.items():
            if not is_pattern(pattern) or not isinstance(bits, dict):
                return None
            known = {bit: value for bit, value in bits.items() if bit in BY_BIT}
            if any(type(value) is not int or value not in (0, 1) for value in known.values()):
                return None
            found[pattern] = frozenset(BY_BIT[bit] for bit, value in known.items() if value)
        return found

    def permissions(self, cache: str) -> Permissions:
        """Give what the token grants on one cache, by Attic's choice of an entry."""
        picked = chosen(self.entries or {}, cache)
        return picked[1] if picked else frozenset()


def decode(token: str) -> Decoded | None:
    """Read a token without verifying it; None when it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        header, claims = (json.loads(_unpadded(part)) for part in parts[:2])
    except ValueError:
        return None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        return None
    return Decoded(str(header.get("alg", "")), str(header.get("typ", "")), claims)


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def judge(
    token: str, subject: str, now: int, *, key: SigningKey | None = None, clock: str = "this host's clock"
) -> list[Verdict]:
    """Give the verdicts on a token: form, life, entries and, with a key, the signature.

    Args:
        token: The token.
        subject: What to call it in the verdicts: where it came from.
        now: Seconds since 1970 by the clock to judge by.
        key: The server's signing key, when it is known.
        clock: Whose clock `now` is.

    """
    decoded = decode(token)
    if decoded is None:
        return [
            codes.MALFORMED.verdict(
                subject, "this is no JWT: three base64url parts, two of them JSON objects"
            )
        ]
    found: list[Verdict] = []
    if problem := _algorithm_problem(decoded, key):
        found.append(
            codes.ALGORITHM.verdict(subject, problem, {"alg": decoded.algorithm, "typ": decoded.kind})
        )
    found += _times(decoded, subject, now, clock)
    entries = decoded.entries
    if entries is None:
        found.append(codes.CLAIM.verdict(subject, "Attic cannot read the permissions in this token"))
    else:
        found += _shadows(entries, subject)
    if key is not None and not any(verdict.code == codes.ALGORITHM.name for verdict in found):
        signed = verifies(token, key)
        found.append(
            codes.SIGNED.verdict(subject, f"the signature verifies with the key from {key.origin}")
            if signed
            else codes.SIGNATURE.verdict(
                subject, f"the signature does not verify with the key from {key.origin}"
            )
        )
    if not any(verdict.status == "failed" for verdict in found):
        life = life_in_words(decoded, now)
        found.insert(
            0, codes.USABLE.verdict(subject, f"{life}, by {clock}", {"grants": in_words(entries or {})})
        )
    return found


def verifies(token: str, key: SigningKey) -> bool:
    """Tell whether a key's signature is on a token; times and claims are not looked at."""
    import jwt  # noqa: PLC0415 - slow to import

    try:
        with warnings.catch_warnings():
            # PyJWT warns of short keys; SigningKey.weaknesses says it to the user in our own words.
            warnings.simplefilter("ignore")
            jwt.PyJWS().decode(token, key.verification_material(), algorithms=[key.algorithm])
    except jwt.PyJWTError:
        return False
    return True


def _algorithm_problem(decoded: Decoded, key: SigningKey | None) -> str:
    if decoded.algorithm not in ("HS256", "RS256"):
        return f"the token is signed with {decoded.algorithm or 'nothing'}; Attic takes HS256 or RS256"
    if key is not None and decoded.algorithm != key.algorithm:
        return (
            f"the token is signed with {decoded.algorithm}; the key from {key.origin} is for {key.algorithm}"
        )
    if decoded.kind and decoded.kind.upper() != _TYPE and not decoded.kind.upper().endswith("+" + _TYPE):
        return f"the header's type is {decoded.kind}; Attic takes JWT"
    return ""


def _times(decoded: Decoded, subject: str, now: int, clock: str) -> list[Verdict]:
    times = {name: decoded.claims[name] for name in ("nbf", "iat", "exp") if name in decoded.claims}
    if wrong := [name for name, value in times.items() if type(value) is not int]:
        return [codes.CLAIM.verdict(subject, f"{', '.join(wrong)} is no whole number of seconds")]
    found = [
        codes.NOT_YET.verdict(
            subject,
            f"valid only in {format_duration(times[name] - now)} ({name} {_date(times[name])}), by {clock}",
            {name: times[name], "now": now},
        )
        for name in ("nbf", "iat")
        if now < times.get(name, now)
    ]
    if "exp" not in times:
        found.append(codes.NO_EXPIRY.verdict(subject, "the token never expires"))
    elif now > times["exp"]:
        ago = format_duration(now - times["exp"])
        found.append(
            codes.EXPIRED.verdict(
                subject,
                f"expired {ago} ago ({_date(times['exp'])}), by {clock}",
                {"exp": times["exp"], "now": now},
            )
        )
    return found


def _shadows(entries: Mapping[str, Permissions], subject: str) -> list[Verdict]:
    """Name the entries that lose permissions to the one that Attic reads for names that both match."""
    found: dict[tuple[str, str], Verdict] = {}
    for loser, granted in entries.items():
        for other in entries:
            for shared in _shared(loser, other):
                reader = _read_for(entries, shared)
                lost = sorted(granted - entries[reader])
                if lost and (reader, loser) not in found:
                    found[reader, loser] = codes.SHADOWED.verdict(
                        subject,
                        f"for {shared} the entry {reader} is read and not {loser}: {', '.join(lost)} is lost",
                        {"names": shared, "read": reader, "ignored": loser, "lost": lost},
                    )
    return list(found.values())


def _shared(one: str, other: str) -> frozenset[str]:
    if one == other:
        return frozenset()
    try:
        return intersection(one, other)
    except UsageError:
        # Too many or too long overlaps to name them all; nobody writes such a token but to break this.
        return frozenset()


def _read_for(entries: Mapping[str, Permissions], names: str) -> str:
    """Give the entry that Attic reads for all names of a pattern that some entry contains."""
    if "*" not in names and names in entries:
        return names
    return next(pattern for pattern in entries if matches(pattern, names))


def in_words(entries: Mapping[str, Permissions]) -> dict[str, str]:
    """Give permissions by pattern, in words."""
    return {
        pattern: ", ".join(permission for permission in Permission if permission in granted) or "nothing"
        for pattern, granted in entries.items()
    }


def life_in_words(decoded: Decoded, now: int) -> str:
    """Give what is left of a token's life."""
    end = decoded.claims.get("exp")
    if type(end) is not int:
        return "valid for ever"
    if now > end:
        return f"expired {format_duration(now - end)} ago"
    return f"valid for another {format_duration(end - now)} (until {_date(end)})"


def summary(decoded: Decoded) -> dict[str, Any]:
    """Give the claims for reading: what `inspect` shows above its verdicts."""
    times = {
        name: _date(decoded.claims[name])
        for name in ("iat", "nbf", "exp")
        if type(decoded.claims.get(name)) is int
    }
    return {
        "algorithm": decoded.algorithm,
        "subject": decoded.claims.get("sub"),
        "issuer": decoded.claims.get("iss"),
        "audience": decoded.claims.get("aud"),
        **{{"iat": "issued", "nbf": "valid_from", "exp": "expires"}[k]: v for k, v in times.items()},
        "grants": in_words(decoded.entries or {}),
    }


def _date(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"
