"""What an observation of a token, or of the file that holds one, can mean."""

from __future__ import annotations

from typing import Final

from kingpost.base.codes import Code
from kingpost.base.verdict import Status

_RE_MINT: Final = "mint a new one with `kingpost token mint`; cached data is not touched by that"

USABLE: Final = Code(
    "KP-TOKEN-USABLE", Status.OK, "token usable",
    "The token is well-formed and within its life.",
    told_apart="Says nothing about the server: `kingpost token check` asks it for what needs the permission.",
)  # fmt: skip
SIGNED: Final = Code(
    "KP-TOKEN-SIGNED", Status.OK, "token signed by the given key",
    "The signature verifies with the key that was given.",
)  # fmt: skip
MALFORMED: Final = Code(
    "KP-TOKEN-MALFORMED", Status.FAILED, "no token",
    "What should be a token is not three base64url parts with JSON in the first two.",
    cause="A truncated copy, a quoted value, or another kind of credential.",
    remedy=_RE_MINT,
)  # fmt: skip
CLAIM: Final = Code(
    "KP-TOKEN-CLAIM", Status.FAILED, "claims that Attic cannot read",
    "The token's claims are not of the form that Attic decodes; the request counts as anonymous.",
    cause='The claim https://jwt.attic.rs/v1 needs {"caches": {PATTERN: {BIT: 1}}}: both levels, integers '
    "and not booleans, patterns of at most 50 characters.",
    remedy=_RE_MINT,
)  # fmt: skip
ALGORITHM: Final = Code(
    "KP-TOKEN-ALGORITHM", Status.FAILED, "signed with another algorithm",
    "The header names an algorithm or type that the server does not take.",
    cause="A server of Attic takes either HS256 or RS256, the one of its signing key.",
    remedy=_RE_MINT,
)  # fmt: skip
SIGNATURE: Final = Code(
    "KP-TOKEN-SIGNATURE", Status.FAILED, "signed with another key",
    "The signature does not verify with the key that was given.",
    cause="The signing key was changed, or this is the token of another server.",
    told_apart="The server answers like to a request without a token: 401 on a private cache, never an error "
    "that says so.",
    remedy=_RE_MINT,
)  # fmt: skip
EXPIRED: Final = Code(
    "KP-TOKEN-EXPIRED", Status.FAILED, "token expired",
    "The token's `exp` has passed; the server treats it as anonymous.",
    remedy=_RE_MINT,
)  # fmt: skip
NOT_YET: Final = Code(
    "KP-TOKEN-NOT-YET", Status.FAILED, "token not valid yet",
    "The token's `nbf` or `iat` lies in the future by the clock that was used.",
    cause="The minting host's clock is ahead of the server's; Attic tolerates no second of difference.",
    remedy="correct the clocks (NTP), or mint with a larger --backdate",
)  # fmt: skip
NO_EXPIRY: Final = Code(
    "KP-TOKEN-NO-EXPIRY", Status.FAILED, "token without an end",
    "The token has no `exp`: it is valid until the signing key is changed.",
    cause="Attic has no revocation; `exp` is the only end of a token.",
    remedy="mint one with an end and rotate the signing key when this one may have leaked",
)  # fmt: skip
SHADOWED: Final = Code(
    "KP-TOKEN-SHADOWED", Status.FAILED, "permissions that never apply",
    "An entry of the token loses against another one for names that both match.",
    cause="Attic takes the exact name, else the first matching entry, and merges none.",
    remedy="mint it again with `kingpost token mint`, which repeats permissions where entries overlap",
)  # fmt: skip

GRANTED: Final = Code(
    "KP-TOKEN-GRANTED", Status.OK, "the server grants it",
    "A request that needs the permission was accepted.",
)  # fmt: skip
DENIED: Final = Code(
    "KP-TOKEN-DENIED", Status.FAILED, "the token lacks the permission",
    "The server refuses, and the token's own claims do not grant the permission on this cache.",
    told_apart="KP-TOKEN-ANONYMOUS: the claims grant it, but the server does not believe the token.",
    remedy="mint a token with the permission",
)  # fmt: skip
ANONYMOUS: Final = Code(
    "KP-TOKEN-ANONYMOUS", Status.FAILED, "the server ignores the token",
    "The token claims the permission, and the server answers as to a request without a token.",
    cause="Signed with another key, expired or not yet valid by the server's clock, another issuer or "
    "audience. Attic says so only in its debug log (RUST_LOG=attic_server=debug: Ignoring bad JWT token).",
    told_apart="KP-TOKEN-DENIED: the claims themselves lack the permission.",
    remedy="compare with the server's key: `kingpost token inspect --secret-file …`; then mint again",
)  # fmt: skip
NO_CACHE: Final = Code(
    "KP-TOKEN-NO-CACHE", Status.FAILED, "no such cache",
    "The server knows the token, which has a permission on the name, but there is no cache of that name.",
    remedy="create the cache, or correct the name",
)  # fmt: skip
UNPROVABLE: Final = Code(
    "KP-TOKEN-UNPROVABLE", Status.SKIPPED, "cannot be shown without changing something",
    "No request that changes nothing needs this permission.",
    cause="Everybody may pull from a public cache, a bad token too; `destroy-cache` can be shown only by "
    "destroying; `create-cache` only on a name that exists; `delete` is checked nowhere in Attic.",
    remedy="inspect the token with the server's key instead: `kingpost token inspect --secret-file …`",
)  # fmt: skip
STRANGE: Final = Code(
    "KP-TOKEN-STRANGE", Status.FAILED, "no answer of an Attic server",
    "The answer is none that Attic gives: a page of a proxy or a login, or an internal error.",
    cause="A reverse proxy, an SSO page, a wrong address, or a server that fails (500).",
    remedy="open the URL by hand; for 500 read atticd's log, the cause is only there",
)  # fmt: skip

FILE_OK: Final = Code(
    "KP-SECRET-FILE-OK", Status.OK, "file well-formed", "The file holds the value as its readers expect it."
)
NEWLINE: Final = Code(
    "KP-SECRET-NEWLINE", Status.FAILED, "newline in the value",
    "A bare value ends in a newline, or has one inside.",
    cause="An editor, or `echo` without -n. GitLab and atticd take the newline as part of the value; "
    "atticd panics on it (Base64Error), GitLab refuses the token.",
    remedy='write it again with `printf %s` (agenix: `printf %s "$(cat)" | agenix -e FILE`)',
)  # fmt: skip
CRLF: Final = Code(
    "KP-SECRET-CRLF", Status.FAILED, "carriage return",
    "A line ends in CRLF: the carriage return becomes part of the value.",
    remedy="convert the file with `dos2unix`, or paste the value without line ends",
)  # fmt: skip
QUOTES: Final = Code(
    "KP-SECRET-QUOTES", Status.FAILED, "quotes around the value",
    "The value stands in quotes.",
    cause="systemd strips them from an environment file; Docker's --env-file, Kubernetes and every reader of "
    "a bare value keep them.",
    remedy="remove the quotes: the value needs none",
)  # fmt: skip
BARE: Final = Code(
    "KP-SECRET-BARE", Status.FAILED, "bare value in an environment file",
    "A line of an environment file is no NAME=value.",
    cause="The bare token was pasted where `NAME=token` belongs; systemd ignores such a line, so the service "
    "starts without the secret.",
    remedy="write NAME=value, or declare the file as one that holds the bare value",
)  # fmt: skip
ASSIGNMENT: Final = Code(
    "KP-SECRET-ASSIGNMENT", Status.FAILED, "assignment in a file of a bare value",
    "A file that should hold the bare value has NAME=value.",
    cause="Its reader takes the whole text, name included, as the value.",
    remedy="write only the value, or declare the file as an environment file",
)  # fmt: skip
SHELL: Final = Code(
    "KP-SECRET-SHELL", Status.FAILED, "shell syntax in an environment file",
    "A line starts with `export`, has spaces around `=`, or a value with spaces around it.",
    cause="Environment files are no shell scripts: systemd and Docker do not know `export`.",
    remedy="write NAME=value without anything else",
)  # fmt: skip
BLANK: Final = Code(
    "KP-SECRET-BLANK", Status.FAILED, "blanks around the value",
    "The value begins or ends with a blank or a tab, or the file with a byte order mark.",
    remedy="write it again with `printf %s`",
)  # fmt: skip
EMPTY: Final = Code(
    "KP-SECRET-EMPTY", Status.FAILED, "no value",
    "The file, or a variable in it, is empty.",
    cause="A secret that was not decrypted (agenix before its key is there), or an empty CI variable.",
    remedy="write the value; then restart what reads it",
)  # fmt: skip
PREFIX: Final = Code(
    "KP-SECRET-PREFIX", Status.FAILED, "header instead of a token",
    "The value starts with `Bearer` or `Authorization`.",
    remedy="keep only what follows it",
)  # fmt: skip
ENCODED_NEWLINE: Final = Code(
    "KP-SECRET-ENCODED-NEWLINE", Status.FAILED, "newline below the base64",
    "The base64 decodes to text that ends in a newline.",
    cause="`echo secret | base64` encodes the newline too: it becomes part of the key.",
    remedy="encode it with `printf %s SECRET | base64 -w0`; for a signing key that is in use, keep it as it is "
    "or rotate it: the newline is part of the key",
)  # fmt: skip
READABLE: Final = Code(
    "KP-SECRET-READABLE", Status.FAILED, "readable by others",
    "The file may be read by its group's members or by everybody.",
    remedy="chmod 600 (or 400) the file; with agenix set `mode`, `owner` and `group` of the secret",
)  # fmt: skip
IN_STORE: Final = Code(
    "KP-SECRET-IN-STORE", Status.FAILED, "secret in the Nix store",
    "The file, or what it links to, is below /nix/store, which everybody may read and caches publish.",
    cause="A path literal or `builtins.readFile` in a NixOS configuration copies the file.",
    remedy="name the secret's run-time path as a string, and rotate the secret: it must count as known",
)  # fmt: skip
