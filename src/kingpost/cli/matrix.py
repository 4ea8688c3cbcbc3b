"""`kingpost matrix`: who reaches what at which address."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING, Annotated

import typer

from kingpost.cli.topology_file import DEFAULT, TopologyFile, read

if TYPE_CHECKING:
    from kingpost.render.matrix import Row

SCHEMA = "kingpost.matrix/1"


def command(
    topology: TopologyFile = DEFAULT,
    *,
    context: Annotated[
        list[str] | None,
        typer.Option("--context", metavar="CONTEXT", help="Only this context; may be repeated."),
    ] = None,
    service: Annotated[
        list[str] | None,
        typer.Option("--service", metavar="SERVICE", help="Only this service; may be repeated."),
    ] = None,
    needed: Annotated[
        bool, typer.Option("--needed", help="Only the connections that the platform makes.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Who reaches what at which address.

    A row for every context, service and dialer: the client in the context (`attic push`, `curl`) and the Nix
    daemon that it talks to, which may live in another network namespace.
    """
    from kingpost.render import matrix

    platform = read(topology).platform
    found = list(
        matrix.rows(
            platform,
            needed=needed,
            contexts=[platform.find_context(one).id for one in context or ()],
            services=[platform.find_service(one).ref for one in service or ()],
        )
    )
    if json:
        document = {"schema": SCHEMA, "rows": [row.as_dict() for row in found]}
        print(json_module.dumps(document, indent=2))
    elif markdown:
        print("\n".join(matrix.markdown(found, platform)))
    else:
        _show(found)


def _show(rows: list[Row]) -> None:
    """Print one block per context: what each dialer dials, and where there is no way, why and what to do."""
    width = max((len(row.service) for row in rows), default=0)
    last = None
    for row in rows:
        if row.context != last:
            print(f"{'' if last is None else chr(10)}{row.context}")
            last = row.context
        mark = "*" if row.needs else " "
        print(f" {mark} {row.service:<{width}}  {row.dialer:<6}  {row.url or 'unreachable'}")
        if row.url is None and row.needs:
            print(f"     why: {row.reason}\n     fix: {row.fix}")
    if rows:
        print("\n* the platform makes this connection; `kingpost explain` says why an address is what it is")
