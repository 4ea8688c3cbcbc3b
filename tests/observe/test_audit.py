"""One path at a time: each way in which a body can be bad has its own verdict, and a good one has `ok`."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cache.nars import HASH, SOAK, Promise, nar
from tests.observe import faults
from tests.observe.one_path import (
    BODY,
    COMPRESS,
    CONTENTS,
    INFO,
    NAR,
    OTHER,
    audit,
    check,
    files,
    healthy,
    only,
    promise,
)  # fmt: skip

from kingpost.base.verdict import Status
from kingpost.observe import audit_codes as codes


@pytest.fixture(scope="module")
def server():
    with faults.serve({}) as state:
        yield state


@pytest.fixture
def cache(server):
    return healthy(server)


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_good_path_is_ok(cache, compression):
    cache.files = files(promise(compression))
    outcome = audit(cache.url)
    verdict = only(outcome, codes.BODY_OK)
    assert verdict.subject == f"/nix/store/{HASH}-hello at {cache.url}"
    assert verdict.evidence["nar_bytes"] == len(NAR) == outcome.nar_bytes
    assert (outcome.present, outcome.body_bytes) == (True, len(cache.files[BODY]))
    assert cache.requests == [INFO, BODY]


def test_attics_narinfo_without_file_lines_is_ok(cache):
    cache.files = files(promise(file=False))
    only(audit(cache.url), codes.BODY_OK)


@pytest.mark.parametrize(
    "transfer", [faults.chunked(), faults.until_close(1.0), faults.first(1, faults.status(503))]
)
def test_every_healthy_transfer_is_ok(cache, transfer):
    cache.faults[BODY] = transfer
    only(audit(cache.url), codes.BODY_OK)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_a_content_encoding_is_undone_before_the_compression(cache, encoding):
    for path in (INFO, BODY):
        wrapped = COMPRESS[encoding](cache.files[path])
        cache.faults[path] = faults.status(200, wrapped, Content_Encoding=encoding)
    only(audit(cache.url), codes.BODY_OK)


# What comes, and the code that it must have: no two of them share cause and remedy.
BAD_BODIES = {
    "the incident: chunked 200, then nothing": (faults.chunked(0, end=False), codes.BODY_EMPTY),
    "200 with length 0": (faults.replaced(b""), codes.BODY_EMPTY),
    "200 with full length and no byte": (faults.cut_after(0), codes.BODY_EMPTY),
    "empty through an HTTP/1.0 proxy": (faults.until_close(0), codes.BODY_EMPTY),
    "chunked, dies in the middle": (faults.chunked(0.5, end=False), codes.BODY_TRUNCATED),
    "full length, half the bytes": (faults.cut_after(0.5), codes.BODY_TRUNCATED),
    "half, cleanly": (faults.replaced(lambda b: b[: len(b) // 2]), codes.BODY_TRUNCATED),
    "half through an HTTP/1.0 proxy": (faults.until_close(0.5), codes.BODY_TRUNCATED),
    "all but the last byte": (faults.replaced(lambda b: b[:-1]), codes.BODY_TRUNCATED),
    "garbage": (faults.replaced(random.Random(1).randbytes(5000)), codes.BODY_CORRUPT),
    "a login page": (faults.replaced(b"<!DOCTYPE html><html>Sign in</html>"), codes.BODY_CORRUPT),
    "a damaged middle": (faults.replaced(lambda b: b[:9000] + bytes(64) + b[9064:]), None),
    "something behind": (faults.replaced(lambda b: b + b"tail of an older file"), codes.BODY_TRAILING),
    "uncompressed": (faults.replaced(NAR), codes.BODY_CORRUPT),
    "another NAR of the same size": (faults.replaced(COMPRESS["zstd"](OTHER)), codes.WRONG_HASH),
    "a smaller NAR": (faults.replaced(COMPRESS["zstd"](nar(b"x"))), codes.WRONG_SIZE),
    "a larger NAR": (faults.replaced(COMPRESS["zstd"](nar(CONTENTS * 2))), codes.WRONG_SIZE),
    "404": (faults.status(404), codes.BODY_MISSING),
    "Attic: NoSuchObject": (faults.attic_error(404, "NoSuchObject"), codes.BODY_MISSING),
    "Attic: IncompleteNar": (faults.attic_error(503, "IncompleteNar"), codes.BODY_INCOMPLETE),
    "Attic: InternalServerError": (faults.attic_error(500, "InternalServerError"), codes.SERVER_ERROR),
    "503": (faults.status(503), codes.SERVER_ERROR),
    "502": (faults.status(502), codes.SERVER_ERROR),
    "429": (faults.status(429), codes.RATE_LIMITED),
    "403": (faults.status(403), codes.FORBIDDEN),
    "401": (faults.status(401), codes.NEEDS_TOKEN),
    "418": (faults.status(418), codes.OTHER_STATUS),
    "stalls at once": (faults.stall(0), codes.STALLED),
    "stalls in the middle": (faults.stall(0.5), codes.STALLED),
    "never answers": (faults.silence, codes.STALLED),
    "hangs up": (faults.hang_up, codes.LOST),
    "is no HTTP": (faults.no_http, codes.LOST),
    "an encoding that nobody asked for": (faults.status(200, b"x", Content_Encoding="rot13"), codes.LOST),
    "a redirect to nowhere": (faults.status(302), codes.REDIRECT_BROKEN),
    "a redirect to a file": (faults.redirect("file:///etc/passwd"), codes.REDIRECT_BROKEN),
    "a redirect to itself": (faults.redirect(f"/{BODY}"), codes.REDIRECT_BROKEN),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_has_its_own_verdict(cache, name):
    fault, code = BAD_BODIES[name]
    cache.faults[BODY] = fault
    outcome = audit(cache.url)
    assert outcome.present is True
    if code is None:
        assert outcome.verdicts[0].code in (codes.BODY_CORRUPT.name, codes.WRONG_HASH.name)
    else:
        only(outcome, code)


def test_the_incident_is_named(cache):
    cache.faults[BODY] = faults.chunked(0, end=False)
    verdict = only(audit(cache.url), codes.BODY_EMPTY)
    assert f"promises {len(NAR)} bytes" in verdict.summary
    assert verdict.evidence["http_status"] == 200
    assert verdict.evidence["body_bytes"] == 0
    assert verdict.evidence["attempts"] == 2
    assert "bucket rca" in verdict.remedy


def test_what_a_body_looks_like_is_said(cache):
    cache.faults[BODY] = faults.replaced(b"<!DOCTYPE html><html>Sign in</html>")
    assert audit(cache.url).verdicts[0].evidence["looks_like"] == "an HTML page"
    cache.faults[BODY] = faults.replaced(NAR)
    assert audit(cache.url).verdicts[0].evidence["looks_like"] == "an uncompressed NAR"


@pytest.mark.parametrize(
    ("compression", "change", "code"),
    [
        ("none", lambda b: b[: len(b) // 2], codes.BODY_TRUNCATED),
        ("none", lambda b: b[:100] + b"\xff" + b[101:], codes.WRONG_HASH),
        ("none", lambda b: b[:-200] + b"\xff" + b[-199:], codes.WRONG_HASH),
        ("none", lambda b: b + b"x", codes.WRONG_SIZE),
        ("none", lambda _: OTHER, codes.WRONG_HASH),
        ("xz", lambda b: b[:-7], codes.BODY_TRUNCATED),
        ("xz", lambda b: b + b"tail", codes.BODY_TRAILING),
        ("bzip2", lambda b: b[:-7], codes.BODY_TRUNCATED),
        ("gzip", lambda b: b + b"tail", codes.BODY_TRAILING),
        ("br", lambda b: b[:-7], codes.BODY_TRUNCATED),
    ],
)
def test_damage_in_every_compression(cache, compression, change, code):
    cache.files = files(promise(compression))
    cache.files[BODY] = change(cache.files[BODY])
    only(audit(cache.url), code)


def test_a_body_that_the_uploader_hashed_and_that_is_no_nar(cache):
    page = b"<html>not found</html>" * 50
    cache.files = files(Promise(nar=page, body=page))
    only(audit(cache.url), codes.NOT_A_NAR)


def test_file_lines_that_do_not_agree(cache):
    again = zstandard.ZstdCompressor(level=19).compress(NAR)
    cache.files[BODY] = again
    verdict = only(audit(cache.url), codes.FILE_WRONG)
    assert verdict.evidence["body_bytes"] == len(again)
    same_size = promise().text().replace("FileHash: sha256:", "FileHash: sha256:0", 1)
    cache.files = files(promise())
    lines = [
        ("FileHash: sha256:" + "0" * 52) if line.startswith("FileHash") else line
        for line in same_size.split("\n")
    ]
    cache.files[INFO] = "\n".join(lines).encode()
    assert "FileHash" in only(audit(cache.url), codes.FILE_WRONG).summary


def test_an_unknown_compression_is_not_looked_at(cache):
    cache.files[INFO] = promise().but(compression="lz4").text().encode()
    assert only(audit(cache.url), codes.COMPRESSION).status is Status.SKIPPED


# --- whatever comes --------------------------------------------------------------------------------------------------
SMALL = nar({b"a": b"contents", b"b": ("->", b"a")})


@settings(max_examples=150 * SOAK, deadline=None)
@given(st.sampled_from(sorted(COMPRESS)), st.data())
def test_a_damaged_body_is_never_ok(tmp_path_factory, compression, data):
    body = bytearray(COMPRESS[compression](SMALL))
    one = Promise(nar=SMALL, body=bytes(body), compression=compression, file=data.draw(st.booleans()))
    at = data.draw(st.integers(0, len(body) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "insert", "swap"])):
        case "flip":
            body[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del body[at:]
        case "insert":
            body[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        case "swap":
            body[:] = data.draw(st.binary(max_size=200))
    root = tmp_path_factory.mktemp("cache")
    (root / "nar").mkdir()
    (root / INFO).write_text(one.text())
    (root / BODY).write_bytes(body)
    (verdict,) = audit(str(root)).verdicts
    if verdict.status is Status.OK:
        # Bits that a format does not use (gzip's time, a checksum's spare byte) leave the NAR as promised.
        assert not one.file
        assert verdict.evidence["nar_bytes"] == len(SMALL)
    else:
        assert verdict.status is Status.FAILED


def test_a_huge_body_is_not_kept(cache):
    """A NAR that goes on for ever is left at its promised size, and a large one costs no more than a small one."""
    zeros = zstandard.ZstdCompressor().compress(nar(bytes(200_000_000)))
    cache.files[BODY] = zeros
    check(cache.url)
    tracemalloc.start()
    only(audit(cache.url), codes.WRONG_SIZE)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


def test_a_drip_is_a_stall(cache):
    def drip(handler, body):
        faults.answer(handler, b"", length=len(body))
        for at in range(8):
            handler.wfile.write(body[at : at + 1])
            time.sleep(1.1)

    cache.faults[BODY] = drip
    verdict = only(audit(cache.url, stall=1.2, attempts=1), codes.STALLED)
    assert "byte/s" in verdict.evidence["reason"]
