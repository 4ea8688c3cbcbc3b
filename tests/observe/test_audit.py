"""One path at a time: each way in which a cache can be bad has its own verdict, and a good one has `ok`."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import random
import subprocess
import time
import tracemalloc

import brotli
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cache.nars import HASH, SOAK, Promise, nar
from tests.observe import faults

from kingpost.base.verdict import Status
from kingpost.cache.fetch import Access, open_cache
from kingpost.cache.narinfo import parse_narinfo
from kingpost.cache.signatures import trusted_keys
from kingpost.observe import audit_codes as codes
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


@pytest.fixture(scope="module")
def server():
    with faults.serve({}) as state:
        yield state


@pytest.fixture
def cache(server):
    server.files = files(promise())
    server.faults, server.by_ending, server.everywhere = {}, {}, None
    server.requests.clear()
    server.headers.clear()
    return server


def auditor(url, *, token="", keys=(), attempts=2, stall=0.3, upstreams=(), sleeps=None):
    access = Access(token=token, connect_timeout=0.5, stall_timeout=stall)
    return Auditor(
        open_cache(url, access), trusted_keys(keys), bool(token), tuple(map(open_cache, upstreams)), attempts, 0.01,
        sleeps.append if sleeps is not None else lambda _: None,
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


# --- the redirect ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def storage():
    with faults.serve({}) as state:
        yield state


def no_such(code):
    return faults.status(
        404, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>gone</Message></Error>".encode()
    )


def test_a_redirect_is_followed_and_its_secrets_stay_secret(cache, storage):
    storage.files, storage.everywhere = None, faults.replaced(cache.files[BODY])
    storage.body = lambda path: b""
    storage.headers.clear()
    cache.faults[BODY] = faults.redirect(f"{storage.url}/chunk?X-Amz-Signature=s3cret")
    outcome = audit(cache.url, token="t0ken")
    verdict = only(outcome, codes.BODY_OK)
    assert verdict.evidence["redirects"] == [f"307 {cache.url}/{BODY}"]
    assert verdict.evidence["url"] == f"{storage.url}/chunk"
    assert "s3cret" not in str(verdict)
    assert cache.headers[0]["Authorization"] == "Basic " + base64.b64encode(b":t0ken").decode()


def test_credentials_do_not_cross_hosts(cache, storage):
    storage.everywhere = faults.status(404)
    storage.headers.clear()
    cache.faults[BODY] = faults.redirect(storage.url.replace("127.0.0.1", "localhost") + "/chunk")
    audit(cache.url, token="t0ken")
    assert storage.headers
    assert all("Authorization" not in headers for headers in storage.headers)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (no_such("NoSuchKey"), codes.REDIRECT_MISSING),
        (no_such("NoSuchBucket"), codes.REDIRECT_MISSING),
        (faults.status(403), codes.REDIRECT_DENIED),
        (faults.status(500), codes.SERVER_ERROR),
        (faults.status(418), codes.REDIRECT_BROKEN),
        (faults.replaced(b""), codes.BODY_EMPTY),
        (faults.silence, codes.REDIRECT_UNREACHABLE),
        (faults.hang_up, codes.REDIRECT_UNREACHABLE),
    ],
)
def test_a_storage_behind_a_redirect(cache, storage, fault, code):
    storage.everywhere = fault
    storage.body = lambda path: b""
    cache.faults[BODY] = faults.redirect(f"{storage.url}/chunk")
    only(audit(cache.url), code)


def test_a_redirect_target_that_cannot_be_reached_from_here(cache):
    for target in (faults.closed_port(), "http://storage.invalid:9000"):
        cache.faults[BODY] = faults.redirect(f"{target}/bucket/chunk?sig=x")
        verdict = only(audit(cache.url), codes.REDIRECT_UNREACHABLE)
        assert verdict.evidence["url"] == f"{target}/bucket/chunk"
        assert verdict.evidence["redirects"] == [f"307 {cache.url}/{BODY}"]


# --- narinfo, signature, access --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "code", "present"),
    [
        (faults.status(404), codes.NARINFO_MISSING, False),
        (faults.attic_error(404, "NoSuchObject"), codes.NARINFO_MISSING, False),
        (faults.replaced(b"<html>Sign in</html>"), codes.NARINFO_CORRUPT, None),
        (faults.replaced(b""), codes.NARINFO_CORRUPT, None),
        (faults.replaced(lambda b: b[:-5]), codes.NARINFO_CORRUPT, None),
        (faults.replaced(bytes(5_000_000)), codes.LOST, None),
        (faults.status(401), codes.NEEDS_TOKEN, None),
        (faults.attic_error(403, "AccessError"), codes.FORBIDDEN, None),
        (faults.attic_error(500, "InternalServerError"), codes.SERVER_ERROR, None),
        (faults.status(503), codes.SERVER_ERROR, None),
        (faults.attic_error(400, "RequestError", "General request error: Bad Host"), codes.BAD_HOST, None),
        (faults.silence, codes.STALLED, None),
    ],
)
def test_a_bad_narinfo(cache, fault, code, present):
    cache.faults[INFO] = fault
    outcome = audit(cache.url)
    only(outcome, code)
    assert outcome.present is present


def test_the_narinfo_of_another_path(cache):
    other = "0" * 32
    cache.files[INFO] = promise().but(path=f"/nix/store/{other}-evil").text().encode()
    only(audit(cache.url), codes.NARINFO_CORRUPT)


@pytest.mark.parametrize("url", ["../../etc/passwd", "file:///etc/passwd", "ftp://x/y", "http://[::1/x"])
def test_a_url_that_leads_elsewhere_is_not_followed(cache, url, tmp_path):
    cache.files[INFO] = promise().but(url=url).text().encode()
    assert audit(cache.url).verdicts[0].status is Status.FAILED
    (tmp_path / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    (tmp_path / INFO).write_text(promise().but(url=url).text())
    assert audit(str(tmp_path)).verdicts[0].status is Status.FAILED


def test_401_with_a_token_is_a_failure(cache):
    cache.faults[INFO] = faults.status(401)
    verdict = only(audit(cache.url, token="t0ken"), codes.UNAUTHORIZED)
    assert "t0ken" not in str(verdict)
    assert "t0ken" not in repr(auditor(cache.url, token="t0ken"))


@pytest.fixture(scope="module")
def key():
    return Ed25519PrivateKey.generate()


def public(key, name="main"):
    return f"{name}:{base64.b64encode(key.public_key().public_bytes_raw()).decode()}"


def sign(cache, key, name="main", change=None):
    text = cache.files[INFO].decode()
    signature = base64.b64encode(key.sign(parse_narinfo(text).fingerprint().encode())).decode()
    cache.files[INFO] = ((change or str)(text) + f"Sig: {name}:{signature}\n").encode()


def test_signatures(cache, key):
    only(audit(cache.url, keys=[public(key)]), codes.SIGNATURE_MISSING)
    sign(cache, key)
    assert only(audit(cache.url, keys=[public(key)]), codes.BODY_OK).evidence["signature"] == "signed"
    assert only(audit(cache.url), codes.BODY_OK).evidence["signature"] == "not-checked"
    verdict = only(audit(cache.url, keys=[public(key, "other")]), codes.SIGNATURE_UNTRUSTED)
    assert verdict.evidence["signed_by"] == ["main"]
    only(audit(cache.url, keys=[public(Ed25519PrivateKey.generate())]), codes.SIGNATURE_INVALID)


def test_a_bad_signature_and_a_bad_body_are_both_said(cache, key):
    sign(cache, key, change=lambda text: text.replace("References: ", f"References: {HASH}-hello"))
    cache.faults[BODY] = faults.replaced(b"")
    found = audit(cache.url, keys=[public(key)]).verdicts
    assert [v.code for v in found] == [codes.SIGNATURE_INVALID.name, codes.BODY_EMPTY.name]


# --- the cache as a whole --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (None, None),
        (faults.status(404), codes.NO_SUCH_CACHE),
        (faults.attic_error(404, "NoSuchCache"), codes.NO_SUCH_CACHE),
        (faults.replaced(b"<html>Sign in</html>"), codes.NO_SUCH_CACHE),
        (faults.status(401), codes.NEEDS_TOKEN),
        (faults.attic_error(400, "RequestError", "General request error: Bad Host"), codes.BAD_HOST),
        (faults.status(503), codes.SERVER_ERROR),
        (faults.silence, codes.STALLED),
    ],
)
def test_the_cache_itself(cache, fault, code):
    cache.faults["nix-cache-info"] = fault
    verdict = check(cache.url)
    assert (verdict and verdict.code) == (code and code.name)


def test_connections_that_fail(tmp_path, monkeypatch):
    assert check(faults.closed_port()).code == codes.REFUSED.name
    assert check("http://cache.invalid").code == codes.UNREACHABLE.name
    with faults.serve({}) as plain:
        assert check(plain.url.replace("http:", "https:")).code == codes.TLS.name
    pem = tmp_path / "tls.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-keyout", pem, "-out", tmp_path / "cert.pem", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    pem.write_text(pem.read_text() + (tmp_path / "cert.pem").read_text())
    with faults.serve({}, tls=pem) as private:
        verdict = check(private.url)
        assert verdict.code == codes.TLS.name
        assert "certificate" in verdict.evidence["reason"]
        assert len(private.requests) == 0
        private.files["nix-cache-info"] = b"StoreDir: /nix/store\n"
        monkeypatch.setenv(
            "NIX_SSL_CERT_FILE", str(tmp_path / "cert.pem")
        )  # an authority of one's own, as Nix has it
        assert check(private.url) is None
        monkeypatch.setenv("NIX_SSL_CERT_FILE", str(tmp_path / "absent.pem"))
        assert check(private.url).code == codes.TLS.name


def test_a_connect_that_hangs():
    with faults.socket.socket() as full:  # a backlog that nobody takes from
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [faults.socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        verdict = check(f"http://127.0.0.1:{full.getsockname()[1]}", attempts=1)
        for one in waiting:
            one.close()
    assert verdict.code in (codes.CONNECT_TIMEOUT.name, codes.STALLED.name)


# --- asking again ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "asked"),
    [
        (faults.status(503), 3), (faults.status(500), 3), (faults.status(429), 3), (faults.hang_up, 3),
        (faults.chunked(0, end=False), 3), (faults.cut_after(0.5), 3),
        (faults.status(404), 1), (faults.status(401), 1), (faults.status(403), 1),
        (faults.attic_error(503, "IncompleteNar"), 1), (faults.replaced(b"garbage"), 1),
        (faults.replaced(COMPRESS["zstd"](OTHER)), 1),
    ],
)  # fmt: skip
def test_only_what_may_succeed_is_tried_again(cache, fault, asked):
    cache.faults[BODY] = fault
    audit(cache.url, attempts=3)
    assert cache.count(BODY) == asked


def test_the_wait_doubles_and_respects_the_server(cache):
    cache.faults[BODY] = faults.status(503)
    sleeps = []
    audit(cache.url, attempts=4, sleeps=sleeps)
    assert sleeps == [0.01, 0.02, 0.04]
    cache.faults[INFO] = faults.first(1, faults.status(429, Retry_After="7"))
    cache.faults[BODY] = None
    sleeps.clear()
    only(audit(cache.url, sleeps=sleeps), codes.BODY_OK)
    assert sleeps == [7.0]


def test_an_upstream_may_have_it_instead(cache):
    del cache.files[INFO]
    with faults.serve(files(promise())) as upstream:
        outcome = audit(cache.url, upstreams=[faults.closed_port(), upstream.url])
    verdict = only(outcome, codes.UPSTREAM)
    assert verdict.evidence["upstream"] == upstream.url
    assert outcome.present is True


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
