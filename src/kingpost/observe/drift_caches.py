"""Caches at their Attic servers: there, public or not, signing with the declared key, configured as declared.

`GET /_api/v1/cache-config/NAME` (zhaofengli/attic attic/src/api/v1/cache_config.rs) needs the right to pull; a
missing cache and a private one look the same without it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kingpost.base.errors import KingpostError
from kingpost.base.units import format_duration
from kingpost.observe import doctor_codes
from kingpost.observe import drift_codes as codes
from kingpost.observe.doctor import visit
from kingpost.observe.drift_items import shown
from kingpost.observe.executors.interface import NoWay
from kingpost.topology.places import Dialer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kingpost.base.codes import Code
    from kingpost.base.verdict import Verdict
    from kingpost.observe.entering import Entrance
    from kingpost.topology.caches import AtticCache
    from kingpost.topology.platform import Platform


def judge(
    platform: Platform, entrance: Entrance, hosts: frozenset[str], tokens: Mapping[str, str]
) -> Iterator[Verdict]:
    """Ask each server, from its own host, for each of its caches.

    Args:
        platform: What is declared.
        entrance: Ways into hosts.
        hosts: Only servers on these.
        tokens: By cache (`attic:home/main`), where the host's own files are not to be used.

    """
    for server, attic in platform.topology.attic.items():
        if attic.host not in hosts:
            continue
        context = platform.contexts[f"host:{attic.host}"]
        way, route = (
            entrance.way(context, context.client),
            platform.route(context.id, Dialer.CLIENT, f"attic:{server}"),
        )
        refs = [f"attic:{server}/{cache}" for cache in attic.caches]
        if isinstance(way, NoWay) or route.url is None:
            why = way.reason if isinstance(way, NoWay) else route.reason
            yield from (codes.NOT_ASKED.verdict(ref, why) for ref in refs)
            continue
        targets = [
            {"id": ref, "kind": "attic", "url": route.url, "cache": cache, "token": tokens.get(ref)}
            for ref, cache in zip(refs, attic.caches, strict=True)
        ]
        try:
            answers = visit(way, targets, 5.0)
        except KingpostError as error:
            yield from (codes.NOT_ASKED.verdict(ref, error.what) for ref in refs)
            continue
        for ref, cache, answer in zip(refs, attic.caches.values(), answers, strict=True):
            yield from compare(ref, cache, answer, attic.api_endpoint)


def compare(
    ref: str, cache: AtticCache, answer: Mapping[str, Any], api_endpoint: str | None = None
) -> Iterator[Verdict]:
    """Compare one cache with what the server said of it."""
    asked = answer.get("requests", {}).get("config")
    if asked is None or "status" not in asked:
        broken = answer.get("connect", {}).get("text") or (asked or {}).get("text") or "no Python on the host"
        yield codes.NOT_ASKED.verdict(ref, f"its configuration could not be asked for: {broken}")
        return
    status = asked["status"]
    if status == 404 and "NoSuchCache" in asked["body"]:
        yield doctor_codes.CACHE_MISSING.verdict(
            ref, "the server has no such cache", {"declared": ref, "operational": None}
        )
        return
    if status != 200:
        reason = (
            "with a token that may pull it" if answer.get("claims") else "without a token that it accepts"
        )
        words = f"HTTP {status} {reason}: private, or not there"
        yield codes.NOT_ASKED.verdict(
            ref, words, remedy=f"pass --token-file {ref}=FILE, with a token that may pull"
        )
        return
    try:
        seen = json.loads(asked["body"])
    except ValueError:
        seen = None
    if not isinstance(seen, dict) or "is_public" not in seen:
        yield codes.NOT_ASKED.verdict(ref, "what answers is no Attic server")
        return
    yield from _configuration(ref, cache, seen, api_endpoint)


def _configuration(
    ref: str, cache: AtticCache, seen: Mapping[str, Any], api_endpoint: str | None
) -> Iterator[Verdict]:
    public = seen.get("is_public")
    declared_retention = "Global" if cache.retention is None else {"Period": int(cache.retention)}
    code = doctor_codes.CACHE_NOT_PUBLIC if cache.public else codes.CACHE_VISIBLE
    yield _compared(code, ref, "public", cache.public, public)
    if cache.public_key:
        yield _compared(codes.CACHE_KEY, ref, "public key", cache.public_key, seen.get("public_key"))
    for item, declared, value in (
        ("priority", cache.priority, seen.get("priority")),
        ("retention", _retention(declared_retention), _retention(seen.get("retention_period"))),
        ("upstream keys", sorted(cache.upstream_keys), sorted(seen.get("upstream_cache_key_names") or [])),
        ("api endpoint", api_endpoint, seen.get("api_endpoint") if api_endpoint else None),
    ):
        yield _compared(codes.CACHE_SETTING, ref, item, declared, value)


def _retention(given: Any) -> str:
    """Give a retention as Attic's API writes it, `Global` or `{"Period": seconds}`, for a person; 0 is for ever."""
    if not isinstance(given, dict):
        return "the server's" if given == "Global" else str(given)
    seconds = given.get("Period", 0)
    return format_duration(seconds) if seconds else "for ever"


def _compared(code: Code, ref: str, item: str, declared: Any, seen: Any) -> Verdict:
    evidence = {"declared": declared, "operational": seen}
    if declared == seen:
        return codes.SAME.verdict(f"{ref} {item}", f"{shown(declared)}, as declared", evidence)
    return code.verdict(f"{ref} {item}", f"declared {shown(declared)}, in operation {shown(seen)}", evidence)
