"""The values that a topology is made of, as types with errors that say what one looks like.

Each type is an annotated builtin: after validation a `Size` is an `int` of bytes, a `Duration` a `float` of
seconds, an address an `ipaddress` object, everything else a `str` in canonical form.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from kingpost.base.units import parse_duration, parse_size

# A plugin of pydantic's that happens to be installed would see all that a topology holds; and looking for one, among
# every installed distribution, takes longer than reading a topology.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"


class Model(BaseModel):
    """What every part of a topology is: frozen, with unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{value!r} is no size: write for example 512MiB or 8GiB")
    return value if isinstance(value, int) else parse_size(value)


def _duration(value: Any) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError(f"{value!r} is no duration: write for example 30s, 15m, 1h30m or 90d, in quotes")


_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE | re.ASCII)


def _host_name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 253:
        raise ValueError(f"{value!r} is no host name")
    labels = value.removesuffix(".").split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(
                f"{value!r} is no host name: {label!r} must be 1 to 63 letters, digits or inner hyphens"
            )
    return value


_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)


def _name(value: Any) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise ValueError(
        f"{value!r} is no name: up to 63 of letters, digits, '.', '_' and '-',"
        " beginning with a letter or digit"
    )


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no URL: write for example https://cache.example.org")
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{value!r} is no URL: write for example https://cache.example.org")
    if not value.isascii() or any(c.isspace() or c in "\"'`$\\{}<>" for c in value):
        raise ValueError(f"{value!r} is no URL: percent-encode blanks, quotes and what is not ASCII")
    if parts.username or parts.password:
        raise ValueError(
            f"the URL of host {parts.hostname} holds a user or password:"
            " put it into a secret and leave it out here"
        )
    if "?" in value or "#" in value:
        raise ValueError(f"{value!r} holds a query or fragment: leave it out")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{value!r} is no URL: {error}") from None
    return value


_KEY_NAME: Final = re.compile(r"[A-Za-z0-9._+-]+", re.ASCII)


def _public_key(value: Any) -> str:
    """Check `name:base64` of an Ed25519 public key (32 bytes); NixOS/nix src/libutil/signature."""
    if not isinstance(value, str) or value.count(":") != 1:
        raise ValueError(f"{value!r} is no Nix public key: write name:base64, as `attic cache info` shows it")
    name, encoded = value.split(":")
    if not _KEY_NAME.fullmatch(name):
        raise ValueError(f"{value!r} is no Nix public key: {name!r} is no key name")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(
            f"the Nix public key {name!r} is damaged: what follows the colon is no base64"
        ) from None
    if len(raw) == 64:
        raise ValueError(
            f"{name!r} is a *secret* key (64 bytes): keep it out of here and give the public key"
        )
    if len(raw) != 32:
        raise ValueError(f"the Nix public key {name!r} is damaged: it has {len(raw)} bytes, not 32")
    return value


_STORE_HASH: Final = re.compile(r"[0-9abcdfghijklmnpqrsvwxyz]{32}", re.ASCII)


def _store_hash(value: Any) -> str:
    """Check the 32 characters of Nix's base 32 (no e, o, t, u) that begin a store path's name."""
    if isinstance(value, str) and _STORE_HASH.fullmatch(value):
        return value
    raise ValueError(f"{value!r} is no store hash: 32 characters of 0-9 a-z without e, o, t and u")


_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def _variable(value: Any) -> str:
    if isinstance(value, str) and _VARIABLE.fullmatch(value):
        return value
    raise ValueError(f"{value!r} is no name of an environment variable")


def _mode(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return value.rjust(4, "0")
    raise ValueError(f'{value!r} is no file mode: write it in quotes, for example "0400"')


_UNIT: Final = re.compile(
    r"[A-Za-z0-9:_.\\@-]+\.(service|socket|slice|scope|mount|timer|target|path)", re.ASCII
)


def _unit(value: Any) -> str:
    if isinstance(value, str) and _UNIT.fullmatch(value):
        return value
    raise ValueError(f"{value!r} is no systemd unit: write for example atticd.service or user.slice")


_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}\$?", re.ASCII)


def _user(value: Any) -> str:
    if isinstance(value, str) and _USER.fullmatch(value):
        return value
    raise ValueError(f"{value!r} is no user name: small letters, digits, '_' and '-'")


def _path(value: Any) -> str:
    if isinstance(value, str) and value.startswith("/") and not any(c < " " for c in value):
        return value
    raise ValueError(f"{value!r} is no absolute path")


_PLAIN_PATH: Final = re.compile(r"/[A-Za-z0-9/._-]*", re.ASCII)


def _plain_path(value: Any) -> str:
    if isinstance(value, str) and _PLAIN_PATH.fullmatch(value):
        return value
    raise ValueError(f"{value!r} is no absolute path of letters, digits, '/', '.', '_' and '-'")


_DAY: Final = r"(?:[Mm]on|[Tt]ue|[Ww]ed|[Tt]hu|[Ff]ri|[Ss]at|[Ss]un)[a-z]*"
_PARTS: Final = r"(?:\*|[0-9]+)[0-9*,./]*"
_CALENDAR: Final = re.compile(
    r"(?:(?:minute|hour|dai|week|month|quarter|semiannual|year|annual)ly"
    rf"|(?={_DAY}|[0-9*])(?:{_DAY}(?:(?:\.\.|[,-]){_DAY})*)?"
    rf"(?:(?:^| ){_PARTS}-{_PARTS}(?:[-~]{_PARTS})?)?(?:(?:^| ){_PARTS}:{_PARTS}(?::{_PARTS})?)?)"
    r"(?: [A-Z][A-Za-z]+(?:/[A-Za-z0-9_+-]+)*)?",
    re.ASCII,
)
"""A calendar event of systemd.time(7), by its shape: a word, or days, date and time, each of which may be left out."""


def _calendar(value: Any) -> str:
    if isinstance(value, str) and _CALENDAR.fullmatch(value):
        return value
    raise ValueError(f"{value!r} is no time: write it as systemd.time(7), for example daily or Mon 04:00")


_NIX_VERSION: Final = re.compile(r"2\.\d{1,3}(\.\d+)?")


def _nix_version(value: Any) -> str:
    if isinstance(value, str) and _NIX_VERSION.fullmatch(value):
        return value
    raise ValueError(f'{value!r} is no Nix version: write it in quotes, for example "2.31"')


_CACHE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,49}", re.ASCII)


def _cache_name(value: Any) -> str:
    """Check a cache name as Attic does (attic/src/cache.rs)."""
    if isinstance(value, str) and _CACHE_NAME.fullmatch(value):
        return value
    raise ValueError(
        f"{value!r} is no cache name: up to 50 of letters, digits, '_', '+' and '-',"
        " beginning with a letter or digit"
    )


_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)


def _bucket_name(value: Any) -> str:
    if isinstance(value, str) and _BUCKET.fullmatch(value) and ".." not in value:
        return value
    raise ValueError(f"{value!r} is no bucket name: 3 to 63 small letters, digits, '.' and '-'")


def _endpoint(value: Any) -> tuple[IPv4Address, int]:
    if isinstance(value, str) and value.count(":") == 1:
        host, port = value.split(":")
        if port.isdigit() and 0 < int(port) < 65536:
            return IPv4Address(host), int(port)
    raise ValueError(f"{value!r} is no listening address: write for example 127.0.0.1:8083")


def _quoted(value: Any) -> Any:
    """Refuse what Python would take for an address too: a number, and bytes."""
    if isinstance(value, (str, IPv4Address, IPv4Interface, IPv4Network)):
        return value
    raise ValueError(f'{value!r} is no address: write it in quotes, for example "192.168.1.20"')


_SYSTEM: Final = ("x86_64-linux", "aarch64-linux", "riscv64-linux", "x86_64-darwin", "aarch64-darwin")


def _system(value: Any) -> str:
    if value in _SYSTEM:
        return str(value)
    raise ValueError(f"{value!r} is no Nix system: one of {', '.join(_SYSTEM)}")


def _text(pattern: str, example: str, validate: Any) -> Any:
    """Pair a validator with what editors show for it in the JSON Schema."""
    schema: dict[str, Any] = {"type": "string", "examples": [example]}
    if pattern:
        schema["pattern"] = pattern
    return BeforeValidator(validate, json_schema_input_type=Annotated[str, Field(json_schema_extra=schema)])


Size = Annotated[int, _text(r"^\s*\d+(\.\d+)?\s*[KMGTPkmgtp]?i?[Bb]?\s*$", "8GiB", _size), Field(ge=0)]
Duration = Annotated[float, _text("", "90d", _duration), Field(ge=0)]
Whole = Annotated[int, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
Name = Annotated[str, _text(rf"^{_NAME.pattern}$", "node1", _name)]
HostName = Annotated[str, _text("", "node1.example.org", _host_name)]
Url = Annotated[str, _text("^https?://", "https://cache.example.org", _url)]
PublicKey = Annotated[str, _text("^[^:]+:[A-Za-z0-9+/=]+$", "main:4yJz…=", _public_key)]
StoreHash = Annotated[
    str, _text(rf"^{_STORE_HASH.pattern}$", "8iv5j0f2difw6wg9vwj9r2raacb08fkv", _store_hash)
]
Variable = Annotated[str, _text(rf"^{_VARIABLE.pattern}$", "ATTIC_TOKEN", _variable)]
Mode = Annotated[str, _text("^0?[0-7]{3}$", "0400", _mode)]
Unit = Annotated[str, _text("", "atticd.service", _unit)]
User = Annotated[str, _text("", "gitlab-runner", _user)]
AbsolutePath = Annotated[str, _text("^/", "/run/agenix/atticd", _path)]
PlainPath = Annotated[str, _text(rf"^{_PLAIN_PATH.pattern}$", "/var/lib/node-exporter", _plain_path)]
Calendar = Annotated[str, _text(rf"^{_CALENDAR.pattern}$", "*-*-* 04:00", _calendar)]
NixVersion = Annotated[str, _text(rf"^{_NIX_VERSION.pattern}$", "2.31", _nix_version)]
CacheName = Annotated[str, _text(rf"^{_CACHE_NAME.pattern}$", "blog-cache", _cache_name)]
BucketName = Annotated[str, _text(rf"^{_BUCKET.pattern}$", "attic-cache", _bucket_name)]
System = Annotated[str, _text("", "x86_64-linux", _system)]
Endpoint = Annotated[tuple[IPv4Address, int], _text("", "127.0.0.1:8083", _endpoint)]
Address = Annotated[IPv4Address, BeforeValidator(_quoted)]
Interface = Annotated[IPv4Interface, BeforeValidator(_quoted)]
Network = Annotated[IPv4Network, BeforeValidator(_quoted)]
Text = Annotated[str, Field(max_length=4000)]
