"""The way to a body: redirects, narinfos, signatures, the cache itself, connections, and asking again."""

from __future__ import annotations

import base64
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.cache.nars import HASH
from tests.observe import faults
from tests.observe.one_path import (
    BODY,
    COMPRESS,
    INFO,
    OTHER,
    audit,
    auditor,
    check,
    files,
    healthy,
    only,
    promise,
)  # fmt: skip

from kingpost.base.verdict import Status
from kingpost.cache.narinfo import parse_narinfo
from kingpost.observe import audit_codes as codes


@pytest.fixture(scope="module")
def server():
    with faults.serve({}) as state:
        yield state


@pytest.fixture
def cache(server):
    return healthy(server)


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
    found = check(cache.url)
    assert found == "/nix/store" if code is None else found.code == code.name


def test_a_cache_for_another_store_is_said_of_each_path(cache):
    only(audit(cache.url, store="/nix/store"), codes.BODY_OK)
    found = audit(cache.url, store="/srv/store").verdicts
    assert [verdict.code for verdict in found] == [codes.OTHER_STORE.name]
    assert found[0].evidence == {"store_dir": "/srv/store", "store_path": f"/nix/store/{HASH}-hello"}
    cache.faults[BODY] = faults.replaced(b"")
    found = audit(cache.url, store="/srv/store").verdicts
    assert [verdict.code for verdict in found] == [codes.OTHER_STORE.name, codes.BODY_EMPTY.name]


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
        assert check(private.url) == "/nix/store"
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
