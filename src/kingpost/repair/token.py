"""The plan of a rotation: who holds a token or a signing key, what it breaks, what it leaves alone, in which order.

Attic takes one signing key at a time and has no list of revoked tokens: a new key voids every token at once, and a
leaked token is void only with the key or at its end. Neither touches what is cached, nor the keypairs that sign
narinfos. Nothing here changes anything.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import UsageError
from kingpost.base.units import format_duration
from kingpost.cache.token import Permission
from kingpost.cache.token_patterns import matches
from kingpost.render.netrc import netrc_lines
from kingpost.render.secret_files import secret_path, secrets_by_host
from kingpost.topology.ci import PushToken
from kingpost.topology.names import match_name, resolve_cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.render.secret_files import SecretUse
    from kingpost.topology.caches import Token
    from kingpost.topology.platform import Platform

_VARIABLE: Final = {
    "hs256": "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64",
    "rs256": "ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64",
}
_NEW_KEY: Final = {
    "hs256": "openssl rand 64 | base64 -w0",
    "rs256": "openssl genrsa -traditional 4096 | base64 -w0",
}

_NOWHERE: Final = "no place that the topology knows of"


@dataclass(frozen=True, slots=True)
class Holder:
    """Somewhere that a value is kept.

    Attributes:
        what: The signing key, or which token.
        where: A secret's file, a CI variable, a user's login.
        detail: Hosts, source file, units that read it.

    """

    what: str
    where: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Rotation:
    """A plan, for reading.

    Attributes:
        what: What is rotated.
        holders: Where it is kept, and where what depends on it is kept.
        stops: What does not work from the change until the last step.
        untouched: What stays as it is.
        steps: What to do, in order; commands stand in backquotes.
        undo: How to go back.

    """

    what: str
    holders: tuple[Holder, ...]
    stops: tuple[str, ...]
    untouched: tuple[str, ...]
    steps: tuple[str, ...]
    undo: str

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return asdict(self)


def plan(platform: Platform, name: str) -> Rotation:
    """Give the plan for an Attic server's signing key (`SERVER`) or one of its tokens (`SERVER/TOKEN`).

    A secret's name means the key or token that is in it.

    Raises:
        UsageError: The topology has nothing of that name.

    """
    servers = platform.topology.attic
    known = [*servers, *(f"{server}/{token}" for server, attic in servers.items() for token in attic.tokens)]
    by_secret = {attic.secret: server for server, attic in servers.items() if attic.secret}
    by_secret |= {
        token.secret: f"{server}/{key}"
        for server, attic in servers.items()
        for key, token in attic.tokens.items()
        if token.secret
    }
    if not known:
        raise UsageError("the topology declares no Attic server", fix="declare one below [attic]")
    found = match_name(by_secret.get(name, name), known, "Attic server or token")
    server, _, key = found.partition("/")
    return _of_token(platform, server, key) if key else _of_key(platform, server)


def _of_key(platform: Platform, server: str) -> Rotation:
    attic = platform.topology.attic[server]
    variable = _VARIABLE[attic.algorithm]
    place = attic.host or f"cluster {attic.cluster}"
    kept = _kept(platform, server)
    private = [cache for cache, declared in attic.caches.items() if not declared.public]
    public = [cache for cache in attic.caches if cache not in private]
    what = f"the signing key of {server} ({variable})"
    return Rotation(
        what=f"the signing key of attic:{server}: every token of this server becomes void at once",
        holders=(_holder(platform, what, attic.secret), *(one.holder for one in kept)),
        stops=(
            *(f"{one.holder.what}, kept in {one.holder.where}" for one in kept),
            *(f"reading private {', '.join(caches)} in {at}" for at, caches in _readers(platform, server)),
            "without an error that says so: a void token counts as none, and a best-effort push stays green",
        ),
        untouched=(
            "everything that is cached, and the storage",
            (
                "the caches' keypairs: public keys and signatures stay valid (what changes those is "
                "`attic cache configure --regenerate-keypair`)"
            ),
            *(f"reading public {cache}: that needs no token" for cache in public),
            "S3 credentials and database, even where they are in the same secret",
        ),
        steps=(
            f"write a new {variable} into {_source(platform, attic.secret)}: `{_NEW_KEY[attic.algorithm]}`",
            f"deploy {place} and restart atticd: from here on every old token is void",
            *(_renewal(platform, server, one) for one in kept),
            *_checks(server, kept),
        ),
        undo="put the old key back and restart atticd: tokens signed with it are valid again until they expire",
    )


def _of_token(platform: Platform, server: str, key: str) -> Rotation:
    declared = platform.topology.attic[server].tokens[key]
    kept = [one for one in _kept(platform, server) if one.token == key]
    return Rotation(
        what=f"token {key} of attic:{server}",
        holders=tuple(one.holder for one in kept),
        stops=("nothing: the old token works beside the new one until it expires",),
        untouched=(
            f"the old token: it cannot be revoked; it ends {format_duration(declared.validity)} after it was minted",
            "the signing key, every other token, and everything that is cached",
            f"if the token leaked, only a new signing key ends it earlier: `kingpost token rotate {server}`",
        ),
        steps=(*(_renewal(platform, server, one) for one in kept), *_checks(server, kept)),
        undo="put the old token back while it is valid",
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    """A token in one place.

    Attributes:
        token: The declared token that it is; empty when none is declared for it.
        grants: Patterns by permission.
        subject: Who uses it, for the token's `sub`.
        validity: Seconds.
        holder: Where.
        secret: The secret that it is in; empty for another place.

    """

    token: str
    grants: dict[Permission, tuple[str, ...]]
    subject: str
    validity: float
    holder: Holder
    secret: str = ""


def _kept(platform: Platform, server: str) -> list[_Kept]:
    """Give every place where the topology knows a token of a server to be."""
    attic = platform.topology.attic[server]
    found = []
    for key, declared in attic.tokens.items():
        holder = _holder(platform, f"token {key}", declared.secret)
        found.append(_Kept(key, _grants(declared), key, declared.validity, holder, declared.secret or ""))
    secrets = {declared.secret for declared in attic.tokens.values()}
    for user, cache, token, pushes in _users(platform, server):
        if token.secret in secrets and token.secret:
            continue
        # A declared token that no secret holds is what CI variables and logins hold.
        key = next(
            (k for k, t in attic.tokens.items() if not t.secret and _covers(t, cache, pushes=pushes)), ""
        )
        grants = _grants(attic.tokens[key]) if key else _least(cache, pushes=pushes)
        what = f"token {key} for {user}" if key else f"the token of {user}"
        if token.secret:
            holder = _holder(platform, what, token.secret)
        elif token.login:
            holder = Holder(what, f"~{token.login}/.config/attic/config.toml", "written by `attic login`")
        else:
            holder = Holder(
                what,
                f"CI variable {token.variable or 'ATTIC_TOKEN'} of {user}",
                "masked and protected, in GitLab",
            )
        validity = attic.tokens[key].validity if key else 90 * 86400.0
        found.append(_Kept(key, grants, key or user.replace(" ", "-"), validity, holder, token.secret or ""))
    placed = {one.token for one in found if one.holder.where != _NOWHERE}
    return [one for one in found if one.holder.where != _NOWHERE or one.token not in placed]


def _users(platform: Platform, server: str) -> Iterator[tuple[str, str, PushToken, bool]]:
    """Give who uses a token of a server: in words, for which cache, where it is, and whether it pushes."""
    topology = platform.topology
    for pipeline in topology.pipelines:
        for push in platform.pushes(pipeline):
            if push.ref.service == f"attic:{server}" and push.push.policy != "off":
                yield f"pipeline {pipeline}", push.ref.cache, push.push.token, True
    for name, audit in topology.audits.items():
        ref = resolve_cache(topology, audit.cache)
        if ref.service == f"attic:{server}" and audit.token:
            yield f"audit {name}", ref.cache, PushToken(secret=audit.token), False


def _covers(token: Token, cache: str, *, pushes: bool) -> bool:
    return any(matches(pattern, cache) for pattern in (token.push if pushes else token.pull))


def _least(cache: str, *, pushes: bool) -> dict[Permission, tuple[str, ...]]:
    permissions = (Permission.PULL, Permission.PUSH) if pushes else (Permission.PULL,)
    return dict.fromkeys(permissions, (cache,))


def _grants(token: Token) -> dict[Permission, tuple[str, ...]]:
    named: dict[Permission, tuple[str, ...]] = {
        permission: getattr(token, permission.replace("-", "_")) for permission in Permission
    }
    return {permission: patterns for permission, patterns in named.items() if patterns}


def _holder(platform: Platform, what: str, secret: str | None) -> Holder:
    declared = platform.topology.secrets.get(secret or "")
    if secret is None or declared is None:
        return Holder(what, _NOWHERE)
    uses = platform_secrets(platform)
    hosts = [host for host, held in uses.items() if secret in held]
    units = dict.fromkeys(unit for host in hosts for unit in uses[host][secret].units)
    detail = [f"{declared.format} file on {', '.join(hosts)}" if hosts else f"{declared.format} file"]
    if units:
        detail.append(f"read by {', '.join(units)}")
    if declared.source:
        detail.append(f"from {declared.source}")
    return Holder(what, f"secret {secret} ({secret_path(secret, declared)})", "; ".join(detail))


def platform_secrets(platform: Platform) -> dict[str, dict[str, SecretUse]]:
    """Give every host's secrets and the units that read them, those for reading private caches included."""
    netrc = {
        host: netrc_lines(platform, host, platform.cache_uses(f"host:{host}"))
        for host in platform.topology.hosts
    }
    return secrets_by_host(platform, netrc)


def _readers(platform: Platform, server: str) -> Iterator[tuple[str, list[str]]]:
    for context in platform.contexts:
        caches = [
            use.ref.cache
            for use in platform.cache_uses(context)
            if use.ref.service == f"attic:{server}" and not use.public
        ]
        if caches and context.startswith(("host:", "shell:", "docker:", "pod:")):
            yield context, caches


def _source(platform: Platform, secret: str | None) -> str:
    declared = platform.topology.secrets.get(secret or "")
    if declared is None:
        return "the server's environment file"
    edit = f" (`agenix -e {declared.source}`)" if declared.provider == "agenix" and declared.source else ""
    return f"secret {secret}{edit}"


def _renewal(platform: Platform, server: str, one: _Kept) -> str:
    secret = platform.topology.attic[server].secret
    declared = platform.topology.secrets.get(secret or "")
    if declared and declared.provider == "agenix" and declared.source:
        key = f"--secret-age {declared.source}"
    else:
        key = f"--secret-file {secret_path(secret, declared) if secret and declared else '-'}"
    flags = " ".join(
        f"--{permission} {shlex.quote(pattern)}"
        for permission, patterns in one.grants.items()
        for pattern in patterns
    )
    life = format_duration(one.validity)
    out = f"{one.subject}.token"
    place = _source(platform, one.secret) if one.secret else one.holder.where
    return (
        f"`kingpost token mint {flags} --subject {shlex.quote(one.subject)} --validity {life} {key} --out {out}`, "
        f"then put it into {place} and delete {out}"
    )


def _checks(server: str, kept: list[_Kept]) -> Iterator[str]:
    named = (pattern for one in kept for patterns in one.grants.values() for pattern in patterns)
    for cache in dict.fromkeys(pattern for pattern in named if "*" not in pattern):
        yield (
            f"check each where it is used: `kingpost token check --server URL --cache {cache} --token-file FILE` "
            f"(URL: `kingpost explain` for attic:{server} in that context)"
        )
