"""Who really served each store path of a Nix run, who was asked before, and why that one was passed over."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kingpost.observe.nixlog import Activity, Complaint, Reason, Result, complaint, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

HASH_LENGTH: Final = 32
_HERE: Final = frozenset({"", "localhost"})
"""What a build on this machine has for its machine."""


@dataclass(slots=True)
class Attempt:
    """One substitution of one path.

    Attributes:
        uri: The substituter.
        started: Seconds since the trace began; None when read from a log file, which has no times.
        seconds: How long it took; None while it runs, or without times.
        nar_bytes: Bytes of the NAR that were unpacked; Nix 2.8 does not say it of small ones.
        download_bytes: Bytes of the body that were transferred.
        failed: What went wrong; None when nothing was said.

    """

    uri: str
    started: float | None
    seconds: float | None = None
    nar_bytes: int = 0
    download_bytes: int = 0
    failed: Reason | None = None


@dataclass(slots=True)
class PathStory:
    """What happened to one store path."""

    path: str
    asked: dict[str, bool] = field(default_factory=dict)
    last_asked: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    complaints: dict[str, Reason] = field(default_factory=dict)

    @property
    def served_by(self) -> str | None:
        """Give the substituter that it was copied from; None when no copy ended well.

        A stop says nothing of success: the last copy counts unless a complaint about it followed.
        """
        if self.attempts and self.attempts[-1].failed is None:
            return self.attempts[-1].uri
        return None


@dataclass(frozen=True, slots=True)
class BuildStory:
    """A derivation that was built; `machine` is empty for a build on this machine."""

    derivation: str
    machine: str


class Trace:
    """The state of a run, fed with one line after the other. Memory grows with paths, not with events.

    Attributes:
        paths: By store path.
        builds: By derivation.
        troubles: What was said of each substituter, counted, by URI.
        builders: Machines that built, by URI: what they built is copied from them afterwards.
        transferred: Bytes downloaded, by URI prefix `scheme://host`.
        torn: Whether the log ends inside an event.

    """

    def __init__(self, *, live: bool = False) -> None:
        self.paths: dict[str, PathStory] = {}
        self.builds: dict[str, BuildStory] = {}
        self.troubles: dict[str, Counter[Reason]] = {}
        self.builders: set[str] = set()
        self.transferred: Counter[str] = Counter()
        self.events = 0
        self.torn = False
        self._started = time.monotonic() if live else None
        self._open: dict[int, tuple[int, Any]] = {}
        self._substituters: set[str] = set()
        self._by_hash: dict[str, PathStory] = {}
        self._last_stopped: PathStory | None = None
        self._counted: dict[int, int] = {}

    def feed_all(self, lines: Iterable[str]) -> None:
        """Read a whole log; what is no event is skipped."""
        for line in lines:
            self.feed(line)

    def feed(self, line: str) -> dict[str, Any] | None:
        """Read one line; gives its event, or None for a line that is none."""
        event = parse(line)
        if event is None:
            self.torn = line.startswith("@nix")
            return None
        self.torn = False
        self.events += 1
        match event.get("action"):
            case "start":
                self._start(event)
            case "stop":
                self._stop(event)
            case "result":
                if event["type"] == Result.PROGRESS:
                    self._progress(event)
            case "msg":
                if found := complaint(str(event.get("msg", ""))):
                    self._complain(found, final=event["level"] == 0)
        return event

    # --- events ---------------------------------------------------------------------------------------------

    def _now(self) -> float | None:
        return None if self._started is None else time.monotonic() - self._started

    def _start(self, event: dict[str, Any]) -> None:
        kind, number, fields = event["type"], event["id"], event.get("fields")
        if not isinstance(fields, list) or not all(isinstance(f, (str, int)) for f in fields):
            return
        if kind == Activity.QUERY_PATH_INFO and len(fields) >= 2:
            uri = _uri(fields[1])
            if uri != "local" and not uri.startswith("daemon"):
                self._substituters.add(uri)
                story = self._story(str(fields[0]))
                story.asked.setdefault(uri, False)
                story.last_asked = uri
        elif kind == Activity.FILE_TRANSFER and fields:
            url = str(fields[0])
            self._open[number] = (Activity.FILE_TRANSFER, (url, self._copy_of(url, event.get("parent"))))
            self._notice_request(url)
        elif kind == Activity.COPY_PATH and len(fields) >= 2 and _uri(fields[1]) not in {"local", "daemon"}:
            story, attempt = self._story(str(fields[0])), Attempt(_uri(fields[1]), self._now())
            self._substituters.add(attempt.uri)
            story.attempts.append(attempt)
            self._open[number] = (Activity.COPY_PATH, (story, attempt))
        elif kind == Activity.SUBSTITUTE and len(fields) >= 2:
            self._substituters.add(_uri(fields[1]))
        elif kind == Activity.BUILD and fields:
            self._build(number, str(fields[0]), str(fields[1]) if len(fields) > 1 else "")

    def _build(self, number: int, derivation: str, machine: str) -> None:
        """Note a build. A builder by ssh-ng hands on its own log, in which the same build is one on its own machine."""
        elsewhere = any(what == derivation for kind, what in self._open.values() if kind == Activity.BUILD)
        if machine in _HERE and elsewhere:
            return
        self.builds[derivation] = BuildStory(derivation, machine)
        if machine not in _HERE:
            self._open[number] = (Activity.BUILD, derivation)
            self.builders.add(_uri(machine))

    def _stop(self, event: dict[str, Any]) -> None:
        kind, what = self._open.pop(event["id"], (0, None))
        self._counted.pop(event["id"], None)
        if kind == Activity.COPY_PATH:
            story, attempt = what
            now = self._now()
            if now is not None and attempt.started is not None:
                attempt.seconds = now - attempt.started
            self._last_stopped = story

    def _progress(self, event: dict[str, Any]) -> None:
        kind, what = self._open.get(event["id"], (0, None))
        fields = event.get("fields")
        if not kind or not isinstance(fields, list) or not fields or not isinstance(fields[0], int):
            return
        if kind == Activity.COPY_PATH:
            what[1].nar_bytes = max(what[1].nar_bytes, fields[0])
        elif kind == Activity.FILE_TRANSFER:
            # Progress is the running total of one transfer: count only what is new.
            before = self._counted.get(event["id"], 0)
            url, attempt = what
            if fields[0] > before:
                self.transferred[_origin(url)] += fields[0] - before
                if attempt is not None:
                    attempt.download_bytes += fields[0] - before
                self._counted[event["id"]] = fields[0]

    def _complain(self, found: Complaint, *, final: bool) -> None:
        uri = self._substituter_of(found)
        story = self._story_of(found)
        if (
            uri is None
            and story is not None
            and story.attempts
            and found.reason is not Reason.NARINFO_CORRUPT
        ):
            uri = story.attempts[-1].uri
        elif uri is None and story is not None:
            uri = story.last_asked  # a corrupt narinfo is named by its hash, right after it was asked for
        if uri is None:
            return
        if not found.retries:
            self.troubles.setdefault(uri, Counter())[found.reason] += 1
        if story is None:
            return
        story.complaints[uri] = found.reason
        spoiled = final or found.reason in {Reason.NAR_MISSING, Reason.NAR_CUT, Reason.NAR_STALLED}
        if spoiled and not found.retries and story.attempts and story.attempts[-1].uri == uri:
            story.attempts[-1].failed = found.reason

    # --- who is meant -----------------------------------------------------------------------------------------

    def _story(self, path: str) -> PathStory:
        if path not in self.paths:
            self.paths[path] = self._by_hash[_hash_part(path)] = PathStory(path)
        return self.paths[path]

    def _story_of(self, found: Complaint) -> PathStory | None:
        """Give the path that a complaint is about.

        A message with neither path nor NAR follows the stop of the copy that it is about; with several copies at
        once that is a guess, as Nix gives no more.
        """
        if found.path:
            return self._by_hash.get(_hash_part(found.path))
        nar = found.reason in {
            Reason.NAR_CORRUPT, Reason.NAR_CUT, Reason.NAR_STALLED, Reason.NAR_MISSING, Reason.HTTP_ERROR,
        }  # fmt: skip
        if not nar or (found.url and "/nar/" not in found.url and found.reason is Reason.HTTP_ERROR):
            return None
        running: list[PathStory] = [
            what[0] for kind, what in self._open.values() if kind == Activity.COPY_PATH
        ]
        for story in [self._last_stopped, *running]:
            if story and story.attempts and (not found.url or found.url.startswith(story.attempts[-1].uri)):
                return story
        return None

    def _substituter_of(self, found: Complaint) -> str | None:
        """Give the substituter that a complaint's URL belongs to; a URL that no event named stands for itself."""
        if not found.url:
            return None
        matches = [uri for uri in self._substituters if found.url.rstrip("/").startswith(uri)]
        if matches:
            return max(matches, key=len)
        base = found.url.split("/nar/")[0]
        for ending in ("/nix-cache-info",):
            base = base.removesuffix(ending)
        name = base.rpartition("/")
        return name[0] if name[2].endswith(".narinfo") else base.rstrip("/")

    def _copy_of(self, url: str, parent: object) -> Attempt | None:
        """Give the copy that a transfer is for: Nix 2.34 names its parent; 2.8 starts it right after the copy."""
        if url.endswith((".narinfo", "/nix-cache-info")):
            return None
        if isinstance(parent, int) and parent in self._open:
            kind, what = self._open[parent]
            return what[1] if kind == Activity.COPY_PATH else None
        for kind, what in reversed(self._open.values()):
            if kind == Activity.COPY_PATH and url.startswith(what[1].uri) and not what[1].download_bytes:
                attempt: Attempt = what[1]
                return attempt
        return None

    def _notice_request(self, url: str) -> None:
        """Remember that a narinfo was really asked for, and not answered by the client's own cache."""
        base, _, name = url.rpartition("/")
        if name.endswith(".narinfo") and (story := self._by_hash.get(name.removesuffix(".narinfo"))):
            story.asked[_uri(base)] = True

    # --- what it comes to -------------------------------------------------------------------------------------

    @property
    def local_builds(self) -> list[BuildStory]:
        """Give what this machine built."""
        return [build for build in self.builds.values() if build.machine in _HERE]

    @property
    def fallbacks(self) -> list[PathStory]:
        """Give the paths that a substituter promised and then did not deliver, and no other delivered either."""
        return [story for story in self.paths.values() if story.attempts and story.served_by is None]

    @property
    def from_client_cache(self) -> list[tuple[PathStory, str]]:
        """Give the (path, substituter) pairs that Nix answered from its own narinfo cache.

        Nix then neither queries (no event 109) nor downloads a narinfo; it goes straight for the body. A miss
        that comes from the cache leaves no trace at all.
        """
        return [
            (story, attempt.uri)
            for story in self.paths.values()
            for attempt in story.attempts
            if attempt.uri.startswith("http") and not story.asked.get(attempt.uri)
        ]

    def passed_over(self, story: PathStory) -> dict[str, Reason]:
        """Give the substituters that were asked for a path before the one that served it, and why they did not."""
        found: dict[str, Reason] = {}
        for uri in story.asked:
            if uri == story.served_by:
                break
            general = self.troubles.get(uri)
            found[uri] = story.complaints.get(uri) or (
                general.most_common(1)[0][0] if general else Reason.SILENT
            )
        for attempt in story.attempts:
            if attempt.failed is not None:
                found[attempt.uri] = attempt.failed
        for uri, reasons in self.troubles.items():
            # A cache that failed as a whole was never asked for the path itself.
            if uri not in story.asked and uri != story.served_by:
                found.setdefault(uri, reasons.most_common(1)[0][0])
        return found


def _uri(value: Any) -> str:
    """Give a substituter's URI without its parameters and final slash."""
    return str(value).partition("?")[0].rstrip("/")


def _origin(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _hash_part(path: str) -> str:
    return path.rpartition("/")[2][:HASH_LENGTH]
