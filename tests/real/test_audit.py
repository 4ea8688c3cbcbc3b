"""`kingpost cache audit` on caches that real Nix wrote, beside what real Nix makes of the same damage."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard
from tests.cache.nars import HASH, nar
from tests.observe import faults
from tests.observe.s3_front import Front
from tests.observe.s3_front import serve as serve_front
from tests.real import attic_cache
from tests.real.conftest import NIX_VERSIONS, Nix, require
from tests.real.s3_server import KEY, rclone_s3

from kingpost.cache.compression import decompressor
from kingpost.cache.fetch import open_cache
from kingpost.cache.narinfo import parse_narinfo

BODY = f"nar/{HASH}.nar.zst"
PATHS = """
let
  leaf = builtins.toFile "leaf" "leaf";
  make = name: needs: derivation {
    inherit name; system = builtins.currentSystem; builder = "/bin/sh";
    args = [ "-c" "echo ${name} ${toString needs} > $out" ];
  };
  middle = make "middle" [ leaf ];
in { top = make "top" [ middle leaf ]; }
"""


@dataclass
class World:
    """A real Nix with a store, its paths, and a function that copies them to a new cache."""

    nix: Nix
    top: str
    big: str
    key: str
    paths: list[str]

    def copy_to(self, directory: Path, compression="zstd", extra=""):
        url = f"file://{directory}?compression={compression}{extra}"
        self.nix.run("nix", "copy", "--to", url, *self.paths)
        return directory

    def signed(self, directory: Path, compression="zstd"):
        return self.copy_to(directory, compression, f"&secret-key={self.nix.root / 'secret'}")


@pytest.fixture(scope="module", params=list(NIX_VERSIONS))
def world(request, tmp_path_factory):
    nix = Nix(
        request.param, require(NIX_VERSIONS[request.param]), tmp_path_factory.mktemp(f"nix-{request.param}")
    )
    (nix.root / "paths.nix").write_text(PATHS)
    top = nix.run("nix-build", "--no-out-link", nix.root / "paths.nix", "-A", "top").stdout.strip()
    tree = nix.root / "big"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "random").write_bytes(random.Random(5).randbytes(400_000))
    (tree / "text").write_text("nix " * 50_000)
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    (tree / "link").symlink_to("deep/er")
    for number in range(300):
        (tree / "deep" / f"file-{number:03}").write_text(str(number) * number)
    big = nix.run("nix-store", "--add", tree).stdout.strip()
    nix.run("nix-store", "--generate-binary-cache-key", "kp-1", nix.root / "secret", nix.root / "public")
    requisites = nix.run("nix-store", "--query", "--requisites", top, big).stdout.split()
    return World(nix, top, big, (nix.root / "public").read_text(), requisites)


@pytest.fixture
def audit(tmp_path):
    def run(*words, code=0, cwd=None, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "kingpost", "cache", "audit", *map(str, words), "--json"],
            env={**os.environ, "KINGPOST_LEDGER": str(tmp_path / "ledger.sqlite"), **environment},
            capture_output=True, text=True, timeout=120, check=False, cwd=cwd,
        )  # fmt: skip
        assert done.returncode == code, done.stdout[-3000:] + done.stderr
        return json.loads(done.stdout)

    return run


def codes_of(report):
    return {
        v["subject"].partition(" at ")[0]: v["code"].removeprefix("KP-CACHE-") for v in report["verdicts"]
    }


COMPRESSIONS = {
    "2.8": ["zstd", "xz", "none", "bzip2", "br"],
    "2.34": ["zstd", "xz", "none", "bzip2", "br", "gzip"],
}


def test_what_nix_wrote_is_ok_in_every_compression(world, audit, tmp_path):
    for compression in COMPRESSIONS[world.nix.version]:
        cache = world.signed(tmp_path / compression, compression)
        with faults.serve(cache) as server:
            report = audit(server.url, *world.paths, "--key", world.key)
        assert codes_of(report) == dict.fromkeys(world.paths, "BODY-OK")
        found = {v["evidence"]["compression"] for v in report["verdicts"]}
        assert found == {compression}
        assert {v["evidence"]["signature"] for v in report["verdicts"]} <= {"signed", "content-addressed"}
        assert audit(cache)["summary"]["ok"] == len(world.paths)


def test_unsigned_and_foreign_signatures(world, audit, tmp_path):
    cache = world.copy_to(tmp_path / "unsigned")
    built = [path for path in world.paths if not path.endswith(("leaf", "big"))]
    found = codes_of(audit(cache, "--key", world.key, code=1))
    assert {path for path, code in found.items() if code == "SIGNATURE-MISSING"} == set(built)
    # `nix-store --add` and `toFile` make content-addressed paths, which Nix takes unsigned; so do we.
    assert {code for path, code in found.items() if path not in built} == {"BODY-OK"}
    cache = world.signed(tmp_path / "signed")
    other = "other-1:" + world.key.partition(":")[2]
    assert set(codes_of(audit(cache, *built, "--key", other, code=1)).values()) == {"SIGNATURE-UNTRUSTED"}
    forged = next(cache.glob(f"{Path(world.top).name[:32]}.narinfo"))
    forged.write_text(forged.read_text().replace("References: ", "References: " + Path(world.big).name + " "))
    found = codes_of(audit(cache, *built, "--key", world.key, code=1))
    assert found[world.top] == "SIGNATURE-INVALID"
    assert [code for path, code in found.items() if path != world.top] == ["BODY-OK"]


def test_a_closure_by_nix_and_by_the_cache(world, audit, tmp_path):
    cache = world.copy_to(tmp_path / "cache")
    closure = set(world.nix.run("nix-store", "--query", "--requisites", world.top).stdout.split())
    with faults.serve(cache) as server:
        by_nix = audit(server.url, "--closure", world.top, **world.nix.env)
        by_cache = audit(server.url, "--closure", world.top, PATH=os.defpath)
        assert set(codes_of(by_nix)) == set(codes_of(by_cache)) == closure
        leaf = next(p for p in closure if p.endswith("-leaf"))
        (cache / f"{Path(leaf).name[:32]}.narinfo").unlink()
        found = codes_of(audit(server.url, world.top, code=1))
    assert found == {world.top: "REFERENCE-MISSING"}


def test_a_flakes_output(world, audit, tmp_path):
    flake = tmp_path / "flake"
    flake.mkdir()
    (flake / "flake.nix").write_text(
        f"{{ outputs = _: {{ demo = {PATHS.replace('builtins.currentSystem', SYSTEM)}; }}; }}"
    )
    top = world.nix.run(
        "nix", "build", "--no-link", f"path:{flake}#demo.top", "--print-out-paths", check=False
    )
    if top.returncode:  # 2.8 has no --print-out-paths
        world.nix.run("nix", "build", "--no-link", f"path:{flake}#demo.top")
    out = world.nix.run("nix", "eval", "--raw", f"path:{flake}#demo.top.outPath").stdout
    cache = tmp_path / "cache"
    world.nix.run("nix", "copy", "--to", f"file://{cache}", out)
    report = audit(cache, "--flake", f"path:{flake}#demo.top", **world.nix.env)
    assert out in codes_of(report)
    assert len(report["verdicts"]) == 3
    assert set(codes_of(report).values()) == {"BODY-OK"}


SYSTEM = '"x86_64-linux"' if os.uname().machine == "x86_64" else '"aarch64-linux"'


def test_a_store_path_that_was_damaged_before_the_push(world, audit, tmp_path):
    """Nix publishes it without a word (facts: section 5); the audit tells."""
    path = world.nix.run("nix-store", "--add", world.nix.root / "paths.nix").stdout.strip()
    Path(path).chmod(0o644)
    Path(path).write_text("shorter")
    for compression, code in (("zstd", "BODY-WRONG-SIZE"), ("none", "BODY-WRONG-SIZE")):
        cache = tmp_path / compression
        copied = world.nix.run(
            "nix", "copy", "--to", f"file://{cache}?compression={compression}", path, check=False
        )
        assert copied.returncode == 0
        assert set(codes_of(audit(cache, code=1)).values()) == {code}
    world.nix.run("nix-store", "--delete", "--ignore-liveness", path, check=False)


# Damage, the verdict it must have, and whether real Nix substitutes the path all the same.
DAMAGE = {
    "none": (None, "BODY-OK", True),
    "empty, length 0": (faults.replaced(b""), "BODY-EMPTY", False),
    "empty, full length": (faults.cut_after(0), "BODY-EMPTY", False),
    "the incident": (faults.chunked(0, end=False), "BODY-EMPTY", False),
    "half, full length": (faults.cut_after(0.5), "BODY-TRUNCATED", False),
    "chunked, dies in the middle": (faults.chunked(0.5, end=False), "BODY-TRUNCATED", False),
    "half, consistent length": (faults.replaced(lambda b: b[: len(b) // 2]), "BODY-TRUNCATED", False),
    "corrupt": (faults.replaced(lambda b: b[:6] + b"\xff" * 99 + b[105:]), "BODY-CORRUPT", False),
    "HTML": (faults.replaced(b"<!doctype html><title>Sign in</title>"), "BODY-CORRUPT", False),
    "404": (faults.status(404), "BODY-MISSING", False),
    "403": (faults.status(403), "FORBIDDEN", False),
    "401": (faults.status(401), "NEEDS-TOKEN", False),
    "500": (faults.status(500), "SERVER-ERROR", False),
    "503": (faults.status(503), "SERVER-ERROR", False),
    "hangs up": (faults.hang_up, "CONNECTION-LOST", False),
    "stalls": (faults.stall(0.5), "STALLED", False),
    "redirect to nothing": (faults.redirect("http://127.0.0.1:1/chunk?sig=x"), "REDIRECT-UNREACHABLE", False),
    "once bad, then good": (faults.first(1, faults.status(503)), "BODY-OK", True),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_body_is_ok_exactly_when_nix_takes_it(world, audit, tmp_path, name):
    fault, code, taken = DAMAGE[name]
    cache = world.copy_to(tmp_path / "cache")
    info = parse_narinfo((cache / f"{Path(world.big).name[:32]}.narinfo").read_text())
    with faults.serve(cache) as server:
        server.faults[info.url] = fault
        status = {"BODY-OK": 0, "NEEDS-TOKEN": 3}.get(code, 1)
        report = audit(server.url, world.big, "--stall-timeout", "1s", "--attempts", "2", code=status)
        assert codes_of(report) == {world.big: code}
        if name == "once bad, then good":
            server.faults[info.url] = faults.first(1, faults.status(503))
        options = ["--option", "download-attempts", "2", "--option", "stalled-download-timeout", "1"]
        done = world.nix.run(
            "nix", "copy", "--no-check-sigs", "--from", server.url, "--to", f"local?root={tmp_path / 'root'}",
            world.big, *options, check=False, env={"HOME": str(tmp_path)},
        )  # fmt: skip
    assert (done.returncode == 0) is taken, done.stderr
    shutil.rmtree(tmp_path / "root", ignore_errors=True)


def test_what_nix_cannot_see(world, audit, tmp_path):
    """A wrong FileHash, a missing reference: `nix store verify` says nothing, the audit does."""
    cache = world.signed(tmp_path / "cache")
    big = cache / f"{Path(world.big).name[:32]}.narinfo"
    lines = [
        ("FileHash: sha256:" + "0" * 52) if "FileHash" in line else line
        for line in big.read_text().splitlines()
    ]
    big.write_text("\n".join(lines) + "\n")
    leaf = next(path for path in world.paths if path.endswith("-leaf"))
    (cache / f"{Path(leaf).name[:32]}.narinfo").unlink()
    verify = world.nix.run(
        "nix", "store", "verify", "--all", "--no-trust", "--store", f"file://{cache}", check=False
    )
    assert verify.returncode == 0, verify.stderr
    found = codes_of(audit(cache, code=1))
    middle = next(path for path in world.paths if path.endswith("-middle"))
    assert found == {world.big: "FILE-WRONG", world.top: "REFERENCE-MISSING", middle: "REFERENCE-MISSING"}


def test_a_cache_that_says_it_is_for_another_store(world, audit, tmp_path):
    cache = world.copy_to(tmp_path / "cache")
    leaf = next(path for path in world.paths if path.endswith("-leaf"))
    copy = ["nix", "copy", "--no-check-sigs", "--to", f"local?root={tmp_path / 'root'}", leaf]
    with faults.serve(cache) as server:
        audit(server.url, leaf)
        (cache / "nix-cache-info").write_text("StoreDir: /srv/other/store\n")
        done = world.nix.run(*copy, "--from", server.url, check=False, env={"HOME": str(tmp_path)})
        assert done.returncode
        assert "is for Nix stores with prefix '/srv/other/store'" in done.stderr
        assert codes_of(audit(server.url, leaf, code=1)) == {leaf: "OTHER-STORE"}


def test_a_large_nar_takes_no_more_memory_than_a_small_one(tmp_path):
    block = random.Random(9).randbytes(1 << 20)
    size = 2 * 1024**3
    head, tail = nar(b"\0" * 8)[:-24], nar(b"")[-16:]
    head = head[:-8] + size.to_bytes(8, "little")
    digest = hashlib.sha256(head)
    (tmp_path / "nar").mkdir()
    with (tmp_path / BODY).open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as writer:
        writer.write(head)
        for _ in range(size // len(block)):
            writer.write(block)
            digest.update(block)
        writer.write(tail)
    digest.update(tail)
    whole = len(head) + size + len(tail)
    lines = [f"StorePath: /nix/store/{HASH}-large", f"URL: {BODY}", "Compression: zstd"]
    lines += [f"NarHash: sha256:{digest.hexdigest()}", f"NarSize: {whole}", "References: ", ""]
    (tmp_path / f"{HASH}.narinfo").write_text("\n".join(lines))
    (tmp_path / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    script = (
        # Not ru_maxrss: it begins with the size of the process that forked this one (execve(2) keeps it).
        "import re, sys\nfrom pathlib import Path\nfrom kingpost.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    with faults.serve(tmp_path) as server:
        done = subprocess.run(
            [sys.executable, "-c", script, "cache", "audit", server.url, HASH, "--no-ledger"],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{whole} bytes of NAR" in done.stdout
    assert int(done.stderr.split()[-1]) < 100 * 1024, "KiB of memory"


# --- S3 and Attic ----------------------------------------------------------------------------------------------------
AWS = {"AWS_ACCESS_KEY_ID": KEY.access_key, "AWS_SECRET_ACCESS_KEY": KEY.secret_key}


@pytest.fixture
def front(tmp_path):
    (tmp_path / "hidden").mkdir()
    with rclone_s3(tmp_path / "data") as server:
        server.bucket("attic")
        with serve_front(Front(server.url, tmp_path / "hidden")) as running:
            yield running


def test_a_cache_in_s3_and_the_bucket_that_its_index_lost(world, audit, front, tmp_path):
    world.copy_to(tmp_path / "data" / "attic")
    url = f"s3://attic?endpoint={front.url}&region=us-east-1"
    report = audit(url, **AWS)
    assert codes_of(report) == dict.fromkeys(world.paths, "BODY-OK")
    (
        tmp_path / "data" / "attic" / parse_narinfo(info_of(tmp_path / "data" / "attic", world.big)).url
    ).write_bytes(b"")
    assert codes_of(audit(url, **AWS, code=1))[world.big] == "BODY-EMPTY"
    (tmp_path / "hidden" / "attic").touch()
    report = audit(url, **AWS, code=1)
    assert [v["code"] for v in report["verdicts"]] == ["KP-CACHE-BUCKET-MISSING"]
    (tmp_path / "hidden" / "attic").unlink()
    report = audit(url, AWS_ACCESS_KEY_ID="wrong", AWS_SECRET_ACCESS_KEY="wrong", code=3)
    assert [v["code"] for v in report["verdicts"]] == ["KP-CACHE-S3-CREDENTIALS"]
    assert KEY.secret_key not in json.dumps(report)


def info_of(cache, path):
    return (cache / f"{Path(path).name[:32]}.narinfo").read_text()


@pytest.fixture
def storage(tmp_path):
    """S3 for Attic. It asks for no key: rclone's server knows no presigned addresses."""
    (tmp_path / "hidden").mkdir()
    with rclone_s3(tmp_path / "data", anonymous=True) as server:
        server.bucket("attic")
        with serve_front(Front(server.url, tmp_path / "hidden")) as running:
            yield running


@pytest.fixture
def attic(world, storage, tmp_path):
    """An Attic with every path of the world: the small ones in one chunk, `big` in several."""
    source = world.copy_to(tmp_path / "source", "none")
    server = attic_cache.Attic(storage.url)
    cache = open_cache(str(source))
    for path in world.paths:
        info = info_of(source, path)
        with cache.get(parse_narinfo(info).url) as body:
            server.push(info, decompressor("none", body).read(10_000_000))
    with attic_cache.serve(server) as running:
        yield running


def test_attic_small_and_chunked(world, audit, attic):
    report = audit(attic.url, *world.paths, "--key", attic.public_key)
    assert codes_of(report) == dict.fromkeys(world.paths, "BODY-OK")
    hops = {v["subject"].partition(" ")[0]: v["evidence"].get("redirects") for v in report["verdicts"]}
    assert hops[world.big] is None
    assert hops[world.top] == [f"307 {attic.url}/nar/{Path(world.top).name[:32]}.nar"]
    assert "Signature" not in json.dumps(report)
    assert len(attic.rows[Path(world.big).name[:32]].chunks) > 5


def test_attic_in_the_incident(world, audit, attic, tmp_path):
    """S3 no longer lists the bucket; narinfo, nix-cache-info and the front page stay green."""
    (tmp_path / "hidden" / "attic").touch()
    found = codes_of(audit(attic.url, *world.paths, code=1))
    assert found[world.big] == "BODY-EMPTY"
    assert {code for path, code in found.items() if path != world.big} == {"REDIRECT-MISSING"}
    assert "NoSuchBucket" in attic.log[0]
    (tmp_path / "hidden" / "attic").unlink()
    assert set(codes_of(audit(attic.url, *world.paths)).values()) == {"BODY-OK"}  # what a restart brings back


def test_attic_with_a_chunk_gone(world, audit, attic):
    row = attic.rows[Path(world.big).name[:32]]
    attic.s3.delete_object(Bucket="attic", Key=row.chunks[3])
    report = audit(attic.url, world.big, code=1)
    assert codes_of(report) == {world.big: "BODY-TRUNCATED"}
    assert report["verdicts"][0]["evidence"]["transfer"] == "cut"
    row.chunks[3] = None
    assert codes_of(audit(attic.url, world.big, code=1)) == {world.big: "BODY-INCOMPLETE"}
    small = attic.rows[Path(world.top).name[:32]]
    attic.s3.delete_object(Bucket="attic", Key=small.chunks[0])
    report = audit(attic.url, world.top, "--no-references", code=1)
    assert codes_of(report) == {world.top: "REDIRECT-MISSING"}
    assert report["verdicts"][0]["evidence"]["server_error"] == "NoSuchKey"


def test_attic_private(world, audit, attic, tmp_path):
    attic.public = False
    attic.tokens = {"may-pull": True, "may-push-only": False}
    absent = "/nix/store/" + "0" * 32 + "-absent"
    for name in (*attic.tokens, "expired"):
        (tmp_path / name).write_text(f"{name}\n")
    assert set(codes_of(audit(attic.url, *world.paths, "--token-file", tmp_path / "may-pull")).values()) == {
        "BODY-OK"
    }
    assert codes_of(audit(attic.url, world.top, code=3)) == {attic.url: "NEEDS-TOKEN"}
    for token, code in (("may-push-only", "FORBIDDEN"), ("expired", "UNAUTHORIZED")):
        report = audit(attic.url, world.top, "--token-file", tmp_path / token, code=1)
        assert codes_of(report) == {attic.url: code}
        assert token not in json.dumps(report)
    report = audit(attic.url, absent, "--token-file", tmp_path / "may-pull", code=1)
    assert codes_of(report) == {absent: "NARINFO-MISSING"}
    (tmp_path / "netrc").write_text("machine 127.0.0.1 password may-pull\n")
    assert codes_of(audit(attic.url, world.big, "--netrc-file", tmp_path / "netrc")) == {world.big: "BODY-OK"}
