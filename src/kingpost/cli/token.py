"""`kingpost token`: mint, inspect, check, lint and rotate the tokens of an Attic server."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kingpost.base.errors import UsageError
from kingpost.base.units import format_duration, parse_duration
from kingpost.cli.declared import ContextName, cache_from, token_from
from kingpost.cli.outputs import Json, Junit, LedgerFile, NoLedger, Outputs, Prometheus, finish

if TYPE_CHECKING:
    from kingpost.cache.token_keys import SigningKey

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_FILE: dict[str, Any] = {"metavar": "FILE", "dir_okay": False}
Patterns = Annotated[list[str], typer.Option(metavar="PATTERN", help="On this cache, or pattern with `*`.")]
SecretFile = Annotated[
    str, typer.Option(metavar="FILE", help="Signing key: base64, PEM or atticd's env file; `-` reads stdin.")
]
SecretAge = Annotated[Path | None, typer.Option(help="Signing key: agenix secret, read by `age`.", **_FILE)]
Identity = Annotated[Path, typer.Option(help="Identity for --secret-age.", **_FILE)]
SecretKube = Annotated[
    str, typer.Option(metavar="NS/NAME:KEY", help="Signing key: a Kubernetes secret, read by `kubectl`.")
]
KubeContext = Annotated[str, typer.Option(metavar="NAME", help="kubectl's --context.")]
TokenFile = Annotated[
    str,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="The token: bare file, env file, netrc or Attic's config.toml; `-` reads stdin.",
    ),
]
Machine = Annotated[str, typer.Option(metavar="HOST", help="Host of the netrc entry.")]

TopologyOption = Annotated[Path | None, typer.Option("--topology", help="What declares it.", **_FILE)]

HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key")


@app.command(no_args_is_help=True)
def mint(
    *,
    pull: Patterns = [],  # noqa: B006 - typer copies it
    push: Patterns = [],  # noqa: B006
    delete: Patterns = [],  # noqa: B006
    create_cache: Patterns = [],  # noqa: B006
    configure_cache: Patterns = [],  # noqa: B006
    configure_cache_retention: Patterns = [],  # noqa: B006
    destroy_cache: Patterns = [],  # noqa: B006
    declared: Annotated[
        str, typer.Option("--token", metavar="NAME", help="Also what this token of --topology declares.")
    ] = "",
    topology: TopologyOption = None,
    subject: Annotated[str, typer.Option("--subject", "--sub", help="Who will use it.")] = "",
    validity: Annotated[
        str, typer.Option(help="How long it lives: 1h, 7d. By default as declared, else 15m.")
    ] = "",
    backdate: Annotated[
        str, typer.Option(help="Valid that much earlier, for a lagging server clock.")
    ] = "60s",
    issuer: Annotated[str, typer.Option(help="For a server with token-bound-issuer.")] = "",
    audience: Annotated[list[str], typer.Option(help="For one with token-bound-audiences.")] = [],  # noqa: B006
    secret_file: SecretFile = "",
    secret_age: SecretAge = None,
    identity: Identity = HOST_KEY,
    secret_kube: SecretKube = "",
    kube_context: KubeContext = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the bare token here, mode 0600.", **_FILE)
    ] = None,
    netrc: Annotated[
        Path | None, typer.Option(help="Put it into this netrc, mode 0600 (needs --machine).", **_FILE)
    ] = None,
    machine: Machine = "",
    json: Json = False,
) -> None:
    """Mint a token with just the permissions named, for minutes.

    Permissions on overlapping patterns add up, though Attic itself merges nothing: entries are written so that
    its choice carries them all. The token goes to a file that only its owner reads, never to the terminal.
    """
    from kingpost.cache import token, token_file
    from kingpost.cache.token import Permission
    from kingpost.cache.token_inspect import in_words
    from kingpost.cache.token_patterns import expanded

    _check_destination(out, netrc, machine)
    named = {
        Permission.PULL: pull,
        Permission.PUSH: push,
        Permission.DELETE: delete,
        Permission.CREATE_CACHE: create_cache,
        Permission.CONFIGURE_CACHE: configure_cache,
        Permission.CONFIGURE_CACHE_RETENTION: configure_cache_retention,
        Permission.DESTROY_CACHE: destroy_cache,
    }
    lifetime = token.DEFAULT_LIFETIME
    if declared:
        if topology is None:
            raise UsageError("--token names a token of a topology", fix="add --topology topology.toml")
        found = token_from(topology, declared)
        named = {p: [*patterns, *getattr(found, p.replace("-", "_"))] for p, patterns in named.items()}
        lifetime, subject = found.validity, subject or declared.rpartition("/")[2]
    request = token.Request(
        subject=subject or "kingpost",
        grants=token.grants(
            (permission, pattern) for permission, patterns in named.items() for pattern in patterns
        ),
        lifetime=_seconds(validity, "--validity") if validity else lifetime,
        backdate=_seconds(backdate, "--backdate"),
        issuer=issuer,
        audiences=tuple(audience),
    )
    now = int(time.time())
    token.claims(request, now)  # before a secret is touched: are the names good?
    key = _key(secret_file, secret_age, identity, secret_kube, kube_context)
    if key is None:
        raise UsageError(
            "say where the signing key is", fix="give --secret-file, --secret-age or --secret-kube"
        )
    signed = token.mint(request, key, now)
    if netrc:
        token_file.write_netrc(netrc, machine, signed)
    elif out:
        token_file.write_token(out, signed)
    grants, notes = in_words(expanded(request.grants)), token.notes(request, key)
    place = str(out or netrc)
    if json:
        document = {
            "schema": "kingpost.token/1",
            "written": place,
            "algorithm": key.algorithm,
            "subject": request.subject,
            "expires": now + int(request.lifetime),
            "grants": grants,
            "notes": notes,
        }
        print(json_module.dumps(document, indent=2))
        return
    print(
        f"{key.algorithm} token for {request.subject}, valid for {format_duration(int(request.lifetime))}: {place}"
    )
    for pattern, words in grants.items():
        print(f"    {pattern}: {words}")
    for note in notes:
        print(f"note: {note}")


@app.command(no_args_is_help=True)
def inspect(
    *,
    holder: TokenFile,
    machine: Machine = "",
    cache: Annotated[str, typer.Option(metavar="NAME", help="Show what it grants on this cache.")] = "",
    server: Annotated[str, typer.Option(metavar="URL", help="Judge its times by this server's clock.")] = "",
    secret_file: SecretFile = "",
    secret_age: SecretAge = None,
    identity: Identity = HOST_KEY,
    secret_kube: SecretKube = "",
    kube_context: KubeContext = "",
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Tell what a token says, in words, and whether Attic would believe it. The token is not shown."""
    from kingpost.base import http
    from kingpost.cache import token_check, token_inspect
    from kingpost.cache.token_file import read_token

    server = http.require_url(server, "--server") if server else ""
    held = read_token(holder, machine)
    key = _key(secret_file, secret_age, identity, secret_kube, kube_context)
    now, clock, ahead = time.time(), "this host's clock", None
    if server:
        with http.client() as client:
            ahead = token_check.clock_difference(client, server, now)
        if ahead is not None:
            now, clock = now + ahead, "the server's clock"
    subject = "the token on standard input" if holder == "-" else f"the token in {holder}"
    verdicts = token_inspect.judge(held, subject, int(now), key=key, clock=clock)
    decoded = token_inspect.decode(held)
    says = token_inspect.summary(decoded) if decoded else {}
    if decoded and cache:
        says["on_cache"] = {cache: sorted(decoded.permissions(cache))}
    if ahead is not None:
        says["server_clock_ahead_seconds"] = round(ahead)
    if not json:
        _print_claims(says)
    outputs = Outputs(json, junit, prometheus, ledger, no_ledger)
    return finish("token inspect", verdicts, outputs, token=says)


@app.command(no_args_is_help=True)
def check(
    *,
    holder: TokenFile,
    cache: Annotated[str, typer.Option(metavar="NAME", help="The cache; with --topology as declared there.")],
    server: Annotated[
        str, typer.Option(metavar="URL", help="The Attic server, without the cache's name.")
    ] = "",
    topology: TopologyOption = None,
    context: ContextName = "",
    machine: Machine = "",
    permission: Annotated[
        list[str], typer.Option(metavar="NAME", help="Check these; without, all that the token claims.")
    ] = [],  # noqa: B006 - typer copies it
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Show on the live server that a token works, by requests that need its permissions and change nothing.

    A bad token is no error to Attic: it counts as none, and on a public cache all looks well.
    """
    from kingpost.base import http
    from kingpost.cache import token_patterns
    from kingpost.cache.token import Permission
    from kingpost.cache.token_check import Check
    from kingpost.cache.token_file import read_token

    if topology is not None and not server:
        found = cache_from(topology, cache, context)
        server, cache = found.server, found.ref.cache
    if not token_patterns.is_name(cache):
        raise UsageError(
            f"{cache!r} is no name of a cache", fix="give the name alone; the URL goes to --server"
        )
    if not server:
        raise UsageError("which server is not said", fix="give --server URL, or --topology and --context")
    server = http.require_url(server, "--server")
    try:
        wanted = [Permission(name) for name in permission]
    except ValueError:
        names = ", ".join(Permission)
        raise UsageError(f"{permission} names an unknown permission", fix=f"take of: {names}") from None
    held = read_token(holder, machine)
    with http.client() as client:
        asking = Check(client, server, cache, held)
        # A token that claims nothing here is asked for what every use begins with.
        verdicts = asking.run(wanted or asking.claimed or [Permission.PULL])
    return finish("token check", verdicts, Outputs(json, junit, prometheus, ledger, no_ledger))


@app.command(no_args_is_help=True)
def lint(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Decrypted files of secrets.")],
    *,
    kind: Annotated[
        str,
        typer.Option(metavar="raw|env", help="What the reader expects: the bare value, or NAME=value lines."),
    ] = "",
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Find newlines, CRLF, quotes, bare tokens and loose modes in files of secrets, never showing a value."""
    from kingpost.cache import token_lint

    if kind not in ("", "raw", "env"):
        raise UsageError(f"--kind {kind} is unknown", fix="take raw or env")
    expected = token_lint.Kind(kind) if kind else None
    verdicts = [verdict for file in files for verdict in token_lint.lint(file, expected)]
    return finish("token lint", verdicts, Outputs(json, junit, prometheus, ledger, no_ledger))


@app.command(no_args_is_help=True)
def rotate(
    *,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="An Attic server (its signing key), SERVER/TOKEN, or a secret."),
    ],
    topology: Annotated[Path, typer.Option("--topology", help="Says who holds what.", **_FILE)] = Path(
        "topology.toml"
    ),
    json: Json = False,
) -> None:
    """Show the plan of a rotation: who holds it, what stops, what stays, and the steps in order. Changes nothing."""
    from kingpost.cli.topology_file import read_checked
    from kingpost.repair.token import plan

    rotation = plan(read_checked(topology).platform, name)
    if json:
        print(json_module.dumps({"schema": "kingpost.rotation/1", **rotation.as_dict()}, indent=2))
        return
    print(f"Rotating {rotation.what}\n\nKept in:")
    for holder in rotation.holders:
        print(f"  - {holder.what}: {holder.where}" + (f"; {holder.detail}" if holder.detail else ""))
    for title, lines in (("Stops until the last step:", rotation.stops), ("Stays:", rotation.untouched)):
        print("\n".join([f"\n{title}", *(f"  - {line}" for line in lines)]))
    print("\nSteps:")
    for number, step in enumerate(rotation.steps, 1):
        print(f"  {number}. {step}")
    print(f"\nUndo: {rotation.undo}")


def _check_destination(out: Path | None, netrc: Path | None, machine: str) -> None:
    if bool(out) == bool(netrc):
        raise UsageError(
            "say where the token goes", fix="give either --out FILE, or --netrc FILE --machine HOST"
        )
    if netrc and not machine:
        raise UsageError("a netrc entry needs a host", fix="add --machine HOST, the host of the cache's URL")


def _key(file: str, age: Path | None, identity: Path, kube: str, kube_context: str) -> SigningKey | None:
    from kingpost.cache import token_keys

    if sum(map(bool, (file, age, kube))) > 1:
        raise UsageError("more than one place is named for the signing key", fix="give one of them")
    if age:
        return token_keys.from_age(age, identity)
    if kube:
        return token_keys.from_cluster(kube, kube_context)
    return token_keys.from_file(file) if file else None


def _seconds(text: str, option: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def _print_claims(says: dict[str, Any]) -> None:
    from kingpost.report.terminal import printable

    for name, value in says.items():
        if isinstance(value, dict):
            for pattern, words in value.items():
                shown = words if isinstance(words, str) else ", ".join(words) or "nothing"
                print(printable(f"{name.replace('_', ' ')}: {pattern}: {shown}"))
        elif value is not None:
            print(printable(f"{name.replace('_', ' ')}: {value}"))
