"""`kingpost doctor`: try every route from inside its context."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kingpost.base.errors import UsageError
from kingpost.cli.outputs import Json, Junit, LedgerFile, NoLedger, Outputs, Prometheus, finish, write_files
from kingpost.cli.ways import known, pairs, token, verdict_codes

if TYPE_CHECKING:
    from kingpost.base.verdict import Verdict
    from kingpost.observe.doctor import Walk
    from kingpost.observe.entering import Entrance
    from kingpost.topology.platform import Platform


def command(
    topology: Annotated[Path, typer.Option("--topology", help="The topology.", metavar="FILE")] = Path(
        "topology.toml"
    ),
    from_: Annotated[
        list[str] | None, typer.Option("--from", metavar="CONTEXT", help="Only from here; may be repeated.")
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="SERVICE", help="Only to this; may be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CODE", help="Show only these verdicts.")
    ] = None,
    enter: Annotated[
        list[str] | None,
        typer.Option(metavar="CONTEXT=WAY", help="here, ssh:HOST, docker:CONTAINER, netns:NAME, pod:NS/POD."),
    ] = None,
    here: Annotated[
        str | None, typer.Option(metavar="HOST", help="The declared host that this machine is.")
    ] = None,
    token_file: Annotated[
        list[str] | None,
        typer.Option(metavar="CACHE=FILE", help="Use this token; default: what the context itself holds."),
    ] = None,
    store_hash: Annotated[
        list[str] | None,
        typer.Option("--hash", metavar="CACHE=HASH", help="Fetch this path's NAR, through redirects."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds per connection and answer.", min=0.1)] = 5.0,
    watch: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Repeat, and mark what changed.", min=1)
    ] = None,
    json: Json = False,
    junit: Junit = None,
    prometheus: Prometheus = None,
    ledger: LedgerFile = None,
    no_ledger: NoLedger = False,
) -> int:
    """Try every route of the matrix from inside its context, as its real client would.

    401 from a private cache without a token, a closed route that is declared closed, and the like are
    `expected`; look-alikes are named. Nothing is changed anywhere.
    """
    from kingpost.observe.doctor import Walk, examine
    from kingpost.observe.entering import Entrance, parse_way, this_host
    from kingpost.topology.loader import load
    from kingpost.topology.platform import Platform

    chosen = verdict_codes(only)
    platform = Platform(load(topology).topology)
    outputs = Outputs(json, junit, prometheus, ledger, no_ledger)
    if here is not None:
        known("--here", here, platform.topology.hosts, "host")
    ways = {_way_key(platform, name): parse_way(way) for name, way in pairs("--enter", enter).items()}
    entrance = Entrance(platform, here or this_host(platform), ways)
    walk = Walk(
        frozenset(platform.find_context(text).id for text in from_ or ()),
        frozenset(platform.find_service(text).ref for text in to or ()),
        {
            _cache(platform, name): token(Path(file))
            for name, file in pairs("--token-file", token_file).items()
        },
        {_cache(platform, name): _hash(text) for name, text in pairs("--hash", store_hash).items()},
        timeout,
    )
    if watch is not None:
        return _watch(platform, entrance, walk, chosen, outputs, watch)
    verdicts = [v for v in examine(platform, entrance, walk) if not chosen or v.code in chosen]
    return finish("doctor", verdicts, outputs)


def _watch(
    platform: Platform, entrance: Entrance, walk: Walk, only: frozenset[str], outputs: Outputs, seconds: float
) -> int:
    """Repeat until Ctrl-C; print the first round whole, then only what changed."""
    from kingpost.observe.doctor import examine

    before: dict[str, Verdict] = {}
    while True:
        verdicts = [v for v in examine(platform, entrance, walk) if not only or v.code in only]
        now = {f"{verdict.subject} {number}": verdict for number, verdict in _numbered(verdicts)}
        if not before:
            print(f"--- {time.strftime('%H:%M:%S')}: as it is", flush=True)
            finish("doctor", verdicts, outputs)
        else:
            _changes(before, now, outputs)
        before = now
        time.sleep(seconds)


def _changes(before: dict[str, Verdict], now: dict[str, Verdict], outputs: Outputs) -> None:
    """Print what changed since the round before, each with what it was."""
    changed = [key for key in {**before, **now} if _code(before, key) != _code(now, key)]
    print(f"--- {time.strftime('%H:%M:%S')}: {len(changed) or 'nothing'} changed", flush=True)
    if not outputs.json:
        for key in changed:
            print(
                f"changed  {(now.get(key) or before[key]).subject}: {_code(before, key)} -> {_code(now, key)}"
            )
    if changed:
        shown = replace(outputs, junit=None, prometheus=None)
        finish("doctor", [now[key] for key in changed if key in now], shown)
    write_files("doctor", list(now.values()), outputs)  # what watches a file wants all of it


def _code(verdicts: dict[str, Verdict], key: str) -> str:
    return verdicts[key].code if key in verdicts else "nothing"


def _numbered(verdicts: list[Verdict]) -> list[tuple[int, Verdict]]:
    """Number the verdicts of each subject: a route may have several."""
    seen: dict[str, int] = {}
    found = []
    for verdict in verdicts:
        seen[verdict.subject] = seen.get(verdict.subject, 0) + 1
        found.append((seen[verdict.subject], verdict))
    return found


def _way_key(platform: Platform, text: str) -> str:
    """Give the context or namespace that `--enter` names; a namespace is written like `bridge:node1`."""
    namespaces = {str(n) for c in platform.contexts.values() for n in (c.client, c.daemon)}
    return text if text in namespaces else platform.find_context(text).id


def _cache(platform: Platform, text: str) -> str:
    from kingpost.topology.names import resolve_cache

    return str(resolve_cache(platform.topology, text))


def _hash(text: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    from kingpost.topology.types import StoreHash

    try:
        return str(TypeAdapter(StoreHash).validate_python(text))
    except ValidationError as error:
        raise UsageError(f"--hash: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
