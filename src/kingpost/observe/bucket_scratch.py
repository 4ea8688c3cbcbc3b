"""A whole life of a bucket of its own: created, listed, written, read, emptied, deleted, gone.

Only a bucket with a fresh random name is ever touched, and it is removed in every case; what cannot be removed
is a finding of its own.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from kingpost.base.errors import CannotLookError, KingpostError
from kingpost.cache.s3 import MIN_PART_BYTES, S3Error
from kingpost.observe import bucket_codes as codes
from kingpost.observe import bucket_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kingpost.base.verdict import Verdict
    from kingpost.cache.s3 import S3
    from kingpost.observe.bucket_disk import Directory

PREFIX: Final = "kingpost-rca-"
STALE: Final = timedelta(hours=1)
#: Below and above Attic's usual chunk sizes; the second goes in two parts, as a large chunk does.
SMALL_BYTES: Final = 4096
LARGE_BYTES: Final = MIN_PART_BYTES + 64 * 1024


def fresh_name() -> str:
    """Give a bucket name that nobody else has."""
    return f"{PREFIX}{datetime.now(UTC):%Y%m%d%H%M%S}-{secrets.token_hex(4)}"


def leftovers(s3: S3, now: datetime) -> list[Verdict]:
    """Give a verdict for scratch buckets of runs that were killed: older than an hour, so that none is in use."""
    try:
        names = s3.buckets()
    except KingpostError:
        return []  # the cycle itself has met this, or may not list
    stale = [name for name in names if (made := _made(name)) and now - made > STALE]
    if not stale:
        return []
    said = f"{len(stale)} of earlier runs, which were killed: {', '.join(stale[:5])}"
    return [
        codes.SCRATCH_LEFT.verdict(f"scratch bucket at {s3.endpoint.url}", said, {"buckets": stale[:100]})
    ]


def _made(name: str) -> datetime | None:
    """Tell when a scratch bucket was made, by its name; None for any other bucket."""
    stamp, dash, rest = name.removeprefix(PREFIX).partition("-")
    if not name.startswith(PREFIX) or not dash or len(rest) != 8:
        return None
    try:
        return datetime.strptime(stamp, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


@dataclass(slots=True)
class _Cycle:
    """What a cycle has done so far."""

    s3: S3
    bucket: str
    directories: Sequence[Directory]
    keys: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    created: bool = False
    failed: str = ""

    def step(self, name: str, action: Callable[[], None]) -> None:
        """Do a step, and remember its name when it fails."""
        self.steps.append(name)
        try:
            action()
        except KingpostError:
            self.failed = name
            raise


class _DiffersError(KingpostError):
    """An answer is not what was written."""


def run(s3: S3, *, directories: Sequence[Directory] = (), strict: bool = False) -> list[Verdict]:
    """Go through the cycle; gives one verdict, or two when something was left behind.

    Args:
        s3: The server.
        directories: Its data directories, to see the bucket appear and go there.
        strict: A directory that does not follow is a failure; otherwise it is only evidence.

    """
    cycle = _Cycle(s3, fresh_name(), directories)
    subject = f"scratch bucket at {s3.endpoint.url}"
    started = time.monotonic()
    problem: KingpostError | None = None
    markers: list[str] = []
    try:
        try:
            _write_and_read(cycle)
            if directories:
                cycle.step(
                    "see it on the disk", lambda: markers.append(_marker_problem(cycle, expected=True))
                )
        finally:
            left = _remove(cycle)
    except KingpostError as error:
        problem = error
    evidence = {
        "bucket": cycle.bucket,
        "steps": cycle.steps,
        "seconds": round(time.monotonic() - started, 3),
    }
    found = []
    if problem:
        summary = f"{cycle.failed} failed: {problem.what}"
        found.append(codes.SCRATCH_FAILED.verdict(subject, summary, {**evidence, "said": problem.why}))
    if left:
        found.append(codes.SCRATCH_LEFT.verdict(subject, f"{cycle.bucket} is left behind: {left}", evidence))
    if found:
        return found
    if directories:
        markers.append(_marker_problem(cycle, expected=False))
    wrong = "; ".join(filter(None, markers))
    if wrong and strict:
        return [codes.SCRATCH_MARKERS.verdict(subject, wrong, evidence)]
    said = "created, listed, written, read and deleted"
    if directories:
        said += f"; on the disk: {wrong}" if wrong else ", and the disk followed"
    return [codes.SCRATCH_OK.verdict(subject, said, evidence)]


def _write_and_read(cycle: _Cycle) -> None:
    s3, bucket = cycle.s3, cycle.bucket
    small, large = secrets.token_bytes(SMALL_BYTES), secrets.token_bytes(LARGE_BYTES)
    # From here on it may exist, even if the answer is an error.
    cycle.created = True
    cycle.step("create the bucket", lambda: s3.create(bucket))
    cycle.step("find it listed", lambda: _expect(bucket in s3.buckets(), "ListBuckets does not have it"))
    cycle.keys = ["small", "multipart"]
    cycle.step("write a small object", lambda: s3.put(bucket, "small", small))
    parts = [large[:MIN_PART_BYTES], large[MIN_PART_BYTES:]]
    cycle.step("write an object in two parts", lambda: s3.put_parts(bucket, "multipart", parts))
    cycle.step(
        "list both", lambda: _expect_listed(s3, bucket, {"small": len(small), "multipart": len(large)})
    )
    cycle.step("read the small object", lambda: _expect_same(s3.get(bucket, "small"), small))
    cycle.step("read the object of two parts", lambda: _expect_same(s3.get(bucket, "multipart"), large))


def _remove(cycle: _Cycle) -> str:
    """Remove all that the cycle made; gives what could not be removed, in words, or ""."""
    if not cycle.created:
        return ""
    failed: list[str] = []
    for key in cycle.keys:
        cycle.steps.append(f"delete {key}")
        failed += _failure(lambda key=key: cycle.s3.delete(cycle.bucket, key))  # type: ignore[misc]  # binds the loop's key
    cycle.steps.append("delete the bucket")
    failed += _failure(lambda: cycle.s3.delete_bucket(cycle.bucket))
    cycle.steps.append("find it gone")
    try:
        cycle.s3.head(cycle.bucket)
    except S3Error as error:
        # What was never created, or is gone, needs no deletion: earlier failures to delete do not count.
        if error.absent:
            return ""
        failed.append(error.what)
    except CannotLookError as error:
        failed.append(error.what)
    return "; ".join(failed) or "HeadBucket still finds it"


def _failure(action: Callable[[], None]) -> list[str]:
    try:
        action()
    except KingpostError as error:
        return [error.what]
    return []


def _marker_problem(cycle: _Cycle, *, expected: bool) -> str:
    """Tell in words when the disk does not show the bucket as it should, or ""."""
    view = bucket_disk.look(cycle.directories, cycle.bucket)
    wrong = [
        name
        for name, there in (("its data directory", view.data), ("its metadata directory", view.metadata))
        if there is not None and there is not expected
    ]
    if not wrong:
        return ""
    verb = "did not appear" if expected else "stayed after the deletion"
    return f"{' and '.join(wrong)} {verb}"


def _expect(true: bool, otherwise: str) -> None:
    if not true:
        raise _DiffersError(otherwise)


def _expect_listed(s3: S3, bucket: str, sizes: dict[str, int]) -> None:
    listed = {found.key: found.size for found in s3.objects(bucket)}
    _expect(listed == sizes, f"the listing shows {listed}, written was {sizes}")


def _expect_same(read: bytes, written: bytes) -> None:
    digests = [hashlib.sha256(data).hexdigest()[:16] for data in (read, written)]
    _expect(
        read == written, f"{len(read)} bytes ({digests[0]}) were read, {len(written)} ({digests[1]}) written"
    )
