"""Attic's tokens: permissions, claims, signing.

The claim and its bits are those of token/src/lib.rs; a token's times are checked without any tolerance
(`time_tolerance: None` there), so `nbf` is put back a little for a server whose clock lags.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import UsageError
from kingpost.cache.token_patterns import expanded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kingpost.cache.token_keys import SigningKey

CLAIM: Final = "https://jwt.attic.rs/v1"
#: Seconds: long enough for one push of a large closure to start, too short to be worth stealing.
DEFAULT_LIFETIME: Final = 15 * 60.0
#: Seconds that `nbf` lies in the past; a server whose clock lags by more rejects the fresh token.
DEFAULT_BACKDATE: Final = 60.0
#: Seconds; a longer life is a standing credential and has to be asked for by name.
LONG_LIFETIME: Final = 24 * 3600.0
MAX_LIFETIME: Final = 10 * 366 * 24 * 3600.0


class Permission(StrEnum):
    """What a token may let its bearer do on a cache, by the names of `atticadm make-token`."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CREATE_CACHE = "create-cache"
    CONFIGURE_CACHE = "configure-cache"
    CONFIGURE_CACHE_RETENTION = "configure-cache-retention"
    DESTROY_CACHE = "destroy-cache"

    @property
    def bit(self) -> str:
        """Give the key in the claim."""
        return _BITS[self]


_BITS: Final = {
    Permission.PULL: "r",
    Permission.PUSH: "w",
    Permission.DELETE: "d",
    Permission.CREATE_CACHE: "cc",
    Permission.CONFIGURE_CACHE: "cr",
    Permission.CONFIGURE_CACHE_RETENTION: "cq",
    Permission.DESTROY_CACHE: "cd",
}
BY_BIT: Final = {bit: permission for permission, bit in _BITS.items()}

Permissions = frozenset[Permission]


@dataclass(frozen=True, slots=True)
class Request:
    """What a token is to say.

    Attributes:
        subject: Who uses it; Attic records it as `created_by` of what is pushed.
        grants: Permissions by cache name or pattern, as a person means them: overlaps add up.
        lifetime: Seconds until it expires.
        backdate: Seconds that it is valid before now, for a server whose clock lags.
        issuer: `iss`, for a server with `token-bound-issuer`.
        audiences: `aud`, for a server with `token-bound-audiences`.

    """

    subject: str
    grants: Mapping[str, Permissions]
    lifetime: float = DEFAULT_LIFETIME
    backdate: float = DEFAULT_BACKDATE
    issuer: str = ""
    audiences: tuple[str, ...] = ()


def grants(pairs: Iterable[tuple[Permission, str]]) -> dict[str, Permissions]:
    """Collect (permission, pattern) pairs by pattern."""
    found: dict[str, Permissions] = {}
    for permission, pattern in pairs:
        found[pattern] = found.get(pattern, frozenset()) | {permission}
    return found


def claims(request: Request, now: int) -> dict[str, Any]:
    """Give the claims in the order in which they are signed. Times are whole seconds since 1970.

    There is no `iat`: Attic would check it without tolerance too, and `atticadm` gives none.

    Raises:
        UsageError: No grant, no positive life, or patterns that Attic refuses.

    """
    if not request.grants:
        raise UsageError(
            "a token without a permission is of no use",
            fix="grant one by name, for example --pull main; --push main adds what a push needs",
        )
    if not 1 <= request.lifetime <= MAX_LIFETIME or not 0 <= request.backdate <= LONG_LIFETIME:
        raise UsageError(
            "a token lives at least one second and at most ten years, and is backdated by at most a day",
            fix="give --validity 15m, and --backdate 60s or nothing",
        )
    bits = {
        pattern: {permission.bit: 1 for permission in Permission if permission in granted}
        for pattern, granted in expanded(request.grants).items()
    }
    return {
        **({"iss": request.issuer} if request.issuer else {}),
        "sub": request.subject,
        **({"aud": list(request.audiences)} if request.audiences else {}),
        "nbf": now - int(request.backdate),
        "exp": now + int(request.lifetime),
        CLAIM: {"caches": bits},
    }


def mint(request: Request, key: SigningKey, now: int) -> str:
    """Sign a token.

    Raises:
        UsageError: See `claims`; or the key is only a public one.

    """
    if not key.can_sign:
        raise UsageError(
            "the key is a public one and cannot sign",
            where=key.origin,
            why="a server with ATTIC_SERVER_TOKEN_RS256_PUBKEY_BASE64 only verifies",
            fix="name the private key (ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64)",
        )
    import jwt  # noqa: PLC0415 - slow to import

    payload = json.dumps(claims(request, now), separators=(",", ":")).encode()
    with warnings.catch_warnings():
        # PyJWT warns of short keys; SigningKey.weaknesses says it to the user in our own words.
        warnings.simplefilter("ignore")
        return jwt.PyJWS().encode(payload, key.material, algorithm=key.algorithm, headers={"typ": "JWT"})  # type: ignore[arg-type]  # can_sign excludes public keys


def notes(request: Request, key: SigningKey) -> list[str]:
    """Say what a person should know about a request before the token is used, one sentence each."""
    said = list(key.weaknesses)
    written = expanded(request.grants)
    for pattern, granted in written.items():
        needs_pull = granted & {Permission.PUSH, Permission.CONFIGURE_CACHE}
        if needs_pull and Permission.PULL not in granted:
            said.append(
                f"{pattern} has {', '.join(sorted(needs_pull))} without pull: enough on a public cache; on a "
                f"private one the client's first request is a pull and answers 403 (add --pull '{pattern}')"
            )
        if Permission.DELETE in granted:
            said.append(
                f"{pattern} has delete, which Attic checks nowhere: it only reveals that a cache exists"
            )
    if len(written) > len(request.grants):
        said.append("entries were added where patterns overlap, since Attic reads one entry and merges none")
    elif set(written) == set(request.grants) and any(written[p] != request.grants[p] for p in written):
        said.append(
            "permissions of wider patterns were repeated, since Attic reads one entry and merges none"
        )
    if request.lifetime > LONG_LIFETIME:
        said.append(
            f"it lives {request.lifetime / 86400:.3g} days and cannot be revoked but by a new signing key"
        )
    return said
