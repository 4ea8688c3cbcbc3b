"""`kingpost cache audit` and `cache merge`: what is named, resuming, known bodies, shards and their merge."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import islice

import pytest
import zstandard
from tests.cache.nars import nar
from tests.observe import faults
from tests.observe.many_paths import caches, hash_of, path_of, written

from kingpost.base.errors import InvalidInputError
from kingpost.base.ledger import opened
from kingpost.cli.main import main
from kingpost.observe import audit_codes as codes
from kingpost.observe.audit_run import run


def command(capsys, *words):
    code = main(["cache", *map(str, words)])
    out = capsys.readouterr()
    return code, json.loads(out.out) if "--json" in words and code < 2 else out.out + out.err


@pytest.fixture
def cache(tmp_path, monkeypatch):
    for name in ("CI_NODE_INDEX", "CI_NODE_TOTAL", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KINGPOST_LEDGER", str(tmp_path / "ledger.sqlite"))
    return written(tmp_path / "cache", caches({n: [n + 1] for n in range(9)} | {9: []}))


def test_everything_of_a_directory(cache, capsys):
    code, report = command(capsys, "audit", cache, "--json", "-j", "1")
    assert code == 0
    assert report["summary"] == {"ok": 10, "expected": 0, "failed": 0, "skipped": 0}
    assert (report["paths"], report["shard"], report["shards"], report["cache"]) == (
        10,
        1,
        1,
        f"file://{cache}",
    )
    assert report["nar_bytes"] > report["body_bytes"] > 0


def test_a_cache_that_says_it_is_for_another_store(cache, capsys):
    (cache / "nix-cache-info").write_text("StoreDir: /srv/store\nPriority: 40\n")
    for jobs in "12":
        code, report = command(capsys, "audit", cache, "--json", "-j", jobs)
        assert code == 1
        assert {v["code"] for v in report["verdicts"]} == {codes.OTHER_STORE.name}


def test_what_was_found_before_an_interruption_is_shown_and_recorded(cache, capsys, tmp_path, monkeypatch):
    (cache / f"nar/{hash_of(0)}.nar.zst").write_bytes(b"")

    def interrupted(plan):
        yield from islice(run(plan), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr("kingpost.observe.audit_run.run", interrupted)
    code, text = command(capsys, "audit", cache, "-j", "1")
    assert code == 130
    assert "KP-CACHE-BODY-EMPTY" in text
    assert "1 failed, 2 ok; interrupted; there were 10 paths" in text
    with opened(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.table("verdicts").count == 3
        assert [row["exit_code"] for row in ledger.db.query("select exit_code from runs")] == [None]
    assert command(capsys, "audit", cache, "-j", "1", "--json")[1].startswith("kingpost: interrupted")


def test_named_paths_a_list_and_stdin(cache, capsys, tmp_path, monkeypatch):
    (tmp_path / "list").write_text(f"{hash_of(3)}.narinfo\n{path_of(4)}\n")
    monkeypatch.setattr("sys.stdin", [f"{hash_of(5)}\n"])
    code, report = command(
        capsys, "audit", cache, hash_of(1), path_of(2), "-", "--list", tmp_path / "list", "--json"
    )
    assert code == 0
    assert {v["subject"].partition(" ")[0] for v in report["verdicts"]} == {path_of(n) for n in range(1, 6)}


def test_what_cannot_be_listed_or_read(cache, capsys, tmp_path):
    with faults.serve({"nix-cache-info": b"StoreDir: /nix/store\n"}) as server:
        code, text = command(capsys, "audit", server.url)
        assert (code, "an HTTP cache cannot list its paths" in text) == (2, True)
    (tmp_path / "empty").write_text("nothing here\n")
    assert command(capsys, "audit", cache, "--list", tmp_path / "empty")[0] == 2
    assert command(capsys, "audit", cache, "--list", tmp_path / "absent")[0] == 3
    assert command(capsys, "audit", "gopher://x")[0] == 2
    assert command(capsys, "audit", cache, "--bandwidth", "fast")[0] == 2
    assert command(capsys, "audit", cache, "--key", "nonsense")[0] == 2
    assert command(capsys, "audit", cache, "--token-file", tmp_path / "absent")[0] == 2


def test_a_cache_that_is_not_there_is_one_verdict(capsys):
    code, report = command(
        capsys, "audit", faults.closed_port(), hash_of(1), hash_of(2), "--json", "--attempts", "1"
    )
    assert code == 1
    assert [v["code"] for v in report["verdicts"]] == [codes.REFUSED.name]


def test_a_private_cache_without_a_token_is_not_looked_at(capsys):
    with faults.serve({}) as server:
        server.everywhere = faults.attic_error(401, "Unauthorized")
        code, text = command(capsys, "audit", server.url, hash_of(1))
    assert code == 3
    assert "KP-CACHE-NEEDS-TOKEN" in text


def test_resuming_skips_what_is_verified_and_not_what_broke_since(cache, capsys):
    body = cache / f"nar/{hash_of(3)}.nar.zst"
    good = body.read_bytes()
    body.write_bytes(b"")
    assert command(capsys, "audit", cache)[0] == 1
    body.write_bytes(good)
    code, report = command(capsys, "audit", cache, "--verified-since", "7d", "--json")
    assert code == 0
    assert report["paths"] == 1
    found = {v["code"]: v["subject"] for v in report["verdicts"] if v["code"] == codes.BODY_OK.name}
    assert found == {codes.BODY_OK.name: f"{path_of(3)} at file://{cache}"}
    assert report["summary"]["ok"] == 10
    body.write_bytes(b"")
    assert command(capsys, "audit", cache, "--verified-since", "7d")[0] == 0  # the ledger says it is verified
    assert command(capsys, "audit", cache)[0] == 1
    assert command(capsys, "audit", cache, "--verified-since", "7d")[0] == 1


def test_what_the_ledger_verified_does_not_renew_itself(cache, capsys, tmp_path):
    command(capsys, "audit", cache)
    with opened(tmp_path / "ledger.sqlite") as ledger:
        before = ledger.table("verdicts").count
        ledger.db.execute("update verdicts set seen = '2026-01-01T00:00:00+00:00'")
        ledger.db.conn.commit()
    assert command(capsys, "audit", cache, "--verified-since", "36500d")[0] == 0
    with opened(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.table("verdicts").count == before
    _, report = command(capsys, "audit", cache, "--verified-since", "1d", "--json")
    assert report["paths"] == 10


def body_of(report, number):
    return next(v for v in report["verdicts"] if v["subject"].startswith(path_of(number)))["evidence"]


def test_a_body_that_is_known_is_hashed_and_not_decompressed(cache, capsys, monkeypatch):
    _, first = command(capsys, "audit", cache, "--json")
    with monkeypatch.context() as without:
        without.setattr("kingpost.observe.audit.measure", lambda *_: pytest.fail("it was decompressed"))
        code, second = command(capsys, "audit", cache, "--json", "-j", "1")
        assert code == 0
    assert all("same_body_as" in v["evidence"] for v in second["verdicts"])
    for key in ("nar_bytes", "body_bytes", "body_hash", "nar_hash"):
        assert body_of(first, 3)[key] == body_of(second, 3)[key]
    _, fresh = command(capsys, "audit", cache, "--json", "--fresh")
    assert not any("same_body_as" in v["evidence"] for v in fresh["verdicts"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda b: b"", "BODY-EMPTY"),
        (lambda b: b[:-1], "BODY-TRUNCATED"),
        (lambda b: b[:-1] + b"x", "BODY-CORRUPT"),
        (lambda b: b + bytes(1_000_000), "BODY-TRAILING"),
        (lambda _: zstandard.ZstdCompressor().compress(nar(b"other")), "BODY-WRONG-SIZE"),
        (lambda b: zstandard.ZstdCompressor(level=19, write_checksum=True).compress(
            zstandard.ZstdDecompressor().decompress(b)), "FILE-WRONG"),
    ],
)  # fmt: skip
def test_a_known_body_that_changed_is_read_anew(cache, capsys, change, code):
    command(capsys, "audit", cache)
    body = cache / f"nar/{hash_of(3)}.nar.zst"
    body.write_bytes(change(body.read_bytes()))
    _, report = command(capsys, "audit", cache, hash_of(3), "--json")
    assert [v["code"] for v in report["verdicts"]] == [f"KP-CACHE-{code}"]
    assert "same_body_as" not in body_of(report, 3)


def test_a_body_compressed_anew_without_file_lines_is_read_anew(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KINGPOST_LEDGER", str(tmp_path / "ledger.sqlite"))
    files = caches({1: []})
    info = f"{hash_of(1)}.narinfo"
    lines = [line for line in files[info].decode().splitlines() if not line.startswith("File")]
    files[info] = ("\n".join(lines) + "\n").encode()
    with faults.serve(files) as server:
        for again in (False, True):
            _, report = command(capsys, "audit", server.url, hash_of(1), "--json")
            assert ("same_body_as" in body_of(report, 1)) is again
        url = f"nar/{hash_of(1)}.nar.zst"
        files[url] = zstandard.ZstdCompressor(write_checksum=True).compress(
            zstandard.ZstdDecompressor().decompress(files[url])
        )
        code, report = command(capsys, "audit", server.url, hash_of(1), "--json")
    assert (code, "same_body_as" in body_of(report, 1)) == (0, False)


def test_another_cache_is_another_matter(cache, capsys, tmp_path):
    command(capsys, "audit", cache)
    other = written(tmp_path / "other", caches({1: []}))
    _, report = command(capsys, "audit", other, "--verified-since", "7d", "--json")
    assert report["paths"] == 1


def test_verified_since_needs_a_ledger(cache, capsys):
    assert command(capsys, "audit", cache, "--verified-since", "7d", "--no-ledger")[0] == 2


def test_shards_and_their_merge(cache, capsys, tmp_path, monkeypatch):
    (cache / f"nar/{hash_of(3)}.nar.zst").write_bytes(b"")
    parts = []
    for index in ("1", "2", "3"):
        monkeypatch.setenv("CI_NODE_INDEX", index)
        monkeypatch.setenv("CI_NODE_TOTAL", "3")
        _, report = command(capsys, "audit", cache, "--json")
        assert report["shards"] == 3
        parts.append(tmp_path / f"part-{index}.json")
        parts[-1].write_text(json.dumps(report))
    code, whole = command(capsys, "merge", *parts, "--json", "--junit", tmp_path / "j.xml")
    assert code == 1
    assert whole["summary"] == {"ok": 9, "expected": 0, "failed": 1, "skipped": 0}
    assert (whole["paths"], whole["reports"]) == (10, 3)
    assert (tmp_path / "j.xml").exists()
    code, text = command(capsys, "merge", parts[0], parts[2])
    assert code == 1
    assert "KP-CACHE-SHARD-MISSING" in text
    assert "shard 2 of 3" in text


def test_what_cannot_be_merged(cache, capsys, tmp_path):
    _, report = command(capsys, "audit", cache, "--json")
    good, other, empty = (tmp_path / name for name in ("good", "other", "empty"))
    good.write_text(json.dumps(report))
    other.write_text(json.dumps(report | {"cache": "http://elsewhere"}))
    empty.write_text("")
    for bad in (other, empty, tmp_path / "absent"):
        assert command(capsys, "merge", good, bad)[0] == 2
    for change in (
        {"schema": "x"},
        {"command": "doctor"},
        {"verdicts": [{"status": "fine"}]},
        {"verdicts": 3},
    ):
        other.write_text(json.dumps(report | change))
        assert command(capsys, "merge", other)[0] == 2


def test_a_sample_of_a_walked_closure_is_refused(cache, capsys):
    with faults.serve(caches({1: []})) as server:
        assert command(capsys, "audit", server.url, "--closure", path_of(1), "--sample", "5")[0] == 2


def test_a_killed_audit_resumes_where_it_was(tmp_path):
    files = caches({n: [] for n in range(200)})
    ledger = tmp_path / "l.sqlite"
    (tmp_path / "list").write_text("\n".join(hash_of(n) for n in range(200)))
    with faults.serve(files) as server:
        server.by_ending[".zst"] = lambda handler, body: (time.sleep(0.15), faults.answer(handler, body))
        words = [sys.executable, "-m", "kingpost", "cache", "audit", server.url, "--list", tmp_path / "list"]
        words += ["-j", "8", "--json", "--ledger", ledger]
        running = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not recorded(ledger):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.kill()
        running.wait()
        server.by_ending.clear()
        done = subprocess.run([*words, "--verified-since", "1h"], capture_output=True, text=True, check=False)
        report = json.loads(done.stdout)
    assert report["summary"]["ok"] == 200
    assert 0 < report["paths"] < 200
    with opened(ledger) as book:
        assert [row["exit_code"] for row in book.db.query("select exit_code from runs")] == [None, 0]


def recorded(ledger):
    if not ledger.exists():
        return 0
    with opened(ledger) as book:
        return book.table("verdicts").count


def test_bad_reports_are_invalid_input(tmp_path):
    from kingpost.observe.audit_merge import merge

    (tmp_path / "r").write_text("[]")
    with pytest.raises(InvalidInputError):
        merge([tmp_path / "r"])
