"""What the commands that enter hosts share: their options, and what those mean."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kingpost.base.errors import InvalidInputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kingpost.observe.entering import Entrance
    from kingpost.topology.platform import Platform

TopologyOption = Annotated[Path, typer.Option("--topology", help="The topology.", metavar="FILE")]
HostNames = Annotated[
    list[str] | None, typer.Option("--host", metavar="HOST", help="Only this one; may be repeated.")
]
Enter = Annotated[
    list[str] | None,
    typer.Option("--enter", metavar="HOST=WAY", help="here, ssh:HOST, docker:CONTAINER, netns:NAME."),
]
ThisHost = Annotated[
    str | None, typer.Option("--here", metavar="HOST", help="The declared host that this machine is.")
]


def pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """Read an option that is written NAME=VALUE."""
    found = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise UsageError(f"{option} {text!r}: write NAME=VALUE")
        found[name] = value
    return found


def known(option: str, name: str, names: Iterable[str], what: str) -> str:
    """Give a name that the topology declares."""
    declared = list(names)
    if name not in declared:
        raise UsageError(f"{option}: there is no {what} {name!r}", fix=f"one of: {', '.join(declared)}")
    return name


def verdict_codes(given: list[str] | None) -> frozenset[str]:
    """Give the codes that `--only` names; none are all."""
    if not given:
        return frozenset()
    from kingpost.report.reference import declared

    names = [code.name for code in declared()]
    for name in given:
        if name not in names:
            near = get_close_matches(name.upper(), names, 1, 0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"--only: there is no verdict {name!r}", fix=f"{hint}docs/verdicts.md has them all"
            )
    return frozenset(given)


def entrance(platform: Platform, here: str | None, enter: list[str] | None) -> Entrance:
    """Give the ways into hosts that the options choose."""
    from kingpost.observe.entering import Entrance, parse_way, this_host

    hosts = platform.topology.hosts
    if here is not None:
        known("--here", here, hosts, "host")
    ways = {
        f"host:{known('--enter', name.removeprefix('host:'), hosts, 'host')}": parse_way(way)
        for name, way in pairs("--enter", enter).items()
    }
    return Entrance(platform, here or this_host(platform), ways)


def token(path: Path) -> str:
    """Read a token's file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidInputError(f"the token file cannot be read: {reason}", where=str(path)) from None
