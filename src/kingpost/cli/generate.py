"""`kingpost generate`: render all files of a topology."""

from __future__ import annotations

import gc
import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kingpost.base.errors import EXIT_FAILED, EXIT_OK
from kingpost.cli.topology_file import DEFAULT, TopologyFile, read, require_sound

if TYPE_CHECKING:
    from kingpost.render.tree import Plan

SCHEMA = "kingpost.generate/1"
SHOWN = 60
"""Files that are listed by name; beyond, they are counted."""


def command(
    topology: TopologyFile = DEFAULT,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the files go.", file_okay=False)
    ] = Path("generated"),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if anything is not as it would be written.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; show what would change.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="HOST", help="Leave other hosts' folders as they are; may be repeated."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also replace and remove what was edited by hand.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """Render all files of a topology.

    The topology must pass `kingpost check`. Files that are as they should be are not touched; files that kingpost
    wrote earlier and the topology no longer asks for are removed; a file that somebody edited is never replaced
    without --force. A run that is killed leaves the old files, or a state that the next run finishes.
    """
    from kingpost.render.site import inputs_of, rendering, scope_of, site_tree
    from kingpost.render.tree import plan, unchanged, write
    from kingpost.topology.names import match_name

    gc.disable()  # what is derived lives to the end; looking for garbage in it costs a fleet a tenth of its time
    found = read(topology)
    hosts = tuple(match_name(host, found.platform.topology.hosts, "host") for host in only or ())
    dry = check or diff
    # What is as the same topology and the same kingpost made it has passed the checks before; a waiver may have
    # expired since.
    if found.loaded.topology.waivers:
        require_sound(found)
    inputs = inputs_of(found.loaded)
    planned = None if hosts else unchanged(output, inputs)
    if planned is None:
        with rendering(found.platform) as rendered:
            require_sound(found)
            tree = site_tree(found.loaded, rendered(), inputs)
        scope = scope_of(found.platform, hosts) if hosts else None
        planned = plan(output, tree, scope) if dry else write(output, tree, scope, force=force)
    if json:
        print(json_module.dumps(_document(planned, output, written=not dry), indent=2))
    elif diff:
        for change in planned.changes:
            sys.stdout.writelines(change.diff())
    else:
        _show(planned, output, written=not dry)
    return EXIT_FAILED if check and planned.stale else EXIT_OK


def _document(planned: Plan, output: Path, *, written: bool) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "output": str(output),
        "written": written,
        "stale": planned.stale and not written,
        "changes": [
            {"path": change.path, "change": str(change.change), "edited": change.edited}
            for change in planned.changes
        ],
        "unchanged": planned.unchanged,
    }


def _show(planned: Plan, output: Path, *, written: bool) -> None:
    from kingpost.render.tree import Change

    done = {Change.CREATE: "created", Change.UPDATE: "updated", Change.REMOVE: "removed"}
    due = {Change.CREATE: "missing", Change.UPDATE: "stale", Change.REMOVE: "no longer wanted"}
    words = done if written else due
    for change in planned.changes[:SHOWN]:
        note = " (edited by hand)" if change.edited else ""
        print(f"{words[change.change]:<8} {output / change.path}{note}")
    if len(planned.changes) > SHOWN:
        print(f"… and {len(planned.changes) - SHOWN} more")
    if planned.unfinished:
        print(f"a write into {output} was killed; `kingpost generate` finishes it")
    elif planned.stale and not planned.changes and not written:
        print(f"stale    {output / 'manifest.json'}")
    changed = len(planned.changes)
    unchanged = f"{planned.unchanged} unchanged"
    print(
        f"{changed} {'file' if changed == 1 else 'files'} {'changed' if written else 'to change'}, {unchanged}"
    )
