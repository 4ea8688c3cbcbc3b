"""docs/caches.md shows what the commands print: its worked example is played again and compared.

`KINGPOST_WRITE_PAGES=1 pytest tests/real/test_caches_page.py` writes what it printed into the page. Addresses are
replaced by readable ones; times, speeds and dates may differ.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.cache.nars import HASH, Promise, nar
from tests.observe.s3_front import Front
from tests.observe.s3_front import serve as serve_front
from tests.real import attic_cache
from tests.real.s3_server import rclone_s3

PAGE = Path(__file__).parents[2] / "docs" / "caches.md"
BLOCK = re.compile(r"(?<=<!-- played: )([a-z-]+) -->\n```console\n(.*?)```\n", re.DOTALL)
CONFIG_HASH = "0c1p5z4kda11zqg6lbnwwkwpymjwkrqf"
NAR_BYTES = 3_330_176  # as in the incident
KEY = "main:O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="  # of 32 zero bytes


def paths():
    """Give both paths of the story, as narinfos and NARs: a small one, and a large one that refers to it."""
    config = nar(b"listen = 8080\n")
    blocks = (hashlib.sha256(f"{number}".encode()).digest() for number in range(NAR_BYTES // 32))
    data = b"".join(blocks)
    room = NAR_BYTES - len(nar({b"bin": {b"runner-dashboard": ("x", b"")}}))
    dashboard = nar({b"bin": {b"runner-dashboard": ("x", data[:room])}})
    assert len(dashboard) == NAR_BYTES
    small, large = f"{CONFIG_HASH}-dashboard-config", f"{HASH}-runner-dashboard-0.1.0"
    yield Promise(nar=config, path=f"/nix/store/{small}", file=False), config
    yield Promise(nar=dashboard, path=f"/nix/store/{large}", references=small, file=False), dashboard


class Story:
    """Plays commands against the imitated Attic, and keeps what they printed."""

    def __init__(self, attic, front, data, ledger):
        self.said: dict[str, str] = {}
        self._real = {
            attic.url: "http://attic:8080/main",
            front.url: "http://s3:9000",
            str(data): "/data",
            str(ledger): "/var/lib/kingpost/ledger.sqlite",
        }
        self._environment = {**os.environ, "KINGPOST_LEDGER": str(ledger)}

    def play(self, name, line, code=0):
        words = line.split()
        for real, shown in self._real.items():
            words = [word.replace(shown, real) for word in words]
        done = subprocess.run(
            [sys.executable, "-m", "kingpost", *words], env=self._environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        text = done.stdout + done.stderr
        for real, shown in self._real.items():
            text = text.replace(real, shown)
        ending = f"$ echo $?\n{code}\n" if code else ""
        self.said[name] = f"$ kingpost {line}\n{text}{ending}"


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    hidden, data = place / "hidden", place / "data"
    hidden.mkdir()
    with rclone_s3(data, anonymous=True) as server:
        server.bucket("attic")
        with serve_front(Front(server.url, hidden)) as front:
            attic = attic_cache.Attic(front.url, key=Ed25519PrivateKey.from_private_bytes(bytes(32)))
            for promise, body in paths():
                attic.push(promise.text(), body)
            assert attic.public_key == KEY
            with attic_cache.serve(attic):
                yield play(Story(attic, front, data, place / "ledger.sqlite"), hidden / "attic")


def play(story, lost):
    audit = f"cache audit http://attic:8080/main --closure {HASH} --key {KEY}"
    rca = "bucket rca attic --endpoint http://s3:9000 --anonymous --disk /data"
    story.play("before", audit)
    lost.touch()
    story.play("incident", audit, 1)
    story.play("history", f"history {HASH}")
    story.play("rca", rca, 1)
    lost.unlink()
    story.play("after", audit)
    return story.said


def plain(text):
    """Leave out what differs from run to run: times, speeds, dates."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "DATE", text)
    return re.sub(r"in [\d.e+]+ s( at \d+ MB/s)?|seconds=[\d.]+", "TIME", text)


def test_the_page_shows_what_the_commands_print(said):
    page = PAGE.read_text()
    assert {name for name, _ in BLOCK.findall(page)} == set(said)
    if os.environ.get("KINGPOST_WRITE_PAGES"):
        PAGE.write_text(BLOCK.sub(lambda m: f"{m[1]} -->\n```console\n{said[m[1]]}```\n", page))
        page = PAGE.read_text()
    for name, shown in BLOCK.findall(page):
        assert plain(shown) == plain(said[name]), name


def test_what_the_page_claims_of_them(said):
    assert said["before"].count("KP-CACHE-BODY-OK") == 2
    assert "KP-CACHE-BODY-EMPTY" in said["incident"]
    assert "server_error=NoSuchBucket" in said["incident"]
    assert said["history"].startswith(f"$ kingpost history {HASH}\nbroken since ")
    assert "KP-BUCKET-INDEX-DIVERGENCE" in said["rca"]
    assert "2 ok" in said["after"]
