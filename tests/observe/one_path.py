"""One healthy path in a cache whose server can be told to be faulty, and an auditor that is not patient."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random

import brotli
import zstandard
from tests.cache.nars import HASH, Promise, nar

from kingpost.cache.fetch import Access, open_cache
from kingpost.cache.signatures import trusted_keys
from kingpost.observe.audit import Auditor, Target

CONTENTS = random.Random(3).randbytes(300_000)
NAR = nar({b"bin": {b"hello": ("x", CONTENTS)}, b"lib": ("->", b"bin")})
OTHER = nar({b"bin": {b"hello": ("x", CONTENTS[::-1])}, b"lib": ("->", b"bin")})
BODY = f"nar/{HASH}.nar"
INFO = f"{HASH}.narinfo"
COMPRESS = {
    "none": bytes,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "gzip": gzip.compress,
    "br": lambda data: brotli.compress(data, quality=1),
}


def promise(compression="zstd", **changes):
    return Promise(nar=NAR, body=COMPRESS[compression](NAR), compression=compression, **changes)


def files(one):
    return {"nix-cache-info": b"StoreDir: /nix/store\n", INFO: one.text().encode(), BODY: one.body}


def healthy(server):
    """Give a fault server with one sound path and no fault."""
    server.files = files(promise())
    server.faults, server.by_ending, server.everywhere = {}, {}, None
    server.requests.clear()
    server.headers.clear()
    return server


def auditor(url, *, token="", keys=(), attempts=2, stall=0.3, upstreams=(), store="", sleeps=None):
    access = Access(token=token, connect_timeout=0.5, stall_timeout=stall)
    return Auditor(
        open_cache(url, access), trusted_keys(keys), bool(token), tuple(map(open_cache, upstreams)), attempts, 0.01,
        store, sleeps.append if sleeps is not None else lambda _: None,
    )  # fmt: skip


def audit(url, **options):
    one = auditor(url, **options)
    try:
        return one.audit(Target(HASH))
    finally:
        one.cache.close()


def check(url, **options):
    one = auditor(url, **options)
    try:
        return one.check_cache()
    finally:
        one.cache.close()


def only(outcome, code):
    assert [v.code for v in outcome.verdicts] == [code.name], outcome.verdicts
    (verdict,) = outcome.verdicts
    assert verdict.status is code.status
    assert verdict.remedy == code.remedy
    return verdict
