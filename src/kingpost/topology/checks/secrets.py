"""Secrets: never in the topology, and complete, present and readable where they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kingpost.topology.caches import BucketStorage, Postgres
from kingpost.topology.checks.registry import Example, Finding, Path, check
from kingpost.topology.checks.scene import dotted
from kingpost.topology.redaction import is_key_material, is_secret_name, secret_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.caches import Bucket
    from kingpost.topology.checks.scene import Scene
    from kingpost.topology.guards import Secret

_S3: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@check(
    "KP-SECRET-VALUE",
    title="No secret stands in the topology",
    why="the topology is committed, and what is rendered from it is readable by everyone on the host",
    fix="take it out, make it worthless (revoke, rotate), and declare the file that holds the new one as a secret",
    example=Example(
        bad='[pipelines.blog]\nbuild = [".#default --option access-tokens gitlab.com=glpat-EXAMPLEexample000000"]',
        good='[pipelines.blog]\nbuild = [".#default"]',
        at=("pipelines", "blog", "build", 0),
    ),
)
def in_clear_text(scene: Scene) -> Iterator[Finding]:
    """Find secrets in any text. Their values are never repeated."""
    for path, text in scene.texts:
        kind = None if text in scene.topology.secrets else secret_shape(text)
        if kind is None and "settings" in path and (is_secret_name(str(path[-1])) or is_key_material(text)):
            kind = "a secret"
        if kind is None and "public_key" not in path and is_key_material(text):
            kind = "what looks like key material in base64"
        if kind and text:
            yield Finding(path, f"{dotted(path)} holds {kind}")


@check(
    "KP-SECRET-MISSING",
    title="An Attic server has a secret",
    why="atticd does not start without the key that signs its tokens: it panics with `You must configure JWT`",
    fix='declare an env file as a secret, and name it: `secret = "NAME"`',
    example=Example(
        bad='[attic.second]\nhost = "laptop"\nport = 8090',
        good='[attic.second]\nhost = "laptop"\nport = 8090\nsecret = "attic"',
        at=("attic", "second"),
    ),
)
def no_secret(scene: Scene) -> Iterator[Finding]:
    """Find Attic servers without a secret."""
    for name, attic in scene.topology.attic.items():
        if attic.secret is None:
            yield Finding(("attic", name), f"the Attic server {name} has no secret")


@check(
    "KP-SECRET-VARIABLES",
    title="A secret's file holds every variable that its user needs",
    why="a missing variable shows only when the service starts, or at the first push",
    fix="put the variable into the encrypted file, and add its name to `variables`",
    example=Example(
        bad='[secrets.attic]\nvariables = ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64", "AWS_ACCESS_KEY_ID"]',
        good="[secrets.attic]\nvariables = [\n"
        '  "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",\n]',
        at=("secrets", "attic", "variables"),
    ),
)
def missing_variables(scene: Scene) -> Iterator[Finding]:
    """Find secrets that lack, by declaration, what an Attic server or a bucket reads from them."""
    topology = scene.topology
    for name, attic in topology.attic.items():
        secret = topology.secrets.get(attic.secret or "")
        if attic.secret is None or secret is None or secret.format != "env":
            continue
        needed = [f"ATTIC_SERVER_TOKEN_{attic.algorithm.upper()}_SECRET_BASE64"]
        database = attic.database
        if isinstance(database, Postgres) and (database.url_in_secret or not database.local):
            needed.append("ATTIC_SERVER_DATABASE_URL")
        if isinstance(attic.storage, BucketStorage):
            bucket = topology.buckets.get(attic.storage.bucket)
            host = topology.hosts.get(scene.host_of(attic.host, attic.cluster) or "")
            # On EC2 the instance's role can give the credentials for AWS's own S3.
            by_role = bucket and bucket.provider == "aws" and host and host.ec2
            if bucket and not by_role and bucket.credentials is None:
                needed += _S3
        yield from _lacking(attic.secret, secret, needed, f"the Attic server {name}")
    for name, bucket in topology.buckets.items():
        secret = topology.secrets.get(bucket.credentials or "")
        if bucket.credentials and secret and secret.format == "env":
            yield from _lacking(bucket.credentials, secret, _bucket_keys(bucket), f"the bucket {name}")

    yield from _nameless_tokens(scene)


def _nameless_tokens(scene: Scene) -> Iterator[Finding]:
    """Find tokens in secrets of lines NAME=value that declare no line at all."""
    users = {use.secret: use.what for use in _uses(scene) if "raw" in use.formats}
    for server, attic in scene.topology.attic.items():
        for name, token in attic.tokens.items():
            if token.secret:
                users.setdefault(token.secret, f"the token {name} of {server}")
    for name, user in users.items():
        secret = scene.topology.secrets.get(name)
        if secret and secret.format == "env" and not secret.variables:
            yield Finding(
                ("secrets", name),
                f"{user} is in {name}, which is a file of lines NAME=value and names none",
                fix='write `format = "raw"` if the file holds the bare token, else the line\'s name in `variables`',
            )


def _bucket_keys(bucket: Bucket) -> tuple[str, ...]:
    """Give what a bucket's secret holds: its keys, and what Garage's own server does not start without."""
    at = bucket.listener
    rendered = at is not None and (at.managed or at.cluster is not None)
    return (*_S3, "GARAGE_RPC_SECRET") if bucket.provider == "garage" and rendered else _S3


def _lacking(name: str, secret: Secret, needed: tuple[str, ...] | list[str], user: str) -> Iterator[Finding]:
    lacking = [variable for variable in needed if variable not in secret.variables]
    if lacking:
        yield Finding(
            ("secrets", name, "variables"), f"{user} needs {', '.join(lacking)}, which {name} does not hold"
        )


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a secret: where it is declared, on which host it is read, by whom, and in which form."""

    path: Path
    secret: str
    host: str | None
    user: str
    formats: frozenset[str]
    what: str


_ENV: Final = frozenset({"env"})
_ANY: Final = frozenset({"env", "raw"})


def _uses(scene: Scene) -> Iterator[Use]:
    yield from _server_uses(scene)
    yield from _job_uses(scene)


def _server_uses(scene: Scene) -> Iterator[Use]:
    """Give what systemd reads, as root, before it starts a server, a runner or a check."""
    topology = scene.topology
    for name, attic in topology.attic.items():
        what = f"the Attic server {name}"
        if attic.secret:
            yield Use(("attic", name, "secret"), attic.secret, attic.host, "root", _ENV, what)
        stored_in = attic.storage.bucket if isinstance(attic.storage, BucketStorage) else ""
        bucket = topology.buckets.get(stored_in)
        if bucket and bucket.credentials:
            path: Path = ("buckets", stored_in, "credentials")
            yield Use(path, bucket.credentials, attic.host, "root", _ENV, what)
    for name, runner in topology.runners.items():
        if runner.token:
            yield Use(
                ("runners", name, "token"), runner.token, runner.host, "root", _ANY, f"the runner {name}"
            )
    for name, audit in topology.audits.items():
        if audit.host and audit.token:
            yield Use(("audits", name, "token"), audit.token, audit.host, "root", _ANY, f"the audit {name}")
    yield from _bucket_uses(scene)


def _bucket_uses(scene: Scene) -> Iterator[Use]:
    for name, bucket in scene.topology.buckets.items():
        if bucket.listener and bucket.listener.managed and bucket.credentials:
            path: Path = ("buckets", name, "credentials")
            yield Use(path, bucket.credentials, bucket.listener.host, "root", _ENV, f"the server of {name}")
        if bucket.check and bucket.credentials:
            what = f"the check of the bucket {name}"
            path = ("buckets", name, "credentials")
            yield Use(path, bucket.credentials, bucket.check.host, "root", _ENV, what)


def _job_uses(scene: Scene) -> Iterator[Use]:
    """Give what jobs read: a shell job as its runner's user, one in a container as the container's root."""
    topology = scene.topology
    wanted: list[tuple[Path, str, str | None, str]] = [
        (("audits", name, "token"), audit.runner or "", audit.token, f"the audit {name}")
        for name, audit in topology.audits.items()
    ]
    wanted += [
        (
            (*path, "token", "secret"),
            topology.pipelines[name].runner,
            push.token.secret,
            f"the pipeline {name}",
        )
        for path, name, push in scene.pushes()
    ]
    for path, runner_name, secret, what in wanted:
        runner = topology.runners.get(runner_name)
        if runner and secret:
            user = runner.user if runner.executor == "shell" else "root"
            yield Use(path, secret, runner.host, user, _ANY, what)


@check(
    "KP-SECRET-FORMAT",
    title="A secret has the format that its reader expects",
    why="systemd reads NAME=value lines from an environment file, and takes a bare value for none",
    fix='write `format = "env"` and encrypt NAME=value lines, or `raw` for a bare value',
    example=Example(
        bad='[secrets.attic]\nformat = "raw"\nvariables = []',
        good='[secrets.attic]\nformat = "env"',
        at=("secrets", "attic", "format"),
    ),
)
def wrong_format(scene: Scene) -> Iterator[Finding]:
    """Find secrets whose format does not fit their use, and raw ones with variables."""
    topology = scene.topology
    wanted: dict[str, Use] = {}
    for use in _uses(scene):
        secret = topology.secrets.get(use.secret)
        if secret and secret.format not in use.formats:
            wanted.setdefault(use.secret, use)
    for name, use in wanted.items():
        yield Finding(
            ("secrets", name, "format"),
            f"{use.what} reads {name} as an environment file, and it is declared as raw",
        )
    for name, secret in topology.secrets.items():
        if secret.format == "raw" and secret.variables and name not in wanted:
            yield Finding(("secrets", name, "variables"), f"{name} is raw, so it holds no variables")


@check(
    "KP-SECRET-HOST",
    title="A secret is on every host that reads it",
    why="the service starts without it and fails, or keeps the old generation's until the next reboot",
    fix="add the host to the secret's `hosts`, or leave `hosts` out: it is then on all that use it",
    example=Example(
        bad='[secrets.attic]\nhosts = ["laptop"]',
        good='[secrets.attic]\nhosts = ["node1"]',
        at=("secrets", "attic", "hosts"),
    ),
)
def absent(scene: Scene) -> Iterator[Finding]:
    """Find secrets that are not on a host that reads them."""
    seen = set()
    for use in _uses(scene):
        secret = scene.topology.secrets.get(use.secret)
        if secret is None or use.host is None or use.host in (secret.hosts or (use.host,)):
            continue
        if any(host not in scene.topology.hosts for host in secret.hosts):
            continue  # misspelt, as KP-REF-UNKNOWN says
        if (use.secret, use.host) not in seen:
            seen.add((use.secret, use.host))
            yield Finding(
                ("secrets", use.secret, "hosts"),
                f"{use.what} reads {use.secret} on {use.host}, which does not hold it",
            )


@check(
    "KP-SECRET-READER",
    title="A secret's file is readable by the user that reads it",
    why="the push fails with `Permission denied`, and a best-effort one leaves the cache empty",
    fix="set `owner` to that user",
    example=Example(
        bad="[pipelines.host]\npush = [\n"
        '  { cache = "attic:home/main", policy = "required", token = { secret = "push" } },\n]\n\n'
        '[secrets.push]\nowner = "root"',
        good="[pipelines.host]\npush = [\n"
        '  { cache = "attic:home/main", policy = "required", token = { secret = "push" } },\n]\n\n'
        '[secrets.push]\nowner = "gitlab-runner"',
        at=("secrets", "push"),
    ),
)
def unreadable(scene: Scene) -> Iterator[Finding]:
    """Find secrets whose owner and mode keep their reader out."""
    seen = set()
    for use in _uses(scene):
        secret = scene.topology.secrets.get(use.secret)
        if secret is None or _readable(secret, use.user) or (use.secret, use.user) in seen:
            continue
        seen.add((use.secret, use.user))
        yield Finding(
            ("secrets", use.secret),
            f"{use.what} runs as {use.user}, who may not read {use.secret}:"
            f" it is {secret.owner}:{secret.group} {secret.mode}",
            fix=f'set `owner = "{use.user}"`',
        )


def _readable(secret: Secret, user: str) -> bool:
    mode = int(secret.mode, 8)
    if user == "root":
        return True
    if user == secret.owner:
        return bool(mode & 0o400)
    # Of a user's groups only the one of the same name is known.
    return bool(mode & 0o040 and user == secret.group) or bool(mode & 0o004)


@check(
    "KP-SECRET-MODE",
    title="A secret is not for everyone on its host",
    why="every process there, a CI job among them, can read it",
    fix='write `mode = "0400"`, with the `owner` that reads it',
    example=Example(
        bad='[secrets.attic]\nmode = "0444"',
        good='[secrets.attic]\nmode = "0400"',
        at=("secrets", "attic", "mode"),
    ),
)
def world_readable(scene: Scene) -> Iterator[Finding]:
    """Find secrets that others may read or write."""
    for name, secret in scene.topology.secrets.items():
        if int(secret.mode, 8) & 0o007:
            yield Finding(("secrets", name, "mode"), f"{name} has mode {secret.mode}: everyone may open it")


@check(
    "KP-SECRET-PATH",
    title="A secret that no tool places says where it is",
    why="nothing could refer to it",
    fix='give its `path`, outside the Nix store, for example "/etc/kingpost/attic.env"',
    example=Example(
        bad='[secrets.extra]\nprovider = "path"',
        good='[secrets.extra]\nprovider = "path"\npath = "/etc/kingpost/extra.env"',
        at=("secrets", "extra"),
    ),
)
def nowhere(scene: Scene) -> Iterator[Finding]:
    """Find secrets of the provider `path` without a path, and secrets in the world-readable store."""
    for name, secret in scene.topology.secrets.items():
        if secret.provider == "path" and secret.path is None:
            yield Finding(("secrets", name), f"{name} is a plain file, and its `path` is missing")
        elif secret.path and secret.path.startswith("/nix/store"):
            yield Finding(("secrets", name, "path"), f"{name} is in the Nix store, which everyone can read")
