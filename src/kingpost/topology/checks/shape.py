"""The codes that the loader gives, before there is a topology to check: a file of the wrong shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Shape:
    """One of the loader's codes, with TOML laid over the examples' topology that gives it at `at`."""

    code: str
    title: str
    why: str
    fix: str
    bad: str
    good: str
    at: tuple[str | int, ...]


UNREADABLE: Final = Shape(
    "KP-TOPO-FILE",
    title="The file is there and is TOML, JSON or Nix",
    why="nothing else can be said about it",
    fix="correct the place that the parser stopped at; for TOML it is often the line before",
    bad='[hosts.node1]\nmemory "8GiB"',
    good='[hosts.node1]\nmemory = "8GiB"',
    at=(),
)

SHAPES: Final = (
    Shape(
        "KP-TOPO-UNKNOWN-KEY",
        title="Every key is one that kingpost knows",
        why="a misspelt key would otherwise do nothing, in silence",
        fix="correct the key; editors complete it with the schema of `kingpost schema`",
        bad='[hosts.node1]\nmemmory = "8GiB"',
        good='[hosts.node1]\nmemory = "8GiB"',
        at=("hosts", "node1", "memmory"),
    ),
    Shape(
        "KP-TOPO-MISSING",
        title="What has no default is given",
        why="nothing sensible can be assumed for it",
        fix="add the key",
        bad='[hosts.third]\naddresses = { tailnet = "100.64.0.3" }',
        good='[hosts.third]\nmemory = "4GiB"\naddresses = { tailnet = "100.64.0.3" }',
        at=("hosts", "third", "memory"),
    ),
    Shape(
        "KP-TOPO-VALUE",
        title="Every value is of its kind",
        why="sizes, durations, addresses, URLs, names and keys are understood before anything is derived from them",
        fix="write it as the message shows",
        bad='[hosts.node1]\nmemory = "8 gigs"',
        good='[hosts.node1]\nmemory = "8GiB"',
        at=("hosts", "node1", "memory"),
    ),
    Shape(
        "KP-TOPO-KIND",
        title="A database and a storage say of which kind they are",
        why="their other keys depend on it",
        fix="give `kind`",
        bad='[attic.second]\nhost = "laptop"\nport = 8090\nsecret = "attic"\ndatabase = { local = true }',
        good='[attic.second]\nhost = "laptop"\nport = 8090\nsecret = "attic"\n'
        'database = { kind = "postgres", local = true }',
        at=("attic", "second", "database"),
    ),
)
