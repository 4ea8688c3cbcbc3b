"""What a secret looks like in free text, so that a topology is refused that holds one and never echoed.

Only shapes that nothing else has: a false alarm here would teach people to ignore it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import Final

_SHAPES: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("a JSON Web Token", re.compile(r"\beyJ[A-Za-z0-9_-]{12,}(\.[A-Za-z0-9_-]*)*")),
    ("a GitLab token", re.compile(r"\bgl(rt|pat|dt|cbt|ptt|ft|soat|agent|imt|ffct|oas)-[\w.-]{8,}")),
    ("a GitLab registration token", re.compile(r"\bGR1348941[\w-]{8,}")),
    ("a GitHub token", re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})")),
    ("an AWS access key", re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{12,}\b")),
    ("a Tailscale key", re.compile(r"\btskey-[a-z]+-\w{8,}")),
    ("an age secret key", re.compile(r"\bAGE-SECRET-KEY-1[0-9A-Z]{8,}", re.IGNORECASE)),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("a secret Nix signing key", re.compile(r"\b[\w.+-]+:[A-Za-z0-9+/]{86}==")),
    ("a password in a URL", re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)),
    (
        # `TOKEN=$ATTIC_TOKEN` names a variable and `TOKEN_FILE=/run/…` a file: neither is a secret.
        "the value of a secret variable",
        re.compile(
            r"\b[A-Z0-9_]*(PASSWORD|PASSWD|SECRET|TOKEN|SECRET_ACCESS_KEY|_BASE64)=[^\s$'\"/<{][^\s]{5,}"
        ),
    ),
)

_SPEAKING_KEY: Final = re.compile(
    r"(^|[-_])(password|passwd|secret|token|credential|credentials|private[-_]key|access[-_]key|secret[-_]key)"
    r"([-_](base64|id|key))?$",
    re.IGNORECASE,
)
_KEY_MATERIAL: Final = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")
#: Not what follows a public key's name, or `sha256-`.
_BARE_KEY_MATERIAL: Final = re.compile(r"(?<![\w:+/-])[A-Za-z0-9+/]{40,}={0,2}")


@lru_cache(4096)  # the same words are written for every host of a fleet
def secret_shape(text: str) -> str | None:
    """Give what kind of secret a text holds (`a GitLab token`); None when it holds none that is certain."""
    for kind, pattern in _SHAPES:
        if pattern.search(text):
            return kind
    return None


def is_secret_name(key: str) -> bool:
    """Tell whether a setting of this name holds a secret: `token-hs256-secret-base64`, `db_password`."""
    return _SPEAKING_KEY.search(key) is not None


def is_key_material(text: str) -> bool:
    """Tell whether a whole text is base64 of 30 random bytes or more, and no path or name made of words.

    Of random characters about two in three are of another class (upper, lower, digit, sign) than the one before;
    of `secrets/Hosts/Node1/AtticEnvironment` one in four.
    """
    if _KEY_MATERIAL.fullmatch(text) is None or text.startswith("/"):
        return False
    classes = [("u" if c.isupper() else "l" if c.islower() else "d" if c.isdigit() else "s") for c in text]
    changes = sum(one != other for one, other in pairwise(classes))
    return {"u", "l", "d"} <= set(classes) and changes > 0.5 * len(text)


def redacted(text: str) -> str:
    """Give the text with every secret of a known shape replaced by its kind, key material in base64 included."""
    for kind, pattern in _SHAPES:
        text = pattern.sub(f"<{kind}>", text)
    return _BARE_KEY_MATERIAL.sub(
        lambda found: "<key material>" if is_key_material(found.group()) else found.group(), text
    )
