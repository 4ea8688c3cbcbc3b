"""What a trace comes to: verdicts per substituter, gates for CI, and the story of each path."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.units import approximate_size
from kingpost.observe import trace_codes as codes
from kingpost.observe.nixlog import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kingpost.base.verdict import Verdict
    from kingpost.observe.trace import Trace

NAMED: Final = 5
"""Paths that a verdict's evidence names; the JSON document has them all."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What CI demands of a run; `required` maps a cache's name to the URLs that it is known by."""

    required: Mapping[str, frozenset[str]]
    max_fallbacks: int | None = None
    max_local_builds: int | None = None


def judge(trace: Trace, gates: Gates, returncode: int | None) -> list[Verdict]:
    """Give the verdicts of a run; `returncode` is None for a log that was read from a file."""
    found = [*_substituters(trace), *_builds(trace), *_gates(trace, gates)]
    if returncode:
        summary = f"it ended with exit code {returncode}"
        found.append(codes.RUN_FAILED.verdict("the traced command", summary, {"exit_code": returncode}))
    if trace.torn:
        found.append(codes.TORN.verdict("the log", f"it ends inside event {trace.events + 1}"))
    if not trace.events:
        found.append(codes.NO_EVENTS.verdict("the log", "not one event in it"))
    return found


def stories(trace: Trace, present: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Give one JSON-ready entry per path and build, with who was passed over and why."""
    found: list[dict[str, Any]] = []
    cached: dict[str, list[str]] = {}
    for story, uri in trace.from_client_cache:
        cached.setdefault(story.path, []).append(uri)
    for story in trace.paths.values():
        if not (story.attempts or story.asked):
            continue
        served = story.attempts[-1] if story.served_by else None
        found.append(
            {
                "path": story.path,
                "origin": _origin(trace, served.uri) if served else "not fetched",
                "served_by": served.uri if served else None,
                "nar_bytes": served.nar_bytes or None if served else None,
                "download_bytes": served.download_bytes if served else None,
                "seconds": round(served.seconds, 3) if served and served.seconds is not None else None,
                "passed_over": {uri: str(reason) for uri, reason in trace.passed_over(story).items()},
                "from_client_cache": cached.get(story.path, []),
            }
        )
    local = trace.local_builds
    for build in trace.builds.values():
        origin = "local build" if build in local else "remote build"
        found.append({"path": build.derivation, "origin": origin, "machine": build.machine or None})
    fetched = {entry["path"] for entry in found if entry["origin"] in {"substituter", "remote builder"}}
    found += [{"path": path, "origin": "already there"} for path in present if path not in fetched]
    return found


def _origin(trace: Trace, uri: str) -> str:
    """Tell a path that was built elsewhere and copied from there from one that a cache had."""
    return "remote builder" if uri in trace.builders else "substituter"


def _substituters(trace: Trace) -> list[Verdict]:
    served: Counter[str] = Counter()
    size: Counter[str] = Counter()
    transferred: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    asked: Counter[str] = Counter()
    for story in trace.paths.values():
        asked.update(story.asked)
        if uri := story.served_by:
            last = story.attempts[-1]
            served[uri] += 1
            size[uri] += last.nar_bytes
            transferred[uri] += last.download_bytes
            if last.seconds is not None:
                seconds[uri] = seconds.get(uri, 0.0) + last.seconds
    verdicts = []
    for uri in sorted({*served, *asked, *trace.troubles}):
        evidence: dict[str, Any] = {
            "paths_served": served[uri],
            "paths_asked": asked[uri],
            "nar_bytes": size[uri],
        }
        if uri in seconds:
            evidence["seconds"] = round(seconds[uri], 3)
        what = f"{served[uri]} paths, {approximate_size(transferred[uri])} downloaded"
        if reasons := trace.troubles.get(uri):
            told = ", ".join(f"{reason} ({number} times)" for reason, number in reasons.most_common())
            evidence["complaints"] = {str(reason): number for reason, number in reasons.items()}
            verdicts.append(codes.TROUBLED.verdict(uri, f"{told}; it served {what}", evidence))
        elif served[uri]:
            did = "it built and sent" if uri in trace.builders else "it served"
            verdicts.append(codes.SERVED.verdict(uri, f"{did} {what}", evidence))
        else:
            verdicts.append(
                codes.SILENT.verdict(uri, f"asked for {asked[uri]} paths, served none, no message", evidence)
            )
    return [*verdicts, *_client_cache(trace)]


def _client_cache(trace: Trace) -> list[Verdict]:
    by_uri = Counter(uri for _, uri in trace.from_client_cache)
    return [
        codes.CLIENT_CACHE.verdict(
            uri,
            f"{number} of its narinfos came from the client's cache, not from the server",
            {"narinfos": number},
        )
        for uri, number in sorted(by_uri.items())
    ]


def _builds(trace: Trace) -> list[Verdict]:
    if not trace.fallbacks:
        return []
    reasons = Counter(story.attempts[-1].failed or Reason.SILENT for story in trace.fallbacks)
    told = ", ".join(f"{reason}: {number}" for reason, number in reasons.items())
    evidence = {"paths": [story.path for story in trace.fallbacks[:NAMED]], "fallbacks": len(trace.fallbacks)}
    summary = f"{len(trace.fallbacks)} promised paths were not delivered ({told})"
    return [codes.FALLBACK.verdict("fallback", summary, evidence)]


def _gates(trace: Trace, gates: Gates) -> list[Verdict]:
    found = []
    for name, urls in gates.required.items():
        number = sum(1 for story in trace.paths.values() if story.served_by in urls)
        evidence = {"paths_served": number, "urls": sorted(urls)}
        code = codes.GATE_OK if number else codes.GATE_REQUIRE
        found.append(code.verdict(f"--require {name}", f"it served {number} paths", evidence))
    limits = (
        (
            "--max-fallbacks",
            gates.max_fallbacks,
            [story.path for story in trace.fallbacks],
            codes.GATE_FALLBACKS,
        ),
        (
            "--max-local-builds",
            gates.max_local_builds,
            [b.derivation for b in trace.local_builds],
            codes.GATE_BUILDS,
        ),
    )
    for option, limit, seen, failed in limits:
        if limit is not None:
            code = codes.GATE_OK if len(seen) <= limit else failed
            evidence = {"seen": len(seen), "allowed": limit, "paths": seen[:NAMED]}
            found.append(code.verdict(f"{option} {limit}", f"{len(seen)} of at most {limit}", evidence))
    return found
