"""`kingpost trace`: who really served each path of a Nix run."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from kingpost.base.errors import InvalidInputError, UsageError
from kingpost.cli.outputs import Json, Junit, LedgerFile, NoLedger, Outputs, Prometheus, finish

if TYPE_CHECKING:
    from kingpost.observe.trace import Trace


def command(
    traced: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND", help="nix build …, for example.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Read this internal-json log; - is stdin.", metavar="FILE")
    ] = None,
    keep_log: Annotated[
        Path | None, typer.Option(help="Keep the raw log of the run here.", metavar="FILE")
    ] = None,
    topology: Annotated[
        Path | None, typer.Option(help="Resolves the names of --require.", metavar="FILE")
    ] = None,
    require: Annotated[
        list[str] | None, typer.Option(metavar="CACHE", help="Fail unless this cache (or URL) served a path.")
    ] = None,
    max_fallbacks: Annotated[
        int | None, typer.Option(min=0, help="Fail if more promised paths were not delivered.")
    ] = None,
    max_local_builds: Annotated[int | None, typer.Option(min=0, help="Fail if more was built here.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not show the command's own output.")] = False,
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Run a Nix command, or read its log, and say who served each path and who was passed over, and why.

    The exit code is 1 when the command failed, a gate did not hold or a substituter was complained about.
    """
    from kingpost.observe.trace import Trace
    from kingpost.observe.trace_report import Gates, judge, stories
    from kingpost.observe.trace_run import closure, follow

    if (log is None) == (not traced):
        raise UsageError(
            "give either a command or --log",
            fix="`kingpost trace -- nix build .#x` or `kingpost trace --log FILE`",
        )
    gates = Gates(_required(require or [], topology), max_fallbacks, max_local_builds)
    trace = Trace(live=log is None)
    returncode: int | None = None
    present: list[str] = []
    if log is not None:
        _read(log, trace)
    else:
        with ExitStack() as stack:
            kept = stack.enter_context(_writable(keep_log)) if keep_log else None
            returncode = follow(traced or [], trace, None if quiet else sys.stderr, kept, own_stdout=json)
        if returncode == 0:
            present = closure("nix-store", [story.path for story in trace.paths.values() if story.served_by])
    outputs = Outputs(json, junit, prometheus, ledger, no_ledger)
    return finish("trace", judge(trace, gates, returncode), outputs, paths=stories(trace, present))


def _required(names: list[str], topology: Path | None) -> dict[str, frozenset[str]]:
    """Give the URLs that each required cache is known by: every context's, as each dials it."""
    if not names:
        return {}
    declared = [name for name in names if "://" not in name]
    if declared and topology is None:
        raise UsageError(f"--require {declared[0]}: a name needs --topology", fix="or give the cache's URL")
    found = {name: frozenset({name.rstrip("/")}) for name in names if "://" in name}
    if declared and topology is not None:
        from kingpost.topology.loader import load
        from kingpost.topology.names import all_caches, match_name
        from kingpost.topology.places import Dialer
        from kingpost.topology.platform import Platform

        platform = Platform(load(topology).topology)
        caches = all_caches(platform.topology)
        for name in declared:
            full = [ref for key, ref in caches.items() if key == name or key.startswith(f"{name}/")]
            refs = full or [caches[match_name(name, caches, "cache")]]
            found[name] = frozenset(
                url.rstrip("/")
                for ref in refs
                for context in platform.contexts
                for dialer in Dialer
                if (url := platform.cache_use(context, dialer, ref).url)
            )
    return found


def _read(path: Path, trace: Trace) -> None:
    from kingpost.observe.nixlog import lines

    try:
        if str(path) == "-":
            trace.feed_all(lines(sys.stdin))
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            trace.feed_all(lines(file))
    except OSError as error:
        raise InvalidInputError(f"the log cannot be read: {error.strerror}", where=str(path)) from None


def _writable(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"the log cannot be kept: {error.strerror}", where=str(path)) from None
