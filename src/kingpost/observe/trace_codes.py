"""What a traced Nix run can show."""

from __future__ import annotations

from typing import Final

from kingpost.base.codes import Code
from kingpost.base.verdict import Status

SERVED: Final = Code(
    "KP-TRACE-SERVED", Status.OK, "a substituter served",
    "Paths of the run were copied from it, and nothing was said against it.",
)  # fmt: skip
TROUBLED: Final = Code(
    "KP-TRACE-TROUBLED", Status.FAILED, "a substituter failed",
    "Nix complained about it during the run: the exit code does not show that.",
    cause="It refuses, times out, lacks or damages bodies, or its signatures are not trusted; the next one was "
    "used, or the path was built.",
    told_apart="KP-TRACE-SILENT: asked and passed over without any message.",
    remedy="`kingpost doctor` for the address, `kingpost cache audit` for the bodies",
)  # fmt: skip
SILENT: Final = Code(
    "KP-TRACE-SILENT", Status.EXPECTED, "asked, and gave nothing",
    "It was asked for paths, served none of them, and Nix printed nothing.",
    cause="A plain miss; but 401, 403 and 404 on a narinfo look exactly the same in Nix's log.",
    told_apart="A cache that should have had the paths: probe it by `kingpost doctor`, which sees the status.",
    remedy="`kingpost doctor --to CACHE` from this context, where the cache should have had the paths",
)  # fmt: skip
CLIENT_CACHE: Final = Code(
    "KP-TRACE-CLIENT-CACHE", Status.EXPECTED, "answered from the client's own cache",
    "Nix did not ask the server for these narinfos: its disk cache answered.",
    cause="`~/.cache/nix/binary-cache-v*.sqlite` keeps answers for 30 days, and misses for an hour.",
    told_apart="Nix logs no query and no download of the narinfo, and goes straight for the body.",
    remedy="to see the server itself: --option narinfo-cache-negative-ttl 0 --option narinfo-cache-positive-ttl 0, "
    "or a fresh HOME",
)  # fmt: skip
FALLBACK: Final = Code(
    "KP-TRACE-FALLBACK", Status.EXPECTED, "built after a substituter failed",
    "A narinfo promised a path, its body did not come, and the path was built or is missing.",
    cause="`fallback` hides a broken cache: the build is green, the cache is not.",
    told_apart="KP-TRACE-SILENT: the cache promised nothing, so nothing was hidden.",
    remedy="`kingpost cache audit` on the paths named",
)  # fmt: skip
TORN: Final = Code(
    "KP-TRACE-TORN", Status.SKIPPED, "the log is not whole",
    "The log ends inside an event: what came after it was not seen.",
)  # fmt: skip
NO_EVENTS: Final = Code(
    "KP-TRACE-NO-EVENTS", Status.SKIPPED, "no events",
    "The log has no internal-json event.",
    cause="It was written without `--log-format internal-json -v`.",
    remedy="trace the run itself: `kingpost trace -- nix build …`",
)  # fmt: skip
RUN_FAILED: Final = Code(
    "KP-TRACE-RUN-FAILED", Status.FAILED, "the traced command failed",
    "The command ended with a non-zero exit code.",
    cause="A build failed, an evaluation did, or a promised path did not come and nothing could build it.",
    told_apart="A run that ends well may still have KP-TRACE-TROUBLED: exit codes do not show substituters.",
    remedy="read its output above",
)  # fmt: skip
GATE_OK: Final = Code(
    "KP-GATE-HELD", Status.OK, "the gate held", "What the gate demands is true of this run."
)
GATE_REQUIRE: Final = Code(
    "KP-GATE-REQUIRE", Status.FAILED, "a required cache served nothing",
    "`--require` names a cache that served no path of this run.",
    cause="It was not asked, was passed over, or lacks what the run needed.",
    told_apart="A run in which nothing had to be fetched cannot show it either.",
    remedy="see who served instead, and why the cache was passed over",
)  # fmt: skip
GATE_FALLBACKS: Final = Code(
    "KP-GATE-FALLBACKS", Status.FAILED, "more fallbacks than allowed",
    "More promised paths were not delivered than `--max-fallbacks` allows.",
    cause="A cache that has narinfos and not their bodies, hidden by `fallback = true`.",
    told_apart="A path that no cache promised is a build, and no fallback: --max-local-builds.",
    remedy="`kingpost cache audit` on the paths named",
)  # fmt: skip
GATE_BUILDS: Final = Code(
    "KP-GATE-LOCAL-BUILDS", Status.FAILED, "more local builds than allowed",
    "This machine built more derivations than `--max-local-builds` allows.",
    cause="Nobody pushed the paths, the cache was passed over, or inputs changed.",
    told_apart="Builds on a remote builder are not counted, also where its own log comes through.",
    remedy="push what was built, or find out why the cache did not give it",
)  # fmt: skip
