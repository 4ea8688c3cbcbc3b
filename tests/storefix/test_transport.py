"""Tries, redirects, logins and time limits: how files come from a binary cache over HTTP."""

import base64
import gzip
import lzma
import threading
import time

import pytest
from tests.storefix.caches import (
    NAR,
    NARINFO,
    PATH,
    Server,
    answer,
    fetch,
    hexed,
    nar_url,
    source,
    times,
)

from kingpost.storefix.errors import UnreachableError
from kingpost.storefix.interface import Wanted
from kingpost.storefix.nar import digest
from kingpost.storefix.sources import transport

pytestmark = pytest.mark.usefixtures("hurry")


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_what_may_succeed_is_tried_again(server, store, tmp_path, monkeypatch, code):
    waits = []
    monkeypatch.setattr(transport.time, "sleep", waits.append)
    server.faults["nix-cache-info"] = times(1, lambda h: answer(h, code))
    server.faults[NARINFO] = times(2, lambda h: answer(h, code, Retry_After="7"))
    server.faults[nar_url(server)] = times(1, lambda h: answer(h, code))
    assert fetch(source(store, server.url), tmp_path / "out") == len(NAR)
    assert waits.count(7.0) == 2, "the server's own wish is heeded"


@pytest.mark.parametrize("code", [400, 401, 404, 501])
def test_what_cannot_succeed_is_tried_once(server, store, code):
    server.faults["nix-cache-info"] = lambda h: answer(h, code)
    with pytest.raises(UnreachableError):
        source(store, server.url).query([Wanted(PATH)])
    assert server.asked == ["/cache/nix-cache-info"]


def test_a_body_that_breaks_off_is_begun_again(server, store, tmp_path):
    body = server.files[nar_url(server)]
    server.faults[nar_url(server)] = times(1, lambda h: answer(h, 200, body[:-20], length=len(body)))
    opened = source(store, server.url)
    assert fetch(opened, tmp_path / "out") == len(NAR)
    assert digest(tmp_path / "out").nar_hash == hexed(NAR)


def test_a_stalled_body_ends_in_bounded_time(server, store, tmp_path, monkeypatch):
    body = server.files[nar_url(server)]
    release = threading.Event()

    def stall(handler):
        answer(handler, 200, body[:20], length=len(body))
        release.wait(20)

    server.faults[nar_url(server)] = stall
    begun = time.monotonic()
    try:
        with pytest.raises(UnreachableError, match="broke off after 20 bytes"):
            fetch(source(store, server.url), tmp_path / "out")
    finally:
        release.set()
    assert time.monotonic() - begun < 10


def test_a_body_that_drips_ends_in_bounded_time(server, store, tmp_path):
    body = server.files[nar_url(server)]
    stop = threading.Event()

    def drip(handler):
        answer(handler, 200, b"", length=len(body))
        for byte in body:
            if stop.wait(0.1):
                return
            try:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
            except OSError:
                return

    server.faults[nar_url(server)] = drip
    begun = time.monotonic()
    try:
        with pytest.raises(UnreachableError, match="too slowly"):
            fetch(source(store, server.url), tmp_path / "out")
    finally:
        stop.set()
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed_without_the_login(server, store, tmp_path, code):
    """Attic sends the reader of a NAR of one chunk to the bucket, whose signature a login would spoil."""
    bucket = Server(server.files)
    name = nar_url(server)
    where = bucket.url.replace("127.0.0.1", "localhost")
    server.faults[name] = lambda h: answer(h, code, Location=f"{where}/{name}?X-Amz-Signature=1")
    bucket.files[f"{name}?X-Amz-Signature=1"] = bucket.files[name]
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    try:
        opened = source(store, server.url, netrc_file=tmp_path / "netrc")
        assert fetch(opened, tmp_path / "out") == len(NAR)
        assert all("Authorization" in headers for headers in server.headers)
        assert len(bucket.headers) == 1
        assert not any("Authorization" in headers for headers in bucket.headers)
    finally:
        bucket.close()


@pytest.mark.parametrize("location", ["", "file:///etc/passwd", "ftp://127.0.0.1/x", "/cache/{}"])
def test_redirects_that_lead_nowhere(server, store, tmp_path, location):
    name = nar_url(server)
    server.faults[name] = lambda h: answer(h, 302, Location=location.format(name))
    with pytest.raises(UnreachableError, match=r"redirected more than|another kind of address"):
        fetch(source(store, server.url), tmp_path / "out")


@pytest.mark.parametrize("how", ["netrc", "default", "url"])
def test_logins(server, store, tmp_path, how):
    url = server.url
    netrc = tmp_path / "netrc"
    if how == "url":
        url = url.replace("://", "://me:sec%20ret@")
        netrc = None
    else:
        netrc.write_text(
            f"{'machine 127.0.0.1' if how == 'netrc' else 'default'} login me password 'sec ret'\n".replace(
                "'", '"'
            )
        )
    opened = source(store, url, netrc_file=netrc)
    opened.query([Wanted(PATH)])
    expected = base64.b64encode(b"me:sec ret").decode()
    assert {headers["Authorization"] for headers in server.headers} == {f"Basic {expected}"}
    assert "sec" not in opened.describe()


def test_a_netrc_that_cannot_be_read_is_named_without_what_it_holds(server, store, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me passwort secret\n")
    opened = source(store, server.url, netrc_file=tmp_path / "netrc")
    assert opened.query([Wanted(PATH)])[PATH].path == PATH, "a public cache needs none"
    server.faults[NARINFO] = lambda h: answer(h, 401)
    said = str(opened.query([Wanted(PATH)])[PATH])
    assert f"{tmp_path}/netrc:1 is no line of a netrc file" in said
    assert "give a login for 127.0.0.1" in said
    assert "secret" not in said


def test_a_server_that_is_gone(store):
    server = Server({})
    server.close()
    begun = time.monotonic()
    with pytest.raises(UnreachableError, match="cannot be reached") as caught:
        source(store, server.url).query([Wanted(PATH)])
    assert caught.value.why == "Connection refused"
    assert time.monotonic() - begun < 10


def test_a_name_that_does_not_resolve(store):
    with pytest.raises(UnreachableError, match=r"cache\.invalid cannot be reached"):
        source(store, "http://cache.invalid").query([Wanted(PATH)])


@pytest.mark.parametrize("encoding", ["gzip", "xz"])
def test_content_encoding_of_a_narinfo(server, store, encoding):
    pack = gzip.compress if encoding == "gzip" else lzma.compress
    body = pack(server.files[NARINFO])
    server.faults[NARINFO] = lambda h: answer(h, 200, body, Content_Encoding=encoding)
    assert source(store, server.url).query([Wanted(PATH)])[PATH].path == PATH
