"""`kingpost cache`: are the bodies there, can one publish, the reports of many machines made one."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kingpost.base.errors import InvalidInputError, UsageError
from kingpost.cli.cache_probe import probe
from kingpost.cli.outputs import Json, Junit, LedgerFile, NoLedger, Outputs, Prometheus, Recorder, finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kingpost.base.verdict import Verdict
    from kingpost.cache.fetch import Access
    from kingpost.observe.audit_declared import Declared
    from kingpost.observe.audit_run import Plan

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

_RECORD_EVERY = 1.0  # seconds: so much is lost by a kill


@app.callback()
def _group() -> None:
    """Are the bodies there, can one publish, the reports of many machines made one."""


def _option(name: str, metavar: str, help_: str) -> Any:
    return typer.Option(name, metavar=metavar, help=help_)


@app.command("audit")
def audit(
    *,
    cache: Annotated[
        str, typer.Argument(metavar="CACHE", help="http(s)://…, file:///…, s3://BUCKET?endpoint=…")
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH]...", help="Store paths or their 32 letters; - reads stdin."),
    ] = None,
    closure: Annotated[
        list[str] | None,
        _option("--closure", "PATH", "PATH and all it needs: as Nix here says, else the cache."),
    ] = None,
    flake: Annotated[
        list[str] | None, _option("--flake", "REF", "A flake's output and all it needs.")
    ] = None,
    listing: Annotated[
        list[Path] | None, _option("--list", "FILE", "A list of paths, or an S3 listing.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All paths of a file:// or s3:// cache.")] = False,
    key: Annotated[
        list[str] | None, _option("--key", "NAME:KEY", "A public key to trust; may be repeated.")
    ] = None,
    upstream: Annotated[
        list[str] | None, _option("--upstream", "URL", "A cache that may have it instead.")
    ] = None,
    token_file: Annotated[Path | None, _option("--token-file", "FILE", "Holds the token to send.")] = None,
    netrc_file: Annotated[
        Path | None, _option("--netrc-file", "FILE", "Credentials by host, as Nix has them.")
    ] = None,
    topology: Annotated[Path, _option("--topology", "FILE", "That declares CACHE.")] = Path("topology.toml"),
    context: Annotated[str, _option("--context", "CONTEXT", "Where this runs, for a declared CACHE.")] = "",
    references: Annotated[bool, typer.Option(help="Check that references are in a cache.")] = True,
    verified_since: Annotated[
        str, _option("--verified-since", "AGE", "Skip what the ledger verified: 7d.")
    ] = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Decompress even bodies that the ledger knows.")
    ] = False,
    sample: Annotated[str, _option("--sample", "N|N%", "Only so many of the paths.")] = "",
    seed: Annotated[str, _option("--seed", "TEXT", "Draws the sample; by default the day does.")] = "",
    shard: Annotated[
        str, _option("--shard", "I/N", "Only this part; by default as GitLab or the Job says.")
    ] = "",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Paths at once; 0 chooses.")] = 0,
    bandwidth: Annotated[str, _option("--bandwidth", "SIZE", "At most so much a second: 20MB.")] = "",
    attempts: Annotated[
        int, typer.Option("--attempts", min=1, help="For what may succeed when asked again.")
    ] = 3,
    connect_timeout: Annotated[str, _option("--connect-timeout", "TIME", "For the handshakes.")] = "15s",
    stall_timeout: Annotated[
        str, _option("--stall-timeout", "TIME", "So long below 1 byte/s is a stall.")
    ] = "60s",
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Is what the cache promises really there?

    Fetches every body as a substituter does, redirects included, and compares it with its narinfo: signature, size,
    hash, NAR structure, references. Nothing is kept: a NAR of any size takes the same memory. A declared CACHE has its
    address, key and upstreams from the topology, as --context dials them, and the token that this host holds.
    """
    from kingpost.base.units import parse_duration, parse_size
    from kingpost.observe.audit_crew import Job
    from kingpost.observe.audit_prepare import Request, prepare
    from kingpost.report import terminal

    outputs = Outputs(json, junit, prometheus, ledger, no_ledger)
    declared = None if _is_address(cache) else _declared(cache, topology, context)
    if declared is not None:
        token_file = token_file or next((file for file in declared.token_files if file.is_file()), None)
    access = _access(
        token_file,
        netrc_file,
        _unit("--connect-timeout", connect_timeout, parse_duration),
        _unit("--stall-timeout", stall_timeout, parse_duration),
    )
    url, keys, upstreams = cache, tuple(key or ()), tuple(upstream or ())
    if declared is not None:
        url, keys, upstreams = declared.url, keys or declared.keys, (*upstreams, *declared.upstreams)
    rate = _unit("--bandwidth", bandwidth, parse_size) if bandwidth else None
    job = Job(url, access, keys, upstreams, attempts, rate)
    age = _unit("--verified-since", verified_since, parse_duration) if verified_since else None
    request = Request(
        job, paths or (), closure or (), flake or (), listing or (), everything, references, fresh, age,
        sample, seed, shard, jobs,
    )  # fmt: skip
    with Recorder("cache audit", outputs) as recorder:
        prepared = prepare(request, recorder.ledger)
        recorder.add(prepared.found)
        verdicts = [*prepared.found, *prepared.before]
        facts, note = prepared.facts, ""
        if prepared.plan is not None:
            try:
                counted = _run(prepared.plan, recorder, verdicts)
            except KeyboardInterrupt:
                if not outputs.json:  # a document that is not whole could be merged as if it were
                    terminal.show(
                        verdicts, sys.stdout, note=f"interrupted; there were {prepared.listed} paths"
                    )
                raise
            facts |= counted
            note = _note(counted, prepared.listed)
        return finish("cache audit", verdicts, outputs, recorder=recorder, note=note, **facts)


app.command("probe")(probe)


@app.command("merge")
def merge(
    *,
    reports: Annotated[
        list[Path], typer.Argument(metavar="REPORT...", help="Files of `cache audit --json`.")
    ],
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Make the reports of an audit's shards one; a shard that is missing is a failure."""
    from kingpost.observe.audit_merge import merge as merge_reports

    merged = merge_reports(reports)
    outputs = Outputs(json, junit, prometheus, ledger, no_ledger)
    note = f"{merged.facts['paths']} paths in {merged.facts['reports']} reports"
    return finish("cache audit", merged.verdicts, outputs, note=note, **merged.facts)


def _access(token_file: Path | None, netrc_file: Path | None, connect: float, stall: float) -> Access:
    from kingpost.cache.fetch import Access

    return Access(_token(token_file) if token_file else "", netrc_file, connect, stall)


def _token(file: Path) -> str:
    """Read a bare token, or the one token in an env file."""
    from kingpost.cache.token_file import read_token

    try:
        words = file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise InvalidInputError(f"the token cannot be read: {reason}", where=str(file)) from error
    return words[0] if len(words) == 1 and "=" not in words[0].rstrip("=") else read_token(str(file))


def _is_address(cache: str) -> bool:
    return "://" in cache or cache.startswith(("/", "./", "../", "file:"))


def _declared(cache: str, topology: Path, context: str) -> Declared:
    from kingpost.cli.topology_file import read
    from kingpost.observe.audit_declared import declared_cache

    if not topology.exists():
        raise UsageError(
            f"{cache!r} is no address, and there is no topology that could declare it",
            where=str(topology),
            fix="write http://…, file:///…, s3://… or ./DIRECTORY, or name the topology with --topology",
        )
    if not context:
        raise UsageError(
            f"the address of {cache} depends on where this runs",
            fix="say it with --context; `kingpost matrix` lists the contexts",
        )
    return declared_cache(read(topology).platform, cache, context)


def _unit(option: str, text: str, parse: Callable[[str], float]) -> float:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def _run(plan: Plan, recorder: Recorder, verdicts: list[Verdict]) -> dict[str, Any]:
    """Run a plan, recording as it goes; gives how much was looked at."""
    from kingpost.observe.audit_run import run

    began = time.monotonic()
    counted = {"paths": 0, "nar_bytes": 0, "body_bytes": 0}
    unrecorded: list[Verdict] = []
    last = began
    try:
        with _progress() as say:
            for outcome in run(plan):
                counted["paths"] += 1
                counted["nar_bytes"] += outcome.nar_bytes
                counted["body_bytes"] += outcome.body_bytes
                unrecorded += outcome.verdicts
                if time.monotonic() - last > _RECORD_EVERY:
                    recorder.add(unrecorded)
                    verdicts += unrecorded
                    unrecorded = []
                    last = time.monotonic()
                    say(f"{counted['paths']} paths, {counted['nar_bytes'] / 1e6:.0f} MB of NAR")
    finally:  # also when interrupted
        recorder.add(unrecorded)
        verdicts += unrecorded
    return {**counted, "seconds": round(time.monotonic() - began, 3)}


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Give a function that overwrites one line on a terminal, and says nothing elsewhere."""
    shown = sys.stderr.isatty()
    yield lambda text: print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True) if shown else None
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _note(counted: dict[str, Any], listed: int) -> str:
    from kingpost.base.units import approximate_size

    paths, seconds = counted["paths"], counted["seconds"]
    part = f" of {listed}" if listed > paths else ""
    rate = counted["nar_bytes"] / 1e6 / seconds if seconds else 0.0
    speed = f" at {rate:.0f} MB/s" if rate >= 1 else ""
    return f"{paths}{part} paths, {approximate_size(counted['nar_bytes'])} of NAR in {seconds:.2g} s{speed}"
