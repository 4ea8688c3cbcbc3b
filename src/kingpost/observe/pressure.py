"""Memory and disk of every host: who was killed, what is in use, what comes next. One visit to each."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kingpost.base.errors import CannotLookError, KingpostError, UsageError
from kingpost.observe import doctor_codes, pressure_disk, pressure_eviction, pressure_kills, pressure_memory
from kingpost.observe import pressure_codes as codes
from kingpost.observe.dropping import visiting
from kingpost.observe.executors.interface import NoWay
from kingpost.observe.looking import look
from kingpost.observe.oom_log import hosts, kills
from kingpost.observe.pressure_owner import Running
from kingpost.render.nix_hosts import by_host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kingpost.base.verdict import Verdict
    from kingpost.observe.entering import Entrance
    from kingpost.observe.oom_log import Kill
    from kingpost.render.nix_hosts import OnHost
    from kingpost.topology.platform import Platform

WEEK: Final = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at.

    Attributes:
        hosts: Names; empty is all.
        since: Seconds to look back for kills.
        dead: Whether to weigh what could be freed, which reads the whole Nix store.

    """

    hosts: frozenset[str] = frozenset()
    since: float = WEEK
    dead: bool = True


def examine(platform: Platform, entrance: Entrance, scope: Scope) -> list[Verdict]:
    """Give the verdicts of every host."""
    chosen = [on for name, on in by_host(platform).items() if not scope.hosts or name in scope.hosts]
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(lambda on: _host(on, entrance, scope), chosen))
    return [verdict for verdicts in found for verdict in verdicts]


def _host(on: OnHost, entrance: Entrance, scope: Scope) -> list[Verdict]:
    context = on.platform.contexts[f"host:{on.name}"]
    way = entrance.way(context, context.client)
    if isinstance(way, NoWay):
        return [doctor_codes.NOT_ENTERED.verdict(on.name, way.reason, remedy=way.fix or None)]
    asked = [
        *pressure_kills.questions(on, entrance.docker, entrance.kubectl, int(time.time() - scope.since)),
        *pressure_memory.questions(on),
        *pressure_eviction.questions(on, entrance.kubectl),
        *pressure_disk.questions(on, entrance.docker, dead=scope.dead),
    ]
    try:
        answers, dropped = visiting(way, on.name, lambda: look(way, asked, timeout=600))
    except KingpostError as error:
        evidence = {"way": way.describe(), "why": error.why}
        return [doctor_codes.NOT_ENTERED.verdict(on.name, f"{way.describe()}: {error.what}", evidence)]
    return [
        *dropped,
        *pressure_kills.judge(on, answers),
        *pressure_memory.judge(on, answers),
        *pressure_disk.judge(on, answers, dead=scope.dead),
    ]


def from_journal(platform: Platform, path: Path, host: str | None) -> list[Verdict]:
    """Judge the kills in a saved journal (`journalctl -o json`, a short form, or dmesg), without any host.

    Args:
        platform: What is declared.
        path: The file.
        host: The declared host that it is from; None to go by the host names in it.

    Raises:
        CannotLookError: The file cannot be read.
        UsageError: It does not say which declared host it is from.

    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = kills(file)
    except OSError as error:
        raise CannotLookError(f"the journal cannot be read: {error.strerror}", where=str(path)) from error
    declared = by_host(platform)
    if not found:
        return [codes.NO_KILL.verdict(host or str(path), f"no process was killed for memory in {path}")]
    return [
        verdict
        for name in hosts(found)
        for verdict in _of(
            declared[host or _declared(platform, name, path)], [k for k in found if k.host == name]
        )
    ]


def _of(on: OnHost, found: list[Kill]) -> Iterator[Verdict]:
    return pressure_kills.of_kills(on, found, Running({}, {}))


def _declared(platform: Platform, name: str, path: Path) -> str:
    """Give the declared host that a log's host name means; the only one, where the log has none."""
    known = platform.topology.hosts
    for key, host in known.items():
        if name and name.partition(".")[0] in {key, (host.hostname or key).partition(".")[0]}:
            return key
    if not name and len(known) == 1:
        return next(iter(known))
    raise UsageError(
        f"{path} is from {name or 'a host that it does not name'}, which is not declared",
        fix=f"name the declared host with --host, one of: {', '.join(known)}",
    )
