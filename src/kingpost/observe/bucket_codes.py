"""What an observation of a bucket can mean: the API's view against the disk's."""

from __future__ import annotations

from typing import Final

from kingpost.base.codes import Code
from kingpost.base.verdict import Status

COHERENT: Final = Code(
    "KP-BUCKET-COHERENT", Status.OK, "both views agree",
    "S3 lists the bucket, answers for it and reads an object; its data and metadata are on the disk.",
    told_apart="Coherent now: says nothing about availability, nor that an earlier divergence was fixed.",
)  # fmt: skip
READABLE: Final = Code(
    "KP-BUCKET-READABLE", Status.OK, "the API answers",
    "S3 lists the bucket, answers for it and reads an object; the disk was not looked at.",
    told_apart="KP-BUCKET-COHERENT compares with the disk too.",
)  # fmt: skip
INDEX_DIVERGENCE: Final = Code(
    "KP-BUCKET-INDEX-DIVERGENCE", Status.FAILED, "bucket index diverged",
    "S3 does not list the bucket (NoSuchBucket), while its data and its metadata are on the disk.",
    cause="The server's in-memory index lost the bucket. Attic then answers narinfos from its database and "
    "sends empty NAR bodies with status 200.",
    told_apart="KP-BUCKET-ABSENT: nothing on the disk either. KP-BUCKET-METADATA-LOSS: only the data is there.",
    remedy="keep evidence first (--since 30m), then `kingpost bucket restart`: it recovers the index and fixes "
    "no cause; stop writing to the bucket until the server is repaired or replaced",
)  # fmt: skip
ABSENT: Final = Code(
    "KP-BUCKET-ABSENT", Status.FAILED, "no such bucket",
    "Neither S3 nor the disk has the bucket.",
    cause="It was never created, was deleted, or another volume is mounted.",
    told_apart="A restart brings nothing back here.",
    remedy="check the name and the mounted volume; create the bucket if it is new",
)  # fmt: skip
NOT_LISTED: Final = Code(
    "KP-BUCKET-NOT-LISTED", Status.FAILED, "the API does not have it",
    "S3 does not list the bucket or answers NoSuchBucket; the disk was not looked at.",
    told_apart="Only the disk tells a diverged index from a bucket that was never there.",
    remedy="run this again with --disk (a path, ssh:HOST:PATH or kube:NAMESPACE/deployment/NAME:PATH)",
)  # fmt: skip
METADATA_LOSS: Final = Code(
    "KP-BUCKET-METADATA-LOSS", Status.FAILED, "metadata lost",
    "The bucket's data is on the disk, its metadata directory is not.",
    told_apart="A restart reads the metadata anew: what is lost on the disk is then lost for the API as well.",
    remedy="do not restart: copy the data directory first, then restore .rustfs.sys/buckets from a backup",
)  # fmt: skip
PHANTOM: Final = Code(
    "KP-BUCKET-PHANTOM", Status.FAILED, "listed without data",
    "S3 lists the bucket, and there is no data directory for it.",
    cause="The wrong volume is mounted or looked at, or the data was deleted under the server.",
    remedy="compare the server's mounts with the directory that was looked at, before anything is written",
)  # fmt: skip
ORPHAN_METADATA: Final = Code(
    "KP-BUCKET-ORPHAN-METADATA", Status.FAILED, "metadata without data",
    "Only the bucket's metadata is on the disk; neither S3 nor the data directory has it.",
    cause="A half-deleted bucket, or a data volume that is not mounted.",
    remedy="check the mounts of the data volume; do not create the bucket anew over it",
)  # fmt: skip
UNREADABLE: Final = Code(
    "KP-BUCKET-UNREADABLE", Status.FAILED, "listed, but not readable",
    "S3 lists the bucket, and a request for it fails.",
    cause="The index is half lost, objects are damaged, or the credentials may not read.",
    remedy="read the server's log for the failed request (--since 30m collects it)",
)  # fmt: skip
DENIED: Final = Code(
    "KP-BUCKET-DENIED", Status.FAILED, "credentials refused",
    "The server refuses the credentials, or they may not see the bucket.",
    told_apart="403 says nothing about the state of the bucket.",
    remedy="name the credentials that the cache's server uses (--credentials)",
)  # fmt: skip
DISK_UNSEEN: Final = Code(
    "KP-BUCKET-DISK-UNSEEN", Status.SKIPPED, "disk not seen",
    "The server's data directory could not be looked at.",
    remedy="check the path and the rights there",
)  # fmt: skip
INTERIM: Final = Code(
    "KP-BUCKET-INTERIM", Status.EXPECTED, "declared interim state",
    "The bucket is in the state that a waiver of the topology declares, and the waiver has not expired.",
    told_apart="Evidence of a known state, not of health.",
)  # fmt: skip
INTERIM_UNNEEDED: Final = Code(
    "KP-BUCKET-INTERIM-UNNEEDED", Status.FAILED, "waiver no longer needed",
    "The interim state that was expected is over: the bucket is healthy.",
    cause="A waiver that stays hides the next failure.",
    remedy="delete the waiver from the topology and --expect-interim from the job",
)  # fmt: skip
INTERIM_EXPIRED: Final = Code(
    "KP-BUCKET-INTERIM-EXPIRED", Status.FAILED, "waiver expired",
    "The bucket is in the declared interim state, and the waiver for it has expired.",
    remedy="end the state, or decide anew and extend the waiver with a reason",
)  # fmt: skip
SCRATCH_OK: Final = Code(
    "KP-BUCKET-SCRATCH-OK", Status.OK, "scratch cycle passed",
    "A bucket was created, listed, written to (whole and in parts), read back, emptied and deleted.",
)  # fmt: skip
SCRATCH_FAILED: Final = Code(
    "KP-BUCKET-SCRATCH-FAILED", Status.FAILED, "scratch cycle failed",
    "A step of the cycle on a bucket of its own failed.",
    told_apart="The cycle never touches another bucket.",
    remedy="read the server's log at that time; writes to real buckets are at risk too",
)  # fmt: skip
SCRATCH_LEFT: Final = Code(
    "KP-BUCKET-SCRATCH-LEFT", Status.FAILED, "scratch bucket left behind",
    "The scratch bucket could not be deleted, or is still there after it was.",
    remedy="delete it by hand when the server works again",
)  # fmt: skip
SCRATCH_MARKERS: Final = Code(
    "KP-BUCKET-SCRATCH-MARKERS", Status.FAILED, "disk does not follow the API",
    "The scratch bucket's directories did not appear on the disk when it was created, or stayed when it was deleted.",
    cause="The server keeps buckets elsewhere than where was looked, or its index and its disk part ways.",
    remedy="check --disk and --provider; when they are right, treat the server as diverging",
)  # fmt: skip
EVIDENCE: Final = Code(
    "KP-BUCKET-EVIDENCE", Status.OK, "evidence kept",
    "Logs, version, disks and image of the server were written to a directory, without secrets.",
)  # fmt: skip
EVIDENCE_MISSING: Final = Code(
    "KP-BUCKET-EVIDENCE-MISSING", Status.SKIPPED, "evidence incomplete",
    "A part of the evidence could not be collected.",
)  # fmt: skip
RESTART: Final = Code(
    "KP-BUCKET-RESTART", Status.EXPECTED, "restart begun",
    "The evidence is kept and the server is being restarted; recorded before, so that a kill loses no count.",
)  # fmt: skip
RECOVERED: Final = Code(
    "KP-BUCKET-RECOVERED", Status.OK, "recovered by a restart",
    "After the restart both views agree again. This is recovery and no fix.",
    told_apart="What made the index diverge is still there, and will do it again.",
    remedy="keep writes quarantined until the server is repaired or replaced; send the evidence to its maintainers",
)  # fmt: skip
NOT_RECOVERED: Final = Code(
    "KP-BUCKET-NOT-RECOVERED", Status.FAILED, "not recovered",
    "The server was restarted, and the bucket is not back within the time given.",
    remedy="do not restart again: the evidence was kept; look at the server's log and mounts",
)  # fmt: skip
RECURRENCE: Final = Code(
    "KP-BUCKET-RECURRENCE", Status.EXPECTED, "it happened before",
    "The ledger has earlier restarts of this server for the same bucket with the same image.",
    told_apart="Counted by image digest: an upgrade begins a new count.",
    remedy="change the image or the backend: this one has shown that it will do it again",
)  # fmt: skip
