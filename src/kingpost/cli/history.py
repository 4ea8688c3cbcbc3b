"""`kingpost history`: since when is it broken, what was the last good."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer

from kingpost.base.errors import CannotLookError
from kingpost.base.ledger import default_path, opened
from kingpost.cli.outputs import Json, LedgerFile


def command(
    *,
    subject: Annotated[
        str,
        typer.Argument(metavar="[SUBJECT]", help="Part of a subject: a store path, a cache's URL, a unit."),
    ] = "",
    code: Annotated[str, typer.Option("--code", metavar="CODE", help="Only what fails with this code.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Also what is fine.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many subjects.")] = 50,
    json: Json = False,
    ledger: LedgerFile = None,
) -> None:
    """Since when is it broken, what was the last good.

    Read from the ledger of earlier runs on this machine; nothing is looked at now. Without SUBJECT and --all,
    only what failed when it was last looked at is shown.
    """
    from kingpost.report import history
    from kingpost.report.terminal import printable

    path = ledger or default_path()
    if not path.exists():
        raise CannotLookError(
            "there is no ledger yet, so nothing is known about the past",
            where=str(path),
            fix="run an observing command such as `kingpost cache audit` first; each run is recorded",
        )
    with opened(path) as book:
        found = history.read(book, subject, code)
    shown = [one for one in found if everything or subject or one.broken_since][:limit]
    if json:
        document = {"schema": "kingpost.history/1", "subjects": [one.as_dict() for one in shown]}
        print(json_module.dumps(document, indent=2))
        return
    for one in shown:
        state = f"broken since {one.broken_since}" if one.broken_since else "good"
        print(f"{state}: {printable(one.subject)}")
        if one.broken_since:
            print(f"    fails with: {', '.join(one.codes)}")
        print(f"    last good:  {one.last_good or 'never seen'}")
        print(
            f"    last look:  {one.last_looked} by `kingpost {one.command}`; looked at "
            f"{_times(one.looks)}, broken {_times(one.breakages)}"
        )
    broken = sum(1 for one in found if one.broken_since)
    print(f"{broken} broken, {len(found) - broken} good, as last seen ({path})")


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
