"""`kingpost bucket`: what a bucket's two views say, and a restart that leaves evidence."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kingpost.base.errors import CannotLookError, UsageError
from kingpost.base.units import parse_duration
from kingpost.cli.outputs import Json, Junit, LedgerFile, NoLedger, Outputs, Prometheus, Recorder, finish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kingpost.base.verdict import Verdict
    from kingpost.cache.s3 import S3
    from kingpost.observe.bucket_disk import Directory
    from kingpost.observe.bucket_evidence import Server
    from kingpost.observe.bucket_interim import Interim

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_FILE: dict[str, Any] = {"metavar": "FILE", "dir_okay": False}
Name = Annotated[str, typer.Argument(metavar="BUCKET", help="Its name, or its key in the topology.")]
TopologyOption = Annotated[
    Path | None, typer.Option("--topology", help="Take what is not given from it.", **_FILE)
]
EndpointUrl = Annotated[
    str, typer.Option("--endpoint", metavar="URL", help="The S3 server, without the bucket.")
]
Region = Annotated[str, typer.Option(help="Signed into every request.")]
CredentialsFile = Annotated[
    Path | None,
    typer.Option(
        "--credentials", help="AWS_ACCESS_KEY_ID and its twin; without, from the environment.", **_FILE
    ),
]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Sign nothing.")]
Disks = Annotated[
    list[str],
    typer.Option(
        "--disk",
        metavar="WHERE",
        help="The server's data directory: PATH, ssh:HOST:PATH or kube:NAMESPACE/deployment/NAME:PATH;"
        " by default the declared one.",
    ),
]
Provider = Annotated[
    str, typer.Option(metavar="NAME", help="rustfs, minio, or another that keeps no metadata there.")
]
ServerPlace = Annotated[
    str,
    typer.Option(
        "--server", metavar="WHERE", help="Its unit: UNIT, ssh:HOST:UNIT or kube:NAMESPACE/deployment/NAME."
    ),
]
KubeContext = Annotated[str, typer.Option(metavar="NAME", help="kubectl's --context.")]
EvidenceDirectory = Annotated[
    Path | None, typer.Option("--evidence", metavar="DIR", help="Where evidence goes.")
]


@dataclass(frozen=True, slots=True)
class Target:
    """The bucket that options amount to, and where its server is."""

    bucket: str
    s3: S3
    directories: tuple[Directory, ...]
    server: Server | None
    secrets: tuple[str, ...]


@app.command(no_args_is_help=True)
def rca(
    *,
    name: Name,
    topology: TopologyOption = None,
    endpoint: EndpointUrl = "",
    region: Region = "",
    credentials: CredentialsFile = None,
    anonymous: Anonymous = False,
    disk: Disks = [],  # noqa: B006 - typer copies it
    provider: Provider = "",
    server: ServerPlace = "",
    kube_context: KubeContext = "",
    scratch_probe: Annotated[
        bool, typer.Option(help="Also create, use and delete a bucket of its own.")
    ] = False,
    strict_scratch_disk_markers: Annotated[
        bool, typer.Option(help="Its directories must appear on the disk, and go.")
    ] = False,
    since: Annotated[
        str, typer.Option(metavar="30m", help="Keep evidence of that time (needs --server).")
    ] = "",
    evidence: EvidenceDirectory = None,
    expect_interim: Annotated[
        str,
        typer.Option(metavar="WAIVER", help="Accept the state that this waiver of the topology declares."),
    ] = "",
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Compare a bucket as S3 shows it with what is on the server's disk, and name what is wrong.

    Nothing is changed but, with --scratch-probe, a bucket of its own.
    """
    from datetime import UTC, datetime

    from kingpost.observe import bucket_scratch
    from kingpost.observe.bucket_interim import judged

    now = datetime.now(UTC)
    interim = _interim(topology, expect_interim) if expect_interim else None
    if strict_scratch_disk_markers and not scratch_probe:
        raise UsageError("strict markers need something to follow", fix="add --scratch-probe")
    if since and not server:
        raise UsageError("--since collects from the server", fix="add --server")
    target = find_target(
        name,
        topology,
        endpoint,
        region,
        credentials,
        disk,
        provider,
        server,
        kube_context,
        anonymous=anonymous,
    )
    if strict_scratch_disk_markers and not target.directories:
        raise UsageError("strict markers need a disk to look at", fix="add --disk")
    verdicts = views(target)
    if interim:
        verdicts[0] = judged(verdicts[0], interim, name, now.date())
    if since and target.server:
        verdicts += _evidence(target, target.server, since, evidence, verdicts)
    if scratch_probe:
        verdicts += bucket_scratch.run(
            target.s3, directories=target.directories, strict=strict_scratch_disk_markers
        )
        verdicts += bucket_scratch.leftovers(target.s3, now)
    return finish("bucket rca", verdicts, Outputs(json, junit, prometheus, ledger, no_ledger))


@app.command(no_args_is_help=True)
def restart(
    *,
    name: Name,
    server: ServerPlace,
    topology: TopologyOption = None,
    endpoint: EndpointUrl = "",
    region: Region = "",
    credentials: CredentialsFile = None,
    anonymous: Anonymous = False,
    disk: Disks = [],  # noqa: B006 - typer copies it
    provider: Provider = "",
    kube_context: KubeContext = "",
    confirm: Annotated[str, typer.Option(metavar="PHRASE", help="The phrase that the plan shows.")] = "",
    accept_state: Annotated[
        list[str], typer.Option(metavar="STATE", help="Restart in this state too, on your responsibility.")
    ] = [],  # noqa: B006
    timeout: Annotated[
        str, typer.Option(metavar="5m", help="How long to wait for the server and the bucket.")
    ] = "5m",
    since: Annotated[str, typer.Option(metavar="30m", help="How much log to keep.")] = "1h",
    evidence: EvidenceDirectory = None,
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Restart a storage server whose bucket index diverged: evidence first, recovery proven after.

    Without --confirm only the plan is shown. A restart is recovery and no fix; earlier ones are counted by image.
    """
    from kingpost.observe.bucket import State
    from kingpost.repair import bucket as repair

    if not server:
        raise UsageError(
            "--server names nothing to restart", fix="write UNIT, ssh:HOST:UNIT or kube:NS/KIND/NAME"
        )
    try:
        accepted = [State(state) for state in accept_state]
    except ValueError:
        raise UsageError(f"{accept_state} names no state", fix=f"take of: {', '.join(State)}") from None
    target = find_target(
        name,
        topology,
        endpoint,
        region,
        credentials,
        disk,
        provider,
        server,
        kube_context,
        anonymous=anonymous,
    )
    assert target.server is not None  # noqa: S101 - --server is required
    plan = repair.Restart(target.server, target.bucket, _seconds(timeout, "--timeout"))
    if confirm != plan.phrase:
        if confirm:
            raise UsageError(
                f"--confirm {confirm} is not the phrase for this target", fix=f"it is {plan.phrase}"
            )
        print("\n".join([*plan.in_words(), f"To do it: add --confirm {plan.phrase}"]), file=sys.stderr)
        return 0
    outputs = Outputs(json, junit, prometheus, ledger, no_ledger)
    before = views(target)
    _record_views(before, outputs)
    with Recorder("bucket restart", outputs) as recorder:
        kept = _evidence(target, target.server, since, evidence, before)
        recorder.add(kept)
        subject, state = before[0].subject, before[0].evidence.get("state")
        if refused := repair.refusal(State(state) if state else None, accepted):
            finish("bucket restart", [*kept, *before], outputs, recorder=recorder)
            raise refused
        image = str(next((v.evidence["image"] for v in kept if "image" in v.evidence), ""))
        earlier = repair.recurrences(recorder.ledger, subject, image) if recorder.ledger else []
        recorder.add([repair.begun(plan, subject, image)])
        after = [
            *repair.apply(plan, target.s3, target.directories, image),
            *repair.recurrence(subject, image, earlier),
        ]
        recorder.add(after)
        with suppress(CannotLookError):  # it may be down now: that is said by the verdict on the restart
            _record_views(views(target), outputs)
        return finish(
            "bucket restart",
            [*kept, *after],
            outputs,
            recorder=recorder,
            note=f"before it was {before[0].code}",
            before=before[0].as_dict(),
        )


def _record_views(verdicts: Sequence[Verdict], outputs: Outputs) -> None:
    """Record what was seen as what it is, a look at the bucket: its history must not depend on the restart."""
    from kingpost.base.verdict import exit_code

    with Recorder("bucket rca", outputs) as recorder:
        recorder.add(verdicts)
        recorder.end(exit_code(verdicts))


def views(target: Target) -> list[Verdict]:
    """Give the verdict on both views of a bucket, and one more when the disk could not be seen."""
    from kingpost.observe import bucket, bucket_codes, bucket_disk

    unseen: list[Verdict] = []
    disk = None
    if target.directories:
        try:
            disk = bucket_disk.look(target.directories, target.bucket)
        except CannotLookError as error:
            subject = ", ".join(map(str, target.directories))
            unseen = [
                bucket_codes.DISK_UNSEEN.verdict(subject, error.what, {"why": error.why}, remedy=error.fix)
            ]
    api = bucket.look(target.s3, target.bucket)
    return [bucket.judge(target.bucket, target.s3.endpoint.url, api, disk), *unseen]


def _evidence(
    target: Target, server: Server, since: str, directory: Path | None, verdicts: Sequence[Verdict]
) -> list[Verdict]:
    from kingpost.observe import bucket_evidence

    found = bucket_evidence.collect(server, target.directories, _seconds(since, "--since"))
    place = directory or bucket_evidence.default_directory(target.bucket)
    return bucket_evidence.keep(place, found, verdicts, target.secrets, str(server))


def _interim(topology: Path | None, waiver: str) -> Interim:
    from kingpost.cli.topology_file import read
    from kingpost.observe.bucket_interim import Interim

    if topology is None:
        raise UsageError("--expect-interim names a waiver of a topology", fix="add --topology topology.toml")
    declared = read(topology).loaded.topology.waivers
    if waiver not in declared:
        raise UsageError(
            f"there is no waiver {waiver!r}",
            where=str(topology),
            fix=f"declared are: {', '.join(declared) or 'none'}",
        )
    found = declared[waiver]
    return Interim(waiver, found.code, found.on, found.reason, found.owner, found.expires)


def find_target(
    name: str,
    topology: Path | None,
    endpoint: str,
    region: str,
    credentials: Path | None,
    disk: list[str],
    provider: str,
    server: str,
    kube_context: str,
    *,
    anonymous: bool,
) -> Target:
    """Give the bucket that options and topology amount to. Nothing is contacted yet."""
    import re

    from kingpost.base.http import require_url
    from kingpost.cache import s3
    from kingpost.observe import bucket_declared, bucket_place
    from kingpost.observe.bucket_evidence import Server

    bucket, addressing = name, "path"
    directories: list[Directory] = []
    if topology is not None:
        from kingpost.cli.topology_file import read

        platform = read(topology).platform
        declared = platform.topology.buckets.get(name)
        if declared is None:
            names = ", ".join(platform.topology.buckets) or "none"
            raise UsageError(
                f"there is no bucket {name!r}", where=str(topology), fix=f"declared are: {names}"
            )
        bucket, addressing = declared.bucket or name, declared.addressing
        endpoint = endpoint or platform.bucket_endpoint(name)
        region = region or declared.signing_region
        provider = provider or declared.provider
        if not disk and (own := bucket_declared.declared_disk(platform, name, kube_context)):
            directories.append(own)
    if not endpoint:
        raise UsageError("where the S3 server is is not known", fix="give --endpoint URL, or --topology FILE")
    endpoint = require_url(endpoint, "--endpoint")
    if region and not re.fullmatch(r"[A-Za-z0-9-]+", region):
        raise UsageError(
            f"--region {region!r} is no region", fix="write for example us-east-1, or auto for R2"
        )
    if not s3.is_bucket_name(bucket):
        raise UsageError(
            f"{bucket!r} is no name of a bucket", fix="give the bucket alone; the URL goes to --endpoint"
        )
    key = (
        s3.Credentials()
        if anonymous
        else s3.credentials_from_file(credentials)
        if credentials
        else s3.credentials_from_environment()
    )
    found = s3.S3(
        s3.Endpoint(endpoint, region or "us-east-1", "virtual" if addressing == "virtual" else "path", key)
    )
    directories += _directories(disk, provider or "rustfs", kube_context)
    unit = None
    if server:
        place, rest = bucket_place.parse(server, what="unit", context=kube_context)
        unit = Server(place, rest, provider or "rustfs")
    return Target(bucket, found, tuple(directories), unit, key.secrets)


def _directories(disks: list[str], provider: str, kube_context: str) -> list[Directory]:
    """Give the directories that --disk names."""
    from kingpost.observe import bucket_declared, bucket_disk, bucket_place

    if disks and provider in bucket_declared.OPAQUE:
        raise UsageError(
            f"no bucket can be seen on the disk of {provider}", fix="leave --disk out: only S3 is judged then"
        )
    found = []
    for text in disks:
        place, path = bucket_place.parse(text, what="directory", context=kube_context)
        if not path.startswith("/"):
            raise UsageError(
                f"--disk {text} names no absolute directory", fix="end it with the server's data directory"
            )
        found.append(bucket_disk.Directory(place, path.rstrip("/"), provider))
    return found


def _seconds(text: str, option: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
