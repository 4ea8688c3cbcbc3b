"""`kingpost drift`: declared against operational, item by item."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kingpost.base.errors import UsageError
from kingpost.cli.outputs import Json, Junit, LedgerFile, NoLedger, Outputs, Prometheus, finish
from kingpost.cli.ways import (
    Enter,
    HostNames,
    ThisHost,
    TopologyOption,
    entrance,
    known,
    pairs,
    token,
    verdict_codes,
)

if TYPE_CHECKING:
    from kingpost.base.verdict import Verdict


def command(
    topology: TopologyOption = Path("topology.toml"),
    tree: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The generated tree; default: `generated`, if it is there."),
    ] = None,
    host: HostNames = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CODE", help="Show only these verdicts.")
    ] = None,
    enter: Enter = None,
    here: ThisHost = None,
    token_file: Annotated[
        list[str] | None,
        typer.Option(metavar="CACHE=FILE", help="A token that may pull; default: the host's own."),
    ] = None,
    gitlab_token: Annotated[
        list[str] | None,
        typer.Option(metavar="GITLAB=FILE", help="A token that may read runners (read_api)."),
    ] = None,
    runner: Annotated[
        list[str] | None,
        typer.Option(metavar="RUNNER=ID", help="GitLab's id of a runner, where names do not tell."),
    ] = None,
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Compare what the topology declares with what is in operation, item by item, with both values.

    Files, units, sockets, Nix's settings, Docker, the firewall, secrets' shape, generations, runners at GitLab
    and caches at Attic. Nothing is changed anywhere, and no secret leaves its host.
    """
    from kingpost.observe.drift import Scope, compare
    from kingpost.observe.drift_files import tree as compare_tree
    from kingpost.render.site import render_site
    from kingpost.topology.contexts import all_gitlab
    from kingpost.topology.loader import load
    from kingpost.topology.names import resolve_cache
    from kingpost.topology.platform import Platform

    chosen = verdict_codes(only)
    platform = Platform(load(topology).topology)
    declared = platform.topology
    scope = Scope(
        frozenset(known("--host", name, declared.hosts, "host") for name in host or ()),
        {
            str(resolve_cache(declared, name)): token(Path(file))
            for name, file in pairs("--token-file", token_file).items()
        },
        {
            known("--gitlab-token", name, all_gitlab(declared), "GitLab"): token(Path(file))
            for name, file in pairs("--gitlab-token", gitlab_token).items()
        },
        {
            known("--runner", name, declared.runners, "runner"): _number(text)
            for name, text in pairs("--runner", runner).items()
        },
    )
    verdicts: list[Verdict] = []
    if tree is not None or Path("generated").is_dir():
        verdicts += compare_tree(render_site(platform), tree or Path("generated"))
    verdicts += compare(platform, entrance(platform, here, enter), scope)
    shown = [verdict for verdict in verdicts if not chosen or verdict.code in chosen]
    return finish("drift", shown, Outputs(json, junit, prometheus, ledger, no_ledger))


def _number(text: str) -> int:
    if not text.isdigit():
        raise UsageError(
            f"--runner: {text!r} is no id", fix="GitLab shows it as #NUMBER on the runner's page"
        )
    return int(text)
