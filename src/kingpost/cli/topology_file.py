"""What the commands about a topology share: the argument that names it, and reading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kingpost.topology.loader import Loaded
    from kingpost.topology.platform import Platform

DEFAULT = Path("topology.toml")
TopologyFile = Annotated[
    Path, typer.Argument(metavar="TOPOLOGY", help="topology.toml, .json or .nix.", show_default=True)
]


@dataclass(frozen=True, slots=True)
class Read:
    """A topology that was read, and the platform that follows from it."""

    loaded: Loaded
    platform: Platform


def read(path: Path) -> Read:
    """Read a topology whose shape is right; nothing is checked beyond that.

    Raises:
        InvalidTopologyError: Its shape is wrong.

    """
    from kingpost.topology.loader import load
    from kingpost.topology.platform import Platform

    loaded = load(path)
    return Read(loaded, Platform(loaded.topology))


def read_checked(path: Path) -> Read:
    """Read a topology that passes every check.

    Raises:
        InvalidTopologyError: It does not; the error holds all problems.

    """
    found = read(path)
    require_sound(found)
    return found


def require_sound(found: Read) -> None:
    """Run every check.

    Raises:
        InvalidTopologyError: One failed; the error holds all problems.

    """
    from kingpost.topology.checks import run_checks
    from kingpost.topology.problems import InvalidTopologyError, locate_all

    problems = run_checks(found.loaded.topology, found.platform)
    if problems:
        located = locate_all(problems, found.loaded.locator)
        raise InvalidTopologyError(str(found.loaded.path), located)
