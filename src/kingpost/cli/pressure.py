"""`kingpost pressure`: who was killed for memory, and what runs out next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kingpost.base.errors import UsageError
from kingpost.cli.outputs import Json, Junit, LedgerFile, NoLedger, Outputs, Prometheus, finish
from kingpost.cli.ways import Enter, HostNames, ThisHost, TopologyOption, entrance, known, verdict_codes


def command(
    topology: TopologyOption = Path("topology.toml"),
    host: HostNames = None,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Judge the kills in a saved journal or dmesg; enters no host."),
    ] = None,
    since: Annotated[str, typer.Option(metavar="DURATION", help="How far to look back for kills.")] = "7d",
    dead: Annotated[
        bool, typer.Option("--dead/--no-dead", help="Weigh dead store paths, which reads the whole store.")
    ] = True,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CODE", help="Show only these verdicts.")
    ] = None,
    enter: Enter = None,
    here: ThisHost = None,
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Say who was killed for memory, at which limit, and how far the budget lets it be raised.

    Also what each limited unit uses, pressure stall information, the budget in effect, and disks with the
    threshold that comes next. Nothing is changed anywhere.
    """
    from kingpost.base.units import parse_duration
    from kingpost.observe.pressure import Scope, examine, from_journal
    from kingpost.topology.loader import load
    from kingpost.topology.platform import Platform

    chosen = verdict_codes(only)
    platform = Platform(load(topology).topology)
    hosts = frozenset(known("--host", name, platform.topology.hosts, "host") for name in host or ())
    if journal is not None:
        if len(hosts) > 1:
            raise UsageError("--journal: a journal is from one host", fix="name it with one --host")
        verdicts = from_journal(platform, journal, next(iter(hosts), None))
    else:
        try:
            seconds = parse_duration(since)
        except ValueError as error:
            raise UsageError(f"--since: {error}") from None
        verdicts = examine(platform, entrance(platform, here, enter), Scope(hosts, seconds, dead))
    shown = [verdict for verdict in verdicts if not chosen or verdict.code in chosen]
    return finish("pressure", shown, Outputs(json, junit, prometheus, ledger, no_ledger))
