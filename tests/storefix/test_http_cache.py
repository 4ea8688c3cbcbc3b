"""A binary cache that lies, breaks off, redirects, moves and lacks: what the repair makes of it."""

import lzma
import os
import threading

import pytest
from tests.storefix import caches
from tests.storefix.caches import (
    KEEP,
    NAR,
    NARINFO,
    OTHER,
    PATH,
    SIGNER,
    Server,
    Signer,
    answer,
    fetch,
    hexed,
    make_cache,
    make_nar,
    nar_url,
    source,
    store_path,
)

from kingpost.storefix.errors import ContentError, UnreachableError, UntrustedError, UsageError
from kingpost.storefix.interface import Settings, Wanted
from kingpost.storefix.nar import digest
from kingpost.storefix.sources import breaker, http_cache, open_sources, transport

pytestmark = pytest.mark.usefixtures("hurry")


def test_query_and_fetch(server, store, tmp_path):
    opened = source(store, server.url)
    answers = opened.query([Wanted(PATH), Wanted(OTHER), Wanted(store_path(3))])
    assert set(answers) == {PATH, OTHER}
    assert answers[PATH].references == (PATH, OTHER)
    assert answers[PATH].nar_hash == hexed(NAR)
    assert fetch(opened, tmp_path / "out") == len(NAR)
    assert digest(tmp_path / "out").nar_hash == hexed(NAR)
    assert opened.describe() == server.url


@pytest.mark.parametrize("scheme", ["file://{}", "{}", "file://{}/?trusted=0"])
def test_a_cache_in_a_directory(store, tmp_path, scheme):
    folder = tmp_path / "cache"
    for name, data in make_cache({PATH: (NAR, [])}, SIGNER).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    opened = source(store, scheme.format(folder))
    assert fetch(opened, tmp_path / "out") == len(NAR)
    assert opened.query([Wanted(OTHER)]) == {}


def test_a_cache_in_a_directory_cannot_lead_out_of_it(store, tmp_path):
    folder = tmp_path / "cache"
    (tmp_path / "secret.nar").write_bytes(NAR)
    for url in (
        "../secret.nar",
        str(tmp_path / "secret.nar"),
        f"file://{tmp_path}/secret.nar",
        "%2e%2e/secret.nar",
    ):
        for name, data in make_cache({PATH: (NAR, [])}, SIGNER, URL=url, Compression="none").items():
            (folder / name).resolve().parent.mkdir(parents=True, exist_ok=True)
            if not name.startswith(("/", ".", "file", "%")):
                (folder / name).write_bytes(data)
        opened = source(store, str(folder))
        with pytest.raises(ContentError, match="outside of it"):
            fetch(opened, tmp_path / "out")


def test_many_narinfos_are_asked_for_side_by_side(store, tmp_path):
    paths = {f"{caches.STORE}/{n:032d}-p": (NAR, []) for n in range(64)}
    server = Server(make_cache(paths, SIGNER))
    together = threading.Barrier(8, timeout=5)

    def slow(handler):
        together.wait()
        return KEEP

    server.faults[".narinfo"] = slow
    try:
        assert len(source(store, server.url).query([Wanted(path) for path in paths])) == 64
    finally:
        server.close()


def test_unsigned_and_foreign_answers_are_not_taken(server, store):
    opened = source(store, server.url, trusted_public_keys=Signer("else-1").trusted)
    assert isinstance(opened.query([Wanted(PATH)])[PATH], UntrustedError)
    # Our own database's hash, or a substituter that is named as trusted, or --no-check-sigs: as good.
    assert opened.query([Wanted(PATH, hexed(NAR))])[PATH].path == PATH
    trusted = source(store, server.url + "?trusted=1", trusted_public_keys={})
    assert trusted.query([Wanted(PATH)])[PATH].path == PATH
    lax = source(store, server.url, trusted_public_keys={}, require_sigs=False)
    assert lax.query([Wanted(PATH)])[PATH].path == PATH


FAULTS = {
    "narinfo is a page": (
        NARINFO,
        lambda h: answer(h, 200, b"<html>welcome</html>"),
        ContentError,
        "is cut off",
    ),
    "narinfo of another path": (
        NARINFO,
        lambda h: answer(h, 200, make_cache({OTHER: (NAR, [])}, SIGNER)[f"{caches.PARTS[2]}.narinfo"]),
        ContentError,
        "it is of /nix/store/2123",
    ),
    "narinfo without end": (
        NARINFO,
        lambda h: answer(h, 200, b"x: y\n" * (1 << 20)),
        ContentError,
        "has more than",
    ),
    "narinfo 401": (NARINFO, lambda h: answer(h, 401), UnreachableError, "HTTP 401"),
    "narinfo 400": (NARINFO, lambda h: answer(h, 400), UnreachableError, "HTTP 400"),
    "narinfo 500 for ever": (NARINFO, lambda h: answer(h, 500), UnreachableError, "HTTP 500"),
    "narinfo breaks off for ever": (
        NARINFO,
        lambda h: answer(h, 200, b"StorePath", length=500),
        UnreachableError,
        "broke off after 9 of 500 bytes",
    ),
    "narinfo is silence": (
        NARINFO,
        lambda h: threading.Event().wait(1.5),
        UnreachableError,
        "did not answer in time",
    ),
    "not HTTP": (
        NARINFO,
        lambda h: h.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n"),
        UnreachableError,
        "cannot be reached",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_narinfo_that_cannot_be_used(server, store, monkeypatch, fault):
    name, act, kind, message = fault
    monkeypatch.setattr(transport, "pause", lambda *_: None)
    server.faults[name] = act
    answers = source(store, server.url).query([Wanted(PATH), Wanted(OTHER)])
    assert isinstance(answers[PATH], kind), answers[PATH]
    assert message in str(answers[PATH])
    assert answers[PATH].where == server.url
    assert not isinstance(answers[OTHER], Exception), "one bad narinfo must not spoil the others"


@pytest.mark.parametrize("code", [403, 404, 410])
def test_what_a_cache_lacks_is_left_out(server, store, code):
    server.faults[NARINFO] = lambda h: answer(h, code)
    assert set(source(store, server.url).query([Wanted(PATH), Wanted(OTHER)])) == {OTHER}


BODIES = {
    "nothing": (lambda body: b"", "cut off"),
    "half": (lambda body: body[: len(body) // 2], "cut off"),
    "garbage": (lambda body: b"\0" + body[1:], "damaged"),
    "more behind": (lambda body: body + lzma.compress(b"more"), "longer than the|behind the end"),
    "another NAR": (lambda body: lzma.compress(make_nar("hellO\n")), "hash is sha256:"),
    "a shorter NAR": (lambda body: lzma.compress(make_nar("")), "instead of"),
    "a longer NAR": (lambda body: lzma.compress(make_nar("x" * 99999)), "longer than the"),
    "no NAR": (lambda body: lzma.compress(b"<html>" * 20), "tokens"),
}


@pytest.mark.parametrize("change", BODIES.values(), ids=BODIES)
def test_bytes_that_are_not_what_was_promised(server, store, tmp_path, change):
    make, message = change
    server.files[nar_url(server)] = make(server.files[nar_url(server)])
    opened = source(store, server.url)
    with pytest.raises(ContentError, match=message) as caught:
        fetch(opened, tmp_path / "out")
    assert caught.value.where == server.url
    assert PATH in caught.value.what
    assert set(os.listdir(tmp_path)) <= {"out", "root"}


def test_a_missing_nar_is_named(server, store, tmp_path):
    name = nar_url(server)
    del server.files[name]
    with pytest.raises(ContentError, match="has the narinfo but not its NAR") as caught:
        fetch(source(store, server.url), tmp_path / "out")
    assert name in caught.value.what


def test_a_cache_that_keeps_failing_is_left_alone(store, monkeypatch):
    monkeypatch.setattr(transport.time, "sleep", lambda _: None)
    monkeypatch.setattr(http_cache, "AT_ONCE", 1)
    paths = [f"{caches.STORE}/{n:032d}-p" for n in range(100)]
    server = Server(make_cache({}))
    server.faults[".narinfo"] = lambda h: answer(h, 500)
    try:
        answers = source(store, server.url).query([Wanted(path) for path in paths])
    finally:
        server.close()
    assert len(answers) == 100
    assert all(isinstance(one, UnreachableError) for one in answers.values())
    assert len(server.asked) < 50


def test_what_is_no_cache_or_for_another_store(server, store):
    server.files["nix-cache-info"] = b"StoreDir: /gnu/store\n"
    with pytest.raises(UnreachableError, match="for stores in /gnu/store"):
        source(store, server.url).query([Wanted(PATH)])
    del server.files["nix-cache-info"]
    with pytest.raises(UnreachableError, match="does not appear to be a binary cache"):
        source(store, server.url).query([Wanted(PATH)])


def test_a_cache_that_goes_away_while_fetching_is_left_alone_and_asked_again_later(
    store, tmp_path, monkeypatch
):
    waits = []
    monkeypatch.setattr(transport.time, "sleep", waits.append)
    paths = [f"{caches.STORE}/{n:032d}-p" for n in range(60)]
    server = Server(make_cache({path: (NAR, []) for path in paths}, SIGNER))
    opened = source(store, server.url)
    infos = opened.query([Wanted(path) for path in paths])
    server.faults[".nar.xz"] = lambda h: answer(h, 503)
    asked = len(server.asked)
    try:
        for path in paths:
            with pytest.raises(UnreachableError):
                opened.fetch(infos[path], tmp_path / "out", lambda _: None)
        assert len(server.asked) - asked < 60
        server.faults.clear()
        monkeypatch.setattr(breaker, "REST", 0)
        opened.fetch(infos[paths[0]], tmp_path / "out", lambda _: None)
    finally:
        server.close()


def test_a_plan_is_fetched_by_a_process_that_did_not_make_it(server, store, tmp_path):
    info = source(store, server.url).query([Wanted(PATH)])[PATH]
    source(store, server.url).fetch(info, tmp_path / "out", lambda _: None)
    assert digest(tmp_path / "out").nar_hash == hexed(NAR)
    server.files.update(make_cache({PATH: (make_nar("newer"), [PATH, OTHER])}, SIGNER))
    with pytest.raises(ContentError, match="has other bytes by now"):
        source(store, server.url).fetch(info, tmp_path / "newer", lambda _: None)
    del server.files[NARINFO]
    with pytest.raises(ContentError, match="does not have it any more"):
        source(store, server.url).fetch(info, tmp_path / "gone", lambda _: None)


def test_s3_shows_as_a_source_that_cannot_be_asked(store):
    (opened,) = open_sources(store, Settings(substituters=("s3://bucket?region=eu",)))
    assert opened.describe() == "s3://bucket"
    with pytest.raises(UnreachableError, match="cannot read from s3 stores"):
        opened.query([Wanted(PATH)])


@pytest.mark.parametrize(
    "url", ["s3://bucket", "nonsense", "ssh://", "ssh://-oProxyCommand=x", "/nowhere", "ssh://h:x"]
)
def test_a_named_source_that_cannot_be_one_is_wrong_usage(store, url):
    with pytest.raises(UsageError, match="cannot be a source") as caught:
        open_sources(store, Settings(), [url])
    assert caught.value.where == "--from"


def test_named_sources_come_first(server, store):
    settings = Settings(substituters=("https://cache.example.org/",))
    opened = open_sources(store, settings, [server.url, "ssh://me@node1:2222?remote-program=/x"])
    assert [one.describe() for one in opened] == [
        server.url,
        "ssh://me@node1:2222",
        "https://cache.example.org",
    ]
