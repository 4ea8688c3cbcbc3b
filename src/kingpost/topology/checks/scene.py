"""What a check looks at: the topology, what is derived from it, and indexes over both."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kingpost.topology.budget import host_budget
from kingpost.topology.names import all_caches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date

    from kingpost.topology.budget import Budget
    from kingpost.topology.checks.registry import Path
    from kingpost.topology.ci import Push
    from kingpost.topology.hosts import Placement
    from kingpost.topology.model import Topology
    from kingpost.topology.names import CacheRef
    from kingpost.topology.platform import Platform
    from kingpost.topology.problems import Problem


@dataclass(frozen=True)
class Scene:
    """One run's subject.

    Attributes:
        topology: What is written.
        platform: What is derived from it; only for checks of the stage DERIVED.
        today: On which waivers expire.
        found: What the checks before found, waived or not; only for checks of the stage LAST.

    """

    topology: Topology
    platform: Platform
    today: date
    found: list[Problem] = field(default_factory=list)

    @cached_property
    def caches(self) -> dict[str, CacheRef]:
        """Give every cache by its full name."""
        return all_caches(self.topology)

    def cache(self, text: str | None) -> CacheRef | None:
        """Give the cache that a text means, by the rules of `match_name`; None when it is unknown or ambiguous."""
        if text is None or text in self.caches:
            return self.caches.get(text or "")
        meant = self._short.get(text, [])
        return meant[0] if len(meant) == 1 else None

    @cached_property
    def _short(self) -> dict[str, list[CacheRef]]:
        """Give what each short form may mean: what follows `:` or `/`, else the kind before the `:`."""
        endings: dict[str, list[CacheRef]] = {}
        kinds: dict[str, list[CacheRef]] = {}
        for name, ref in self.caches.items():
            kind, _, rest = name.partition(":")
            for short in {rest, rest.rpartition("/")[2]}:
                endings.setdefault(short, []).append(ref)
            kinds.setdefault(kind, []).append(ref)
        return {**kinds, **endings}

    def placements(self) -> Iterator[tuple[Path, Placement]]:
        """Give everything that listens: Attic servers and self-hosted buckets."""
        for name, attic in self.topology.attic.items():
            yield ("attic", name), attic
        for name, bucket in self.topology.buckets.items():
            if bucket.listener is not None:
                yield ("buckets", name, "listener"), bucket.listener

    def pushes(self) -> Iterator[tuple[Path, str, Push]]:
        """Give every push that happens, with its path and its pipeline's name."""
        for name, pipeline in self.topology.pipelines.items():
            for index, push in enumerate(pipeline.push):
                if push.policy != "off":
                    yield ("pipelines", name, "push", index), name, push

    @cached_property
    def host_budgets(self) -> dict[str, Budget]:
        """Give every host's budget."""
        return {name: host_budget(self.topology, name) for name in self.topology.hosts}

    @cached_property
    def texts(self) -> list[tuple[Path, str]]:
        """Give every text that was written, with its path."""
        found: list[tuple[Path, str]] = []
        _collect(self.topology.model_dump(mode="json", by_alias=True, exclude_unset=True), (), found)
        return found

    @cached_property
    def reads(self) -> dict[CacheRef, Path]:
        """Give every cache that some context substitutes from, with one place that says so."""
        return {ref: path for lists in self.read_lists.values() for path, ref in reversed(lists)}

    @cached_property
    def read_lists(self) -> dict[Path, list[tuple[Path, CacheRef]]]:
        """Give every list of substituters, by where it stands."""
        topology = self.topology
        declared: dict[Path, tuple[str, ...] | None] = {("site", "substituters"): topology.site.substituters}
        declared |= {
            ("hosts", name, "substituters"): host.substituters for name, host in topology.hosts.items()
        }
        declared |= {
            ("runners", name, "substituters"): one.substituters for name, one in topology.runners.items()
        }
        return {
            path: [((*path, index), ref) for index, text in enumerate(texts) if (ref := self.cache(text))]
            for path, texts in declared.items()
            if texts is not None
        }

    def public_key(self, ref: CacheRef) -> tuple[Path, str | None]:
        """Give a cache's public key, and the table that it stands in."""
        if ref.kind == "attic":
            cache = self.topology.attic[ref.server].caches[ref.cache]
            return ("attic", ref.server, "caches", ref.cache), cache.public_key
        if ref.kind == "cachix":
            return ("cachix", ref.server), self.topology.cachix[ref.server].public_key
        return ("substituters", ref.server), self.topology.all_substituters[ref.server].public_key

    def host_of(self, host: str | None, cluster: str | None) -> str | None:
        """Give the host of something placed on a host or in a cluster."""
        if host is not None:
            return host
        found = self.topology.clusters.get(cluster) if cluster is not None else None
        return found.host if found else None


def _collect(value: Any, path: Path, found: list[tuple[Path, str]]) -> None:
    """Add every text in a value to those found."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, str):
            found.append(((*path, key), inner))
        elif isinstance(inner, (dict, list)):
            _collect(inner, (*path, key), found)


def hint(word: str, known: Iterable[str], what: str) -> str:
    """Give what to write instead of an unknown word."""
    names = list(known)
    close = get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"there are: {', '.join(names)}" if names else f"the topology declares no {what} yet"


def dotted(path: Path) -> str:
    """Give a path as it is written in messages: `pipelines.blog.push[0]`."""
    words = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(words).removeprefix(".")
