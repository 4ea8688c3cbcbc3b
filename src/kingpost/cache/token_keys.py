"""Signing keys of an Attic server, as atticd reads them, and the places where they are kept.

HS256: padded standard base64 of raw bytes. RS256: base64 of PEM text, PKCS#1 or PKCS#8 (token/src/lib.rs
`decode_token_*`). A key's text also comes as the environment file that atticd's NixOS module takes
(`ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64=…`), which names the algorithm.

No function here puts a key into an error, a log or argv; `SigningKey` has no readable repr.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import stat
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kingpost.base.errors import CannotLookError, InvalidInputError, UsageError
from kingpost.base.process import CommandError, run

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

#: RFC 7518 section 3.2: an HS256 key of fewer bytes is weaker than the signature.
MIN_HS256_BYTES: Final = 32
#: RFC 7518 section 3.3.
MIN_RS256_BITS: Final = 2048

_VARIABLE: Final = re.compile(
    r"^\s*(?:export\s+)?ATTIC_SERVER_TOKEN_(HS256_SECRET|RS256_SECRET|RS256_PUBKEY)_BASE64\s*=(.*)$",
    re.MULTILINE,
)
_KUBE: Final = re.compile(r"([a-z0-9.-]+)/([a-z0-9.-]+)(?::([A-Za-z0-9._-]+))?")


class Algorithm(StrEnum):
    """The two signatures that Attic knows; one server takes only one of them."""

    HS256 = "HS256"
    RS256 = "RS256"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that can sign, or for RS256 perhaps only verify.

    Attributes:
        algorithm: What it signs with.
        material: HS256 bytes, or the RSA key object.
        origin: Where it came from, for errors; never the value.
        weaknesses: What a person should know about it, one sentence each.

    """

    algorithm: Algorithm
    material: bytes | RSAPrivateKey | RSAPublicKey = field(repr=False)
    origin: str
    weaknesses: tuple[str, ...] = ()

    @property
    def can_sign(self) -> bool:
        """Tell whether it holds the private half."""
        return isinstance(self.material, bytes) or hasattr(self.material, "private_numbers")

    def verification_material(self) -> bytes | RSAPublicKey:
        """Give what verifies: the HS256 bytes or the public half."""
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415 - slow import

        return self.material.public_key() if isinstance(self.material, RSAPrivateKey) else self.material


def from_file(path: str) -> SigningKey:
    """Read a key from a file, or from standard input when `path` is `-`."""
    if path == "-":
        return parse(sys.stdin.read(), origin="standard input")
    return parse(read_secret(Path(path)), origin=path)


def from_age(path: Path, identity: Path) -> SigningKey:
    """Decrypt an agenix secret with the `age` command; the clear text stays in memory."""
    try:
        done = run(["age", "--decrypt", "--identity", identity, path], timeout=60)
    except CommandError as error:
        raise CannotLookError(
            f"age could not decrypt the secret: {error.why}",
            where=str(path),
            fix=f"name an identity that the secret is encrypted to; {identity} is not, or cannot be read",
        ) from None
    return parse(done.stdout, origin=str(path))


def from_cluster(reference: str, context: str = "") -> SigningKey:
    """Read a key from a Kubernetes secret with `kubectl`.

    Args:
        reference: `NAMESPACE/SECRET` or `NAMESPACE/SECRET:KEY`; without a key the secret must have one entry.
        context: kubectl's `--context`; empty for the current one.

    """
    match = _KUBE.fullmatch(reference)
    if match is None:
        raise UsageError(
            f"{reference!r} names no Kubernetes secret",
            fix="write NAMESPACE/SECRET:KEY, for example nix-cache/attic-jwt-signing:hs256-secret-base64",
        )
    namespace, name, entry = match.groups()
    where = f"secret {name} in namespace {namespace}"
    argv = ["kubectl", *(["--context", context] if context else []), "get", "secret", name]
    try:
        done = run([*argv, "--namespace", namespace, "--output", "json"], timeout=60)
    except CommandError as error:
        raise CannotLookError(
            f"kubectl could not read it: {error.why}",
            where=where,
            fix=f"check with `kubectl auth can-i get secrets -n {namespace}` and the name of the secret",
        ) from None
    try:
        entries = json.loads(done.stdout).get("data") or {}
    except (ValueError, AttributeError):
        raise CannotLookError("kubectl printed no JSON object", where=where) from None
    if entry is None and len(entries) == 1:
        entry = next(iter(entries))
    if entry not in entries:
        named = f"has no entry {entry}" if entry else "has more or fewer than one entry"
        raise UsageError(
            f"the secret {named}",
            where=where,
            why=f"its entries are: {', '.join(sorted(entries)) or 'none'}",
            fix=f"write {namespace}/{name}:KEY with one of them",
        )
    try:
        text = base64.b64decode(entries[entry], validate=True).decode()
    except (ValueError, TypeError):
        raise InvalidInputError("the entry is not base64 of text", where=f"{where}, entry {entry}") from None
    return parse(text, origin=f"{where}, entry {entry}")


def read_secret(path: Path) -> str:
    """Read a file that holds a secret, without ever quoting it in an error.

    Raises:
        CannotLookError: It is not there, may not be read, or is no regular file or pipe.
        InvalidInputError: It is larger than any secret, or not UTF-8.

    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise CannotLookError("is no file", where=str(path), fix="name the file itself")
        with path.open("rb") as file:
            data = file.read(1 << 20)
    except OSError as error:
        raise CannotLookError(
            f"the file cannot be read: {error.strerror}",
            where=str(path),
            fix="check the path, and run as a user who may read it",
        ) from error
    if len(data) == 1 << 20:
        raise InvalidInputError("is 1 MiB or larger: this is no secret", where=str(path))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"is not text: byte {error.start} is not UTF-8",
            where=str(path),
            why="a token or key is text; this may be an encrypted or a binary file",
            fix="for an agenix secret use --secret-age; for raw key bytes write their base64 instead",
        ) from None


def parse(text: str, *, origin: str) -> SigningKey:
    """Read a key from what a file, pipe or secret holds.

    Takes the bare base64 that atticd takes, an environment file with atticd's variable, or PEM text.

    Raises:
        InvalidInputError: It is none of these; the message says what is wrong, never the value.

    """
    found = _VARIABLE.findall(text)
    if len(found) > 1:
        raise InvalidInputError(
            "holds more than one signing key of Attic",
            where=origin,
            why="atticd takes RS256_PUBKEY before RS256_SECRET before HS256_SECRET and ignores the others",
            fix="leave only the variable of the key that the server uses",
        )
    if not found:
        return _decode(text.strip(), None, origin)
    kind, value = found[0]
    algorithm = Algorithm.HS256 if kind.startswith("HS256") else Algorithm.RS256
    return _decode(_unquoted(value.strip()), algorithm, origin)


def _unquoted(value: str) -> str:
    # systemd's EnvironmentFile= strips one pair of quotes.
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _decode(value: str, algorithm: Algorithm | None, origin: str) -> SigningKey:
    if value.startswith("-----BEGIN "):
        return _rsa(value, origin)
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInputError(
            "is not padded standard base64",
            where=origin,
            why="atticd panics at its start on such a key; often it is url-safe or unpadded base64",
            fix="make a new one with `openssl rand 64 | base64 -w0` (HS256), or name the right file",
        ) from None
    if algorithm is Algorithm.RS256 or decoded.startswith(b"-----BEGIN "):
        if algorithm is Algorithm.HS256:
            raise InvalidInputError(
                "holds PEM under the name of an HS256 secret",
                where=origin,
                why="atticd would take the PEM text itself as the shared secret, public halves included",
                fix="name the variable ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64",
            )
        try:
            return _rsa(decoded.decode(), origin)
        except UnicodeDecodeError:
            raise InvalidInputError("is not base64 of PEM text", where=origin) from None
    if not decoded:
        raise InvalidInputError(
            "holds an empty key",
            where=origin,
            why="Attic accepts it, and then everybody can sign tokens",
            fix="make a key with `openssl rand 64 | base64 -w0`",
        )
    weak = len(decoded) < MIN_HS256_BYTES
    note = f"the HS256 key has {len(decoded)} bytes; fewer than {MIN_HS256_BYTES} can be guessed offline"
    return SigningKey(Algorithm.HS256, decoded, origin, (note,) if weak else ())


def _rsa(pem: str, origin: str) -> SigningKey:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - slow to import
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - likewise
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 - likewise

    try:
        key = (
            serialization.load_pem_public_key(pem.encode())
            if "PUBLIC KEY-----" in pem
            else serialization.load_pem_private_key(pem.encode(), password=None)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInputError(
            "holds no PEM key that Attic can read",
            where=origin,
            why="Attic reads an RSA key without a passphrase, as PKCS#1 or PKCS#8",
            fix="make one with `openssl genrsa -traditional 4096 | base64 -w0`",
        ) from None
    if not isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        raise InvalidInputError(
            "holds a key that is not RSA", where=origin, why="Attic knows RS256 and HS256"
        )
    weak = key.key_size < MIN_RS256_BITS
    note = f"the RSA key has {key.key_size} bits; RS256 wants at least {MIN_RS256_BITS}"
    return SigningKey(Algorithm.RS256, key, origin, (note,) if weak else ())
