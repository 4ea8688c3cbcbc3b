"""Caches of numbered paths that refer to each other."""

from __future__ import annotations

import zstandard
from tests.cache.nars import Promise, nar

from kingpost.cache.fetch import Access
from kingpost.cache.hashes import nix32
from kingpost.observe.audit import Target
from kingpost.observe.audit_crew import Job
from kingpost.observe.audit_run import Plan, run

PATIENCE = Access(connect_timeout=0.5, stall_timeout=5)


def hash_of(number):
    return nix32(number.to_bytes(20, "big"))


def path_of(number):
    return f"/nix/store/{hash_of(number)}-p{number}"


def caches(references):
    """Make a cache of paths numbered by the keys, each referring to the numbers in its value."""
    files = {"nix-cache-info": b"StoreDir: /nix/store\n"}
    for number, others in references.items():
        data = nar({b"number": str(number).encode() * 50})
        body = zstandard.ZstdCompressor().compress(data)
        url = f"nar/{hash_of(number)}.nar.zst"
        names = " ".join(path_of(other).rpartition("/")[2] for other in others)
        one = Promise(
            nar=data, body=body, compression="zstd", path=path_of(number), url=url, references=names
        )
        files |= {f"{hash_of(number)}.narinfo": one.text().encode(), url: body}
    return files


def written(directory, files):
    (directory / "nar").mkdir(parents=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def look(url, numbers, *, threads=4, processes=1, job=None, **options):
    job = job or Job(url, PATIENCE, attempts=1)
    plan = Plan(job, [Target(hash_of(n)) for n in numbers], threads=threads, processes=processes, **options)
    return {int(o.subject.partition("-p")[2].partition(" ")[0] or -1) if "-p" in o.subject else o.subject: o
            for o in run(plan)}  # fmt: skip


def codes_of(found):
    return {key: [v.code for v in outcome.verdicts] for key, outcome in found.items()}
