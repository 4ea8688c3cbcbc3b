"""`kingpost check`: every problem of a topology at once, each with its place, why it matters and what to change."""

from __future__ import annotations

import json as json_module
from typing import TYPE_CHECKING

from kingpost.base.errors import EXIT_OK, EXIT_USAGE
from kingpost.cli.outputs import Json
from kingpost.cli.topology_file import DEFAULT, TopologyFile

if TYPE_CHECKING:
    from kingpost.topology.model import Topology
    from kingpost.topology.platform import Platform
    from kingpost.topology.problems import Located


def command(
    topology: TopologyFile = DEFAULT,
    json: Json = False,
) -> int:
    """Every problem of a topology at once: `file:line:col: CODE message`, why it matters, what to change.

    Exits with 0 when there is none and 2 when there is one. docs/checks.md explains every code, with an example.
    """
    from kingpost.base.errors import InvalidInputError, Location
    from kingpost.topology.checks import run_checks
    from kingpost.topology.checks.shape import UNREADABLE
    from kingpost.topology.loader import load
    from kingpost.topology.platform import Platform
    from kingpost.topology.problems import InvalidTopologyError, Located, Problem, locate_all

    summary = ""
    try:
        loaded = load(topology)
    except InvalidTopologyError as error:
        located = list(error.located)
    except InvalidInputError as error:
        # Only a parser has a place in the file, and only then is its advice of use.
        fix = error.fix or (UNREADABLE.fix if isinstance(error.where, Location) else "name a topology file")
        problem = Problem(UNREADABLE.code, (), error.what, error.why, fix)
        where = error.where if isinstance(error.where, Location) else Location(str(topology))
        located = [Located(problem, where)]
    else:
        platform = Platform(loaded.topology)
        problems = run_checks(loaded.topology, platform)
        located = locate_all(problems, loaded.locator) if problems else []
        summary = "" if problems else _summary(loaded.topology, platform)
    if json:
        document = {
            "schema": "kingpost.check/1",
            "file": str(topology),
            "problems": [item.as_dict() for item in located],
        }
        print(json_module.dumps(document, indent=2))
    elif located:
        print(_report(located))
    else:
        print(f"{topology}: {summary}")
    return EXIT_USAGE if located else EXIT_OK


def _report(located: list[Located]) -> str:
    from kingpost.report.terminal import printable
    from kingpost.topology.checks import CHECKS, Stage
    from kingpost.topology.checks.shape import UNREADABLE

    blocks = ["\n".join(printable(line) for line in str(item).splitlines()) for item in located]
    number = f"{len(located)} problem{'' if len(located) == 1 else 's'}"
    last = f"{number}; docs/checks.md explains each code, with an example"
    stages = [
        CHECKS[code].stage if (code := item.problem.code) in CHECKS else Stage.FOUNDATION for item in located
    ]
    unread = any(item.problem.code == UNREADABLE.code for item in located)
    if Stage.FOUNDATION in stages and not unread:
        last += "\nroutes, listeners and memory are checked when names and places are right"
    return "\n\n".join([*blocks, last])


def _summary(topology: Topology, platform: Platform) -> str:
    from kingpost.topology.checks import CHECKS

    counted = (
        (len(topology.hosts), "host"),
        (len(platform.contexts), "context"),
        (len(platform.services), "service"),
        (len(platform.needs), "route"),
        (len(topology.pipelines), "pipeline"),
        (len(topology.secrets), "secret"),
    )
    words = ", ".join(f"{number} {what}{'' if number == 1 else 's'}" for number, what in counted if number)
    waived = f"; {len(topology.waivers)} waived" if topology.waivers else ""
    return f"no problems ({words}; {len(CHECKS)} checks{waived})"
