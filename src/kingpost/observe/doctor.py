"""Walk the matrix from inside each context, and say what was seen. Nothing here changes a system."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import KingpostError
from kingpost.base.process import run
from kingpost.observe import doctor_codes as codes
from kingpost.observe.dropping import visiting
from kingpost.observe.executors.interface import Executor, NoWay
from kingpost.observe.executors.ssh import raise_if_dropped
from kingpost.observe.inside import route_probe
from kingpost.observe.judge import Expectation, judge
from kingpost.topology.names import CacheRef, resolve_cache
from kingpost.topology.places import Context, Dialer, HostSocket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kingpost.base.verdict import Verdict
    from kingpost.observe.entering import Entrance
    from kingpost.topology.platform import Platform

TIMEOUT: Final = 5.0
"""Seconds for a connection or an answer; a firewall that drops costs this much once per route."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What to look at.

    Attributes:
        contexts: Ids; empty is all.
        services: References; empty is all.
        tokens: By cache (`attic:home/main`), where a context's own files are not to be used.
        hashes: Store hashes to fetch through redirects, by cache.
        timeout: Seconds per step.

    """

    contexts: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    tokens: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    timeout: float = TIMEOUT


def examine(platform: Platform, entrance: Entrance, walk: Walk) -> list[Verdict]:
    """Give the verdicts of every route asked for, in the matrix's order."""
    jobs = [
        (context, dialer, list(expectations(platform, context, dialer, walk)))
        for context in platform.contexts.values()
        if not walk.contexts or context.id in walk.contexts
        for dialer in Dialer
    ]
    with ThreadPoolExecutor(max_workers=8) as pool:
        done = pool.map(lambda job: _from_inside(entrance, walk, *job), jobs)
    return infer(platform, [pair for pairs in done for pair in pairs])


def expectations(platform: Platform, context: Context, dialer: Dialer, walk: Walk) -> Iterator[Expectation]:
    """Give what the topology says of each service, and each cache of it that this dialer uses."""
    used = _caches(platform, context, dialer)
    for ref, service in platform.services.items():
        if walk.services and ref not in walk.services:
            continue
        route = platform.route(context.id, dialer, ref)
        url = route.url or route.candidate
        if url is None:
            continue
        caches = [cache for cache in used if cache.service == ref]
        if service.kind == "attic" and not caches:
            caches = [
                CacheRef("attic", service.name, name) for name in platform.topology.attic[service.name].caches
            ][:1]
        each: list[CacheRef | None] = [*caches] or [None]
        for cache in each:
            yield _expectation(platform, context, dialer, service.kind, cache, route=route, url=url)


def _expectation(
    platform: Platform, context: Context, dialer: Dialer, kind: str, cache: CacheRef | None, **known: Any
) -> Expectation:
    public = cache is None or platform.cache_use(context.id, dialer, cache).public
    pushes = dialer is Dialer.CLIENT and cache in _pushed(platform, context)
    return Expectation(kind=kind, cache=cache.cache if cache else "", public=public, pushes=pushes, **known)


def _caches(platform: Platform, context: Context, dialer: Dialer) -> list[CacheRef]:
    read = [use.ref for use in platform.cache_uses(context.id)]
    return list(dict.fromkeys([*read, *_pushed(platform, context)] if dialer is Dialer.CLIENT else read))


def _pushed(platform: Platform, context: Context) -> list[CacheRef]:
    if context.runner is None:
        return []
    return [
        resolve_cache(platform.topology, push.cache)
        for pipeline in platform.topology.pipelines.values()
        if pipeline.runner == context.runner
        for push in pipeline.push
        if push.policy != "off"
    ]


def _from_inside(
    entrance: Entrance, walk: Walk, context: Context, dialer: Dialer, expected: list[Expectation]
) -> list[tuple[Expectation, Verdict]]:
    """Try one dialer's routes in one visit."""
    if not expected:
        return []
    way = entrance.way(context, context.namespace(dialer))
    if isinstance(way, NoWay):
        return [
            (item, codes.NOT_ENTERED.verdict(item.subject, way.reason, remedy=way.fix or None))
            for item in expected
        ]
    targets = [_target(item, walk) for item in expected]
    try:
        answers, dropped = visiting(way, f"{context.id} {dialer}", lambda: visit(way, targets, walk.timeout))
    except KingpostError as error:
        summary = f"{way.describe()}: {error.what}"
        evidence = {"way": way.describe(), "why": error.why}
        return [(item, codes.NOT_ENTERED.verdict(item.subject, summary, evidence)) for item in expected]
    judged = [
        (item, verdict) for item, seen in zip(expected, answers, strict=True) for verdict in judge(item, seen)
    ]
    return [*((expected[0], verdict) for verdict in dropped), *judged]


def _target(item: Expectation, walk: Walk) -> dict[str, Any]:
    name = f"{item.route.service}/{item.cache}" if item.cache else item.route.service
    return {
        "id": name,
        "kind": item.kind,
        "url": item.url,
        "cache": item.cache or None,
        "token": walk.tokens.get(name),
        "hash": walk.hashes.get(name),
    }


def visit(way: Executor, targets: list[dict[str, Any]], timeout: float) -> list[dict[str, Any]]:
    """Run the probe inside a context and give what it saw, one document per target.

    Raises:
        DroppedError: The connection broke.
        KingpostError: The context could not be entered.

    """
    script = route_probe({"timeout": timeout, "targets": targets})
    done = run(way.argv(["sh", "-s"]), stdin=script, timeout=30 + len(targets) * timeout * 8, check=False)
    try:
        results = json.loads(done.stdout)["results"]
    except (ValueError, KeyError, TypeError):
        raise_if_dropped(way, done)
        last = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise KingpostError(
            f"the probe gave no answer: {last[:200]}", where=way.describe(), why=last[:500]
        ) from None
    return list(results)


def infer(platform: Platform, pairs: Iterable[tuple[Expectation, Verdict]]) -> list[Verdict]:
    """See across routes: refused here, while the service's own host reaches it, is a bind that is too narrow."""
    pairs = list(pairs)
    at_home = {
        item.route.service
        for item, verdict in pairs
        if verdict.code == codes.ROUTE_OK.name and item.route.via == "loopback"
    }
    found = []
    for item, verdict in pairs:
        if verdict.code == codes.ROUTE_REFUSED.name and item.route.service in at_home:
            found.append(_narrow(platform, item, verdict))
        else:
            found.append(verdict)
    return found


def _narrow(platform: Platform, item: Expectation, verdict: Verdict) -> Verdict:
    service = platform.services[item.route.service]
    listener = platform.listeners.get(service.ref)
    host = service.location.host if isinstance(service.location, HostSocket) else "its host"
    summary = f"{item.url} is refused, while {host} itself reaches {service.ref} on loopback"
    remedy = codes.ROUTE_NARROW.remedy
    if listener:
        remedy = (
            f"bind {service.ref} to {listener.bind}:{listener.port}, as rendered for {host}: "
            f"`kingpost generate`, deploy, restart"
        )
    return codes.ROUTE_NARROW.verdict(item.subject, summary, verdict.evidence, remedy=remedy)
