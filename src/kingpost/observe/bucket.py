"""A bucket seen twice, through S3 and on the server's disk, and what it means when the two differ.

The table is that of the incident of 2026-05: RustFS answered NoSuchBucket while `/data/<bucket>` and
`/data/.rustfs.sys/buckets/<bucket>` were on the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import CannotLookError
from kingpost.cache.s3 import S3Error
from kingpost.observe import bucket_codes as codes

if TYPE_CHECKING:
    from collections.abc import Callable

    from kingpost.base.codes import Code
    from kingpost.base.verdict import Verdict
    from kingpost.cache.s3 import S3
    from kingpost.observe.bucket_disk import DiskView


class State(StrEnum):
    """What the two views of a bucket say together."""

    COHERENT = "coherent"
    INDEX_DIVERGENCE = "index-divergence"
    ABSENT = "absent"
    METADATA_LOSS = "metadata-loss"
    PHANTOM = "phantom"
    ORPHAN_METADATA = "orphan-metadata"


_CODES: Final = {
    State.COHERENT: codes.COHERENT,
    State.INDEX_DIVERGENCE: codes.INDEX_DIVERGENCE,
    State.ABSENT: codes.ABSENT,
    State.METADATA_LOSS: codes.METADATA_LOSS,
    State.PHANTOM: codes.PHANTOM,
    State.ORPHAN_METADATA: codes.ORPHAN_METADATA,
}


@dataclass(frozen=True, slots=True)
class ApiView:
    """What S3 says of a bucket. An error is S3's code, or "" when the request succeeded or was not made.

    Attributes:
        listed: ListBuckets has it; None when listing is not allowed.
        head: HeadBucket's error.
        objects: How many objects the first page has (at most 10); None when listing them failed.
        list_error: ListObjectsV2's error.
        read_key: The object that was read; "" when there is none to read.
        read_bytes: How much of it came.
        read_error: GetObject's error.
        denied: Some request was refused for the credentials.

    """

    listed: bool | None
    head: str
    objects: int | None = None
    list_error: str = ""
    read_key: str = ""
    read_bytes: int = 0
    read_error: str = ""
    denied: bool = False

    @property
    def known(self) -> bool:
        """Tell whether the index has the bucket, by every request that was allowed."""
        return self.listed is not False and self.head != "404" and self.list_error != "NoSuchBucket"

    @property
    def half_known(self) -> bool:
        """Tell whether requests disagree: the list has it and HeadBucket does not, or the other way."""
        return not self.known and (self.listed is True or not self.head)

    def as_dict(self) -> dict[str, Any]:
        """Give it as evidence."""
        return {
            "listed": self.listed,
            "head_bucket": self.head or "ok",
            "list_objects": self.list_error or self.objects,
            "get_object": self.read_error or (f"{self.read_bytes} bytes" if self.read_key else "no object"),
        }


def look(s3: S3, bucket: str) -> ApiView:
    """Ask S3 for a bucket: ListBuckets, HeadBucket, ListObjectsV2 and one GET.

    Raises:
        CannotLookError: The server does not answer at all.

    """
    denied = False

    def ask(request: Callable[[], Any]) -> tuple[Any, str]:
        nonlocal denied
        try:
            return request(), ""
        except S3Error as error:
            denied |= error.denied
            return None, "404" if error.operation == "HeadBucket" and error.absent else error.code

    buckets, _ = ask(s3.buckets)
    listed = None if buckets is None else bucket in buckets
    _, head = ask(lambda: s3.head(bucket))
    objects, list_error = ask(lambda: s3.objects(bucket))
    smallest = min(objects or [], key=lambda found: found.size, default=None)
    data, read_error = ask(lambda: s3.get(bucket, smallest.key)) if smallest else (None, "")
    if smallest and data is not None and len(data) < min(smallest.size, 8 * 1024 * 1024):
        read_error = f"only {len(data)} of {smallest.size} bytes"
    return ApiView(
        listed,
        head,
        None if objects is None else len(objects),
        list_error,
        smallest.key if smallest else "",
        len(data or b""),
        read_error,
        denied,
    )


def classify(*, known: bool, data: bool, metadata: bool | None) -> State:
    """Give the state that two views amount to.

    Args:
        known: The API has the bucket.
        data: Its data directory is there.
        metadata: Its metadata directory is there; None for a server that keeps none.

    """
    if data and metadata is False:
        return State.METADATA_LOSS
    if data:
        return State.COHERENT if known else State.INDEX_DIVERGENCE
    if known:
        return State.PHANTOM
    return State.ORPHAN_METADATA if metadata else State.ABSENT


def judge(bucket: str, server: str, api: ApiView, disk: DiskView | None) -> Verdict:
    """Give the verdict on one bucket.

    Args:
        bucket: Its name.
        server: The endpoint's URL.
        api: What S3 says.
        disk: What is on the disk; None when it was not looked at.

    """
    subject = f"bucket {bucket} at {server}"
    evidence: dict[str, Any] = {"api": api.as_dict()}
    if api.denied and not api.listed and api.head not in ("", "404"):
        return codes.DENIED.verdict(subject, "the server refuses the credentials for this bucket", evidence)
    if disk is None:
        code = codes.READABLE if api.known else codes.NOT_LISTED
        return _with_reads(code, subject, api, evidence, "S3 has the bucket and reads it")
    evidence["disk"] = disk.as_dict()
    state = classify(known=api.known, data=disk.data, metadata=disk.metadata)
    evidence["state"] = state
    return _with_reads(_CODES[state], subject, api, evidence, "S3 and the disk agree, and S3 reads it")


def _with_reads(code: Code, subject: str, api: ApiView, evidence: dict[str, Any], fine: str) -> Verdict:
    if code not in (codes.COHERENT, codes.READABLE):
        summary = code.symptom
        if api.half_known:
            how = "ListBuckets has it, other requests do not" if api.listed else "HeadBucket still finds it"
            summary += f" The index is half lost: {how}."
        return code.verdict(subject, summary, evidence)
    if failed := api.head or api.list_error or api.read_error:
        return codes.UNREADABLE.verdict(
            subject, f"S3 has the bucket, and reading it fails: {failed}", evidence
        )
    return code.verdict(subject, fine + ("" if api.read_key else " (it holds no object)"), evidence)


def reachable(s3: S3) -> None:
    """Raise CannotLookError unless the server answers S3's protocol at all."""
    try:
        s3.buckets()
    except S3Error as error:
        if error.status >= 500:
            raise CannotLookError(
                f"the server answers HTTP {error.status}", where=s3.endpoint.url, why=error.why
            ) from error
