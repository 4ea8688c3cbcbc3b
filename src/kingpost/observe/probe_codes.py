"""What a probe of publishing can mean. The bodies' own verdicts are those of the audit."""

from __future__ import annotations

from typing import Final

from kingpost.base.codes import Code
from kingpost.base.verdict import Status

PASSED: Final = Code(
    "KP-PROBE-PASSED", Status.OK, "a real closure was published",
    "A closure that was named was built, pushed by the real client, read back whole, and the storage was sound "
    "before and after.",
)  # fmt: skip
PASSED_GENERATED: Final = Code(
    "KP-PROBE-PASSED-GENERATED", Status.OK, "a generated closure was published",
    "A closure of the profile's shape, made up for the probe, passed all parts.",
    told_apart="The number and sizes of its paths are like real ones; what is in them is not. KP-PROBE-PASSED had a "
    "closure of your own.",
)  # fmt: skip
PASSED_SYNTHETIC: Final = Code(
    "KP-PROBE-PASSED-SYNTHETIC", Status.OK, "one tiny path was published",
    "A single small path passed all parts. This is no evidence for real closures.",
    cause="One NAR below the chunking threshold is one upload; a closure is dozens of concurrent ones. In the "
    "incident of 2026-05 the synthetic probe passed and every real closure failed.",
    told_apart="KP-PROBE-PASSED and KP-PROBE-PASSED-GENERATED are representative; this never stands for them.",
    remedy="run the profile small, then medium",
)  # fmt: skip
PRE: Final = Code(
    "KP-PROBE-PRE", Status.FAILED, "unsound before the push",
    "The cache or its storage was unsound before anything was pushed, so nothing was.",
    remedy="repair what the verdicts above name, then probe again",
)  # fmt: skip
SHAPE: Final = Code(
    "KP-PROBE-SHAPE", Status.FAILED, "payload is not of the profile's shape",
    "The closure has too few paths, or none above or none below the chunking threshold.",
    told_apart="Nothing was pushed: a pass would have claimed more than was shown.",
    remedy="name a larger closure with --payload, or probe with the smaller profile",
)  # fmt: skip
BUILD: Final = Code(
    "KP-PROBE-BUILD", Status.FAILED, "payload could not be built",
    "Nix could not build the payload, or does not have it.",
    told_apart="Says nothing about the cache: nothing was pushed.",
    remedy="build it by hand with the command in the evidence",
)  # fmt: skip
PUSH: Final = Code(
    "KP-PROBE-PUSH", Status.FAILED, "push failed",
    "The client ended with an error.",
    cause="Attic answers 500 InternalServerError for every storage and database error; which one is in its log only. "
    "That the output path was deduplicated is no good sign: the database decides that, not the storage.",
    remedy="read the server's log at that time, and `kingpost bucket rca` for its bucket",
)  # fmt: skip
READ_BACK: Final = Code(
    "KP-PROBE-READ-BACK", Status.FAILED, "pushed, but not readable",
    "The client said that the push succeeded, and paths of the closure cannot be read back.",
    cause="A server that acknowledges what it did not store, a proxy that answers 200 with a page (Attic's "
    "client takes any 2xx as success), or a storage that failed right after.",
    remedy="follow the verdicts on the paths",
)  # fmt: skip
NOTHING_NEW: Final = Code(
    "KP-PROBE-NOTHING-NEW", Status.FAILED, "nothing was published",
    "Every path was in the cache already: the push wrote nothing, so nothing was shown.",
    remedy="choose a payload that changes",
)  # fmt: skip
POST: Final = Code(
    "KP-PROBE-POST", Status.FAILED, "unsound after the push",
    "The push and the reading back passed, and then the cache or its storage was unsound.",
    cause="Writes trigger the fault: in the incident the bucket left the index after the publication.",
    told_apart="KP-PROBE-PRE: it was unsound already. Only the comparison of both shows what a push does.",
    remedy="stop publishing to this cache; keep evidence with `kingpost bucket rca --since`",
)  # fmt: skip
NOT_TRIED: Final = Code(
    "KP-PROBE-NOT-TRIED", Status.SKIPPED, "part not tried",
    "A part of the probe was not tried, because one before it failed.",
)  # fmt: skip
PART_OK: Final = Code("KP-PROBE-PART-OK", Status.OK, "part passed", "One part of the probe passed.")
