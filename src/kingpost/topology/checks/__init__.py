"""Correct by construction: what a topology must not say, found before anything is rendered.

`run_checks` runs every check in `CHECKS`. A check is one function; see `registry` for how one is written, and
docs/checks.md, which is generated from them (`python -m kingpost.topology.checks`).
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from kingpost.topology.checks import (  # noqa: F401 - importing a theme registers its checks
    attic_server,
    binds,
    buckets,
    caches,
    clusters,
    deploys,
    memory,
    network,
    nix_mounts,
    pushes,
    references,
    routes,
    runners,
    secrets,
    tokens,
    waivers,
)
from kingpost.topology.checks.registry import CHECKS, Check, Example, Stage
from kingpost.topology.checks.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kingpost.topology.model import Topology
    from kingpost.topology.platform import Platform
    from kingpost.topology.problems import Problem

__all__ = ["CHECKS", "Check", "Example", "Stage", "run_checks"]


def run_checks(topology: Topology, platform: Platform, *, today: date | None = None) -> list[Problem]:
    """Give every problem of a topology that no valid waiver permits, in the topology's order.

    Where names or places are wrong, nothing can be derived: those problems then come with what the text alone
    shows, and the rest (routes, listeners, budgets) waits for the next run.

    Args:
        topology: What is written.
        platform: What is derived from it.
        today: On which waivers expire; default: today in UTC.

    """
    scene = Scene(topology, platform, today or datetime.now(UTC).date())
    by_stage: dict[Stage, list[Check]] = {stage: [] for stage in Stage}
    for check in CHECKS.values():
        by_stage[check.stage].append(check)

    def run(stage: Stage) -> list[Problem]:
        return [problem for check in by_stage[stage] for problem in check.problems(scene)]

    foundation = run(Stage.FOUNDATION)
    scene.found.extend([*foundation, *run(Stage.DECLARED)])
    last: list[Problem] = []
    if not foundation:
        scene.found.extend(run(Stage.DERIVED))
        last = run(Stage.LAST)
    problems = [*waivers.permitted(scene, scene.found), *last]
    if not problems:
        return []
    data: Mapping[str, Any] = topology.model_dump(by_alias=True)
    return sorted(problems, key=lambda problem: (_order(data, problem.path), problem.code, problem.message))


def _order(data: Any, path: tuple[str | int, ...]) -> tuple[int, ...]:
    """Give the position of each key among its neighbours."""
    positions: list[int] = []
    for part in path:
        if isinstance(part, int):
            positions.append(part)
            data = data[part] if isinstance(data, (list, tuple)) and part < len(data) else None
        else:
            keys = list(data) if isinstance(data, dict) else []
            positions.append(keys.index(part) if part in keys else len(keys))
            data = data.get(part) if isinstance(data, dict) else None
    return tuple(positions)
