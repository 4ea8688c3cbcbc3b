"""`kingpost cache probe`: can one publish? Registered in the group of `kingpost.cli.cache`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kingpost.base.errors import UsageError
from kingpost.base.units import parse_duration, parse_size
from kingpost.cli.declared import ContextName, cache_from
from kingpost.cli.outputs import Json, Junit, LedgerFile, NoLedger, Outputs, Prometheus, Recorder, finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from kingpost.base.verdict import Verdict
    from kingpost.observe.probe_payload import Profile
    from kingpost.observe.probe_push import Client

_FILE: dict[str, Any] = {"metavar": "FILE", "dir_okay": False}


def probe(
    *,
    cache: Annotated[
        str,
        typer.Argument(
            metavar="CACHE",
            help="As the client takes it (file://, s3://, http(s)://), or as --topology names it.",
        ),
    ],
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="synthetic, small, medium, or a pipeline of --topology.")
    ] = "synthetic",
    payload: Annotated[
        list[str],
        typer.Option(metavar="REF", help="Publish this flake output or store path; else a made-up closure."),
    ] = [],  # noqa: B006 - typer copies it
    client: Annotated[
        str, typer.Option(metavar="NAME", help="nix, attic or cachix; without, what fits the URL.")
    ] = "",
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="For attic and cachix.", **_FILE)
    ] = None,
    netrc_file: Annotated[
        Path | None, typer.Option("--netrc-file", help="For nix, and to read back.", **_FILE)
    ] = None,
    read_from: Annotated[
        str, typer.Option(metavar="URL", help="Where to read back; without, from CACHE.")
    ] = "",
    key: Annotated[
        list[str], typer.Option(metavar="NAME:KEY", help="A public key that must have signed.")
    ] = [],  # noqa: B006
    upstream: Annotated[
        list[str], typer.Option(metavar="URL", help="A cache whose paths the client leaves out.")
    ] = [],  # noqa: B006
    bucket: Annotated[str, typer.Option(metavar="NAME", help="Look at this bucket before and after.")] = "",
    endpoint: Annotated[str, typer.Option(metavar="URL", help="Of the bucket's S3 server.")] = "",
    region: Annotated[str, typer.Option(help="Of the bucket.")] = "",
    credentials: Annotated[Path | None, typer.Option(help="Of the bucket.", **_FILE)] = None,
    disk: Annotated[list[str], typer.Option(metavar="WHERE", help="The bucket on its server's disk.")] = [],  # noqa: B006
    topology: Annotated[Path | None, typer.Option(help="Has the cache, pipeline or bucket.", **_FILE)] = None,
    context: ContextName = "",
    threshold: Annotated[
        str, typer.Option(metavar="SIZE", help="The server's nar-size-threshold.")
    ] = "64KiB",
    settle: Annotated[
        str, typer.Option(metavar="TIME", help="Between reading back and looking again.")
    ] = "5s",
    confirm: Annotated[str, typer.Option(metavar="PHRASE", help="The phrase that the plan shows.")] = "",
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Can one publish? Evidence before, a push by the real client, every path read back, evidence after.

    It writes to the cache, so it wants a confirmation that names both it and the profile. What passed is said exactly:
    one tiny path is no evidence for real closures.
    """
    from kingpost.cache.fetch import Access
    from kingpost.cache.token_file import read_token
    from kingpost.observe.audit_crew import Job
    from kingpost.observe.probe import Probe, Request

    found, references = _profile(profile, payload, topology)
    if topology is not None and "://" not in cache:
        known = cache_from(topology, cache, context)
        cache, key = known.url, key or ([known.key] if known.key else [])
    token = read_token(str(token_file)) if token_file else ""
    pusher = _client(client, cache, token_file, token, netrc_file)
    secrets = [token] if token else []
    storage = _storage(bucket, endpoint, region, credentials, disk, topology)
    url = read_from or pusher.read_url
    access = Access(token if url.startswith("http") else "", netrc_file)
    job = Job(url, access, tuple(key), tuple(upstream) or pusher.left_out)
    request = Request(
        found, pusher, job, references, _size(threshold), _seconds(settle), storage, secrets
    )  # fmt: skip
    if confirm != request.phrase:
        if confirm:
            raise UsageError(
                f"--confirm {confirm} is not the phrase for this cache and profile {found.name}",
                fix=f"it is {request.phrase}",
            )
        what = ", ".join(references) or "a made-up closure that no cache has"
        print(
            f"This publishes {what} to {job.auditor().cache.url} by `{pusher.name}`: profile {found.name}, at least "
            f"{found.paths} paths. What is pushed stays until the cache collects it.\n"
            f"To do it: add --confirm {request.phrase}",
            file=sys.stderr,
        )
        return 0
    outputs = Outputs(json, junit, prometheus, ledger, no_ledger)
    with Recorder("cache probe", outputs) as recorder:
        verdicts = Probe(request, recorder.add).run()
        shown = list(references) or "generated"
        # The verdict on the whole stands in the last line, however many paths were read back before it.
        decisive = next((v for v in reversed(verdicts) if v.status == "failed"), verdicts[-1])
        note = f"{decisive.summary} [{decisive.code}]"
        return finish(
            "cache probe", verdicts, outputs, recorder=recorder, note=note, profile=found.name, payload=shown
        )


def _profile(name: str, payload: list[str], topology: Path | None) -> tuple[Profile, list[str]]:
    from kingpost.observe.probe_payload import PROFILES, SYNTHETIC, Profile

    if name in PROFILES:
        if payload and PROFILES[name] is SYNTHETIC:
            raise UsageError(
                "the synthetic profile has a payload of its own", fix="take --profile small or medium"
            )
        return PROFILES[name], payload
    if topology is None:
        raise UsageError(
            f"there is no profile {name!r}",
            fix=f"take {', '.join(PROFILES)}, or name a pipeline and give --topology",
        )
    from kingpost.cli.topology_file import read

    pipelines = read(topology).loaded.topology.pipelines
    if name not in pipelines:
        declared = ", ".join(pipelines) or "none"
        raise UsageError(
            f"there is no pipeline {name!r}", where=str(topology), fix=f"declared are: {declared}"
        )
    # The platform's own closure is representative of itself, whatever its shape.
    return Profile(name, paths=2, above=0, below=0), payload or list(pipelines[name].build)


def _client(name: str, cache: str, token_file: Path | None, token: str, netrc: Path | None) -> Client:
    from urllib.parse import urlsplit

    from kingpost.observe.probe_push import AtticPush, CachixPush, NixCopy

    host = urlsplit(cache).hostname or ""
    fits = "cachix" if host.endswith(".cachix.org") else "attic" if cache.startswith("http") else "nix"
    match name or fits:
        case "nix":
            return NixCopy(cache, netrc)
        case "attic":
            return AtticPush(cache, token_file)
        case "cachix":
            return CachixPush(cache, host.partition(".")[0], token)
        case other:
            raise UsageError(f"--client {other} is unknown", fix="take nix, attic or cachix")


def _storage(
    bucket: str,
    endpoint: str,
    region: str,
    credentials: Path | None,
    disk: list[str],
    topology: Path | None,
) -> Callable[[], list[Verdict]] | None:
    if not bucket:
        return None
    from kingpost.cli.bucket import find_target, views

    # A pipeline's topology need not declare the bucket when its endpoint is given.
    place = find_target(
        bucket,
        None if endpoint else topology,
        endpoint,
        region,
        credentials,
        disk,
        "",
        "",
        "",
        anonymous=False,
    )
    return lambda: views(place)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"--threshold: {error}") from error


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--settle: {error}") from error
