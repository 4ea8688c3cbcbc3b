"""How a check is written and found: a function that yields findings, with everything a reader needs beside it.

    @check(
        "KP-RUNNER-IMAGE",
        title="A docker runner needs an image",
        why="…", fix="…",
        example=Example(bad="…", good="…", at=("runners", "blog", "image")),
    )
    def image_missing(scene: Scene) -> Iterator[Finding]: ...

`docs/checks.md` is generated from these, and every example is a test: laid over `BASE` (see `example.py`), `bad`
gives this code at `at` and nothing else, and `good` is clean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from kingpost.topology.problems import Problem
from kingpost.topology.redaction import redacted

if TYPE_CHECKING:
    from kingpost.topology.checks.scene import Scene

Path = tuple[str | int, ...]


class Stage(IntEnum):
    """When a check can run.

    FOUNDATION: names and places, on which every derivation stands. DECLARED: looks only at what is written.
    DERIVED: looks at contexts, routes or budgets, and so runs only when the foundation holds.
    """

    FOUNDATION = 0
    DECLARED = 1
    DERIVED = 2
    LAST = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: where, what, and (when better than the check's own words) why and what to write."""

    path: Path
    message: str
    why: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """TOML that is laid over `BASE`: wrong, right, and where the wrong one is reported.

    `also` are codes that cannot but come along.
    """

    bad: str
    good: str
    at: Path
    also: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        code: Stable for ever.
        title: The rule in a few words.
        why: What happens otherwise.
        fix: What to do.
        example: See `Example`.
        find: Yields what breaks the rule.
        stage: When it can run.
        waivable: Whether a `[waivers]` entry may permit it: what is rendered stays sound.

    """

    code: str
    title: str
    why: str
    fix: str
    example: Example
    find: Callable[[Scene], Iterable[Finding]]
    stage: Stage
    waivable: bool

    def problems(self, scene: Scene) -> Iterable[Problem]:
        """Give this check's problems. No word of them holds a secret, whatever the topology holds."""
        for found in self.find(scene):
            message, fix = redacted(found.message), redacted(found.fix or self.fix)
            yield Problem(self.code, found.path, message, found.why or self.why, fix)


CHECKS: Final[dict[str, Check]] = {}
"""Every check by its code, in the order of the documentation."""

Finder = Callable[["Scene"], Iterable[Finding]]


def check(
    code: str,
    *,
    title: str,
    why: str,
    fix: str,
    example: Example,
    stage: Stage = Stage.DECLARED,
    waivable: bool = False,
) -> Callable[[Finder], Finder]:
    """Register a function as the check of a code."""

    def register(find: Finder) -> Finder:
        if code in CHECKS:
            raise ValueError(f"{code} is registered twice")
        CHECKS[code] = Check(code, title, why, fix, example, find, stage, waivable)
        return find

    return register
