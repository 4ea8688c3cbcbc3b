"""Declared against operational, item by item: one visit to each host, then GitLab and the Attic servers."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from kingpost.base.errors import KingpostError
from kingpost.observe import (
    doctor_codes,
    drift_caches,
    drift_clusters,
    drift_docker,
    drift_files,
    drift_firewall,
    drift_generations,
    drift_nix,
    drift_runners,
    drift_secrets,
    drift_sockets,
    drift_units,
)
from kingpost.observe.drift_items import Visit
from kingpost.observe.dropping import visiting
from kingpost.observe.executors.interface import NoWay
from kingpost.observe.looking import Question, answer_to, look
from kingpost.render.nix_hosts import by_host
from kingpost.topology.bounds import RUNNER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kingpost.base.verdict import Verdict
    from kingpost.observe.entering import Entrance
    from kingpost.topology.platform import Platform


class Kind(Protocol):
    """One kind of item: what to ask a host, and what the answers mean."""

    def questions(self, visit: Visit, /) -> Iterator[Question]:
        """Give what to ask."""

    def judge(self, visit: Visit, /) -> Iterator[Verdict]:
        """Give the verdicts."""


KINDS: Final[tuple[Kind, ...]] = (
    drift_generations,
    drift_files,
    drift_units,
    drift_sockets,
    drift_nix,
    drift_docker,
    drift_firewall,
    drift_secrets,
    drift_clusters,
)
"""Every kind of item on a host, in the order of the report."""


#: Of what runs, which need not be on PATH, and may be older than what is.
_RUNNER_VERSION: Final = (
    f"pid=$(systemctl show {RUNNER} --property=MainPID --value); "
    'if [ "${pid:-0}" -gt 0 ]; then "/proc/$pid/exe" --version; else gitlab-runner --version; fi'
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What to compare.

    Attributes:
        hosts: Names; empty is all.
        cache_tokens: By cache (`attic:home/main`).
        gitlab_tokens: By GitLab instance.
        runner_ids: GitLab's ids, by runner, where the user knows better.

    """

    hosts: frozenset[str] = frozenset()
    cache_tokens: Mapping[str, str] = field(default_factory=dict)
    gitlab_tokens: Mapping[str, str] = field(default_factory=dict)
    runner_ids: Mapping[str, int] = field(default_factory=dict)


def compare(platform: Platform, entrance: Entrance, scope: Scope) -> list[Verdict]:
    """Give the verdicts of every item, host by host, then of GitLab and the caches."""
    hosts = {
        name: Visit(on, entrance.docker, entrance.kubectl)
        for name, on in by_host(platform).items()
        if not scope.hosts or name in scope.hosts
    }
    with ThreadPoolExecutor(max_workers=8) as pool:
        visited = list(pool.map(lambda visit: ask(visit, entrance), hosts.values()))
    found = [verdict for _, verdicts in visited for verdict in verdicts]
    found += drift_runners.judge(
        platform, scope.gitlab_tokens, _known([visit for visit, _ in visited], scope)
    )
    found += drift_caches.judge(platform, entrance, frozenset(hosts), scope.cache_tokens)
    return found


def ask(visit: Visit, entrance: Entrance) -> tuple[Visit, list[Verdict]]:
    """Visit one host; gives its answers and what they mean."""
    platform, name = visit.on.platform, visit.on.name
    context = platform.contexts[f"host:{name}"]
    way = entrance.way(context, context.client)
    if isinstance(way, NoWay):
        verdict = doctor_codes.NOT_ENTERED.verdict(name, way.reason, remedy=way.fix or None)
        return visit, [verdict]
    asked = [question for kind in KINDS for question in kind.questions(visit)]
    if visit.on.runners:
        asked.append(Question("runner version", _RUNNER_VERSION))
    try:
        answers, dropped = visiting(way, name, lambda: look(way, asked))
    except KingpostError as error:
        evidence = {"way": way.describe(), "why": error.why}
        return visit, [doctor_codes.NOT_ENTERED.verdict(name, f"{way.describe()}: {error.what}", evidence)]
    answered = replace(visit, answers=answers)
    return answered, [*dropped, *(verdict for kind in KINDS for verdict in kind.judge(answered))]


def _known(visits: list[Visit], scope: Scope) -> drift_runners.Known:
    ids: dict[str, int] = {}
    system_ids, versions = {}, {}
    for visit in visits:
        ids |= drift_files.runner_ids(visit)
        if system_id := drift_files.system_id(visit):
            system_ids[visit.on.name] = system_id
        version = re.search(r"Version:\s*(\S+)", answer_to(visit.answers, "runner version").text)
        if version:
            versions[visit.on.name] = version[1]
    return drift_runners.Known({**ids, **scope.runner_ids}, system_ids, versions)
