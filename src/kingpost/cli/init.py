"""`kingpost init`: write a commented topology.toml to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kingpost.base.errors import KingpostError, UsageError
from kingpost.cli.topology_file import DEFAULT

TEMPLATE = "init/topology.toml"


def command(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where it goes; nothing is overwritten.")
    ] = DEFAULT,
) -> None:
    """Write a commented topology.toml to start from: one host, one cache, one runner.

    It passes `kingpost check` as it is.
    """
    from kingpost.render.sources import templates

    text = (templates() / TEMPLATE).read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(
            "there is a file already",
            where=str(path),
            fix="name another file: kingpost init FILE",
        ) from None
    except OSError as error:
        raise KingpostError(
            f"the file cannot be written: {error.strerror}",
            where=str(path),
            fix="name a file in a directory that exists and that you may write to",
        ) from error
    print(f"wrote {path}; next: change it, then `kingpost check {path}` and `kingpost generate {path}`")
