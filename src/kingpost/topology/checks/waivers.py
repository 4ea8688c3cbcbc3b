"""Waivers: permission for one problem, for a while. A waiver that is not needed is itself a problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kingpost.topology.checks.registry import CHECKS, Example, Finding, Stage, check
from kingpost.topology.checks.scene import dotted, hint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kingpost.topology.checks.registry import Path
    from kingpost.topology.checks.scene import Scene
    from kingpost.topology.guards import Waiver
    from kingpost.topology.problems import Problem


def covers(waiver: Waiver, problem: Problem) -> bool:
    """Tell whether a problem is of a waiver's code, and at or below what it is on."""
    where = dotted(problem.path)
    return waiver.code == problem.code and (
        where == waiver.on or where.startswith((f"{waiver.on}.", f"{waiver.on}["))
    )


def permitted(scene: Scene, problems: Iterable[Problem]) -> list[Problem]:
    """Give the problems that no valid waiver permits."""
    valid = [waiver for waiver in scene.topology.waivers.values() if _is_valid(scene, waiver)]
    return [problem for problem in problems if not any(covers(waiver, problem) for waiver in valid)]


def _is_valid(scene: Scene, waiver: Waiver) -> bool:
    return waiver.expires >= scene.today and waiver.code in CHECKS and CHECKS[waiver.code].waivable


_SHARED = '[buckets.store]\nholds = ["cache", "iac-state"]\n\n'


def _waiver(**changed: str) -> str:
    values = {
        "code": "KP-BUCKET-SHARED",
        "on": "buckets.store",
        "reason": "the state moves in spring",
        "owner": "platform team",
    } | changed
    expires = values.pop("expires", "2999-01-01")
    return "\n".join(
        ["[waivers.state]", *(f'{key} = "{value}"' for key, value in values.items()), f"expires = {expires}"]
    )


@check(
    "KP-WAIVER-CODE",
    title="A waiver permits something that can be permitted",
    why="it permits nothing as it is",
    fix="name the code of a problem that can be waived",
    example=Example(
        bad=_SHARED
        + _waiver()
        + "\n\n"
        + _waiver(code="KP-PUSH-FORK").replace("waivers.state", "waivers.forks"),
        good=_SHARED + _waiver(),
        at=("waivers", "forks", "code"),
    ),
)
def unknown_code(scene: Scene) -> Iterator[Finding]:
    """Find waivers for codes that do not exist, or that stand for something that would not work anyway."""
    waivable = [code for code, known in CHECKS.items() if known.waivable]
    for name, waiver in scene.topology.waivers.items():
        path: Path = ("waivers", name, "code")
        if waiver.code not in CHECKS:
            yield Finding(path, f"there is no check {waiver.code}", fix=hint(waiver.code, waivable, "check"))
        elif waiver.code not in waivable:
            yield Finding(
                path,
                f"{waiver.code} cannot be waived: what is rendered would not work",
                fix=f"mend it; these can be waived: {', '.join(waivable)}",
            )


@check(
    "KP-WAIVER-EXPIRED",
    title="A waiver is renewed or mended before it ends",
    why="somebody promised to mend it by then",
    fix="mend what it permits and remove it, or extend `expires` with a new reason",
    example=Example(
        bad=_SHARED + _waiver(expires="2020-01-01"),
        good=_SHARED + _waiver(expires="2999-01-01"),
        at=("waivers", "state", "expires"),
        also=frozenset({"KP-BUCKET-SHARED"}),
    ),
)
def expired(scene: Scene) -> Iterator[Finding]:
    """Find waivers that are over."""
    for name, waiver in scene.topology.waivers.items():
        if waiver.expires < scene.today:
            yield Finding(
                ("waivers", name, "expires"),
                f"the waiver {name} for {waiver.code} on {waiver.on} ended on {waiver.expires}; its owner is"
                f" {waiver.owner}",
            )


@check(
    "KP-WAIVER-UNNEEDED",
    title="A waiver is removed when its problem is",
    why="it would silently permit the problem's return",
    fix="remove it",
    example=Example(
        bad=_waiver(),
        good=_SHARED + _waiver(),
        at=("waivers", "state"),
    ),
    stage=Stage.LAST,
)
def unneeded(scene: Scene) -> Iterator[Finding]:
    """Find valid waivers whose problem is not there."""
    for name, waiver in scene.topology.waivers.items():
        if _is_valid(scene, waiver) and not any(covers(waiver, problem) for problem in scene.found):
            yield Finding(
                ("waivers", name), f"nothing on {waiver.on} needs the waiver {name} for {waiver.code}"
            )
