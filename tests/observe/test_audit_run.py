"""Many paths: references, closures walked, giving up, shards and samples, resuming, merging, and many processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.cache.nars import Promise, nar
from tests.observe import faults

from kingpost.base.errors import InvalidInputError, UsageError
from kingpost.base.ledger import opened
from kingpost.cache.fetch import Access
from kingpost.cache.hashes import nix32
from kingpost.cli.main import main
from kingpost.observe import audit_codes as codes
from kingpost.observe import audit_targets as targets
from kingpost.observe.audit import Target
from kingpost.observe.audit_crew import Job
from kingpost.observe.audit_run import GIVE_UP_AFTER, Plan, run

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


OK, REFERENCE, MISSING = [codes.BODY_OK.name], [codes.REFERENCE_MISSING.name], [codes.NARINFO_MISSING.name]


@pytest.mark.parametrize("processes", [1, 2])
def test_references_are_asked_for_once(processes):
    files = caches({1: [1, 2, 3], 2: [3], 3: [], 4: [9]})
    with faults.serve(files) as server:
        found = look(server.url, [1, 2, 4], processes=processes)
        assert codes_of(found) == {1: OK, 2: OK, 4: REFERENCE}
        assert found[4].verdicts[0].evidence["missing"] == [path_of(9)]
        assert server.count(f"{hash_of(3)}.narinfo") == 1
        assert server.count(f"nar/{hash_of(3)}.nar.zst") == 0
        assert codes_of(look(server.url, [1, 4], references=False)) == {1: OK, 4: OK}


def test_a_reference_in_an_upstream_is_no_loss():
    with faults.serve(caches({1: [2]})) as server, faults.serve(caches({2: []})) as upstream:
        job = Job(server.url, PATIENCE, upstreams=(upstream.url,), attempts=1)
        assert codes_of(look(server.url, [1], job=job)) == {1: OK}
        assert codes_of(look(server.url, [1])) == {1: REFERENCE}


def test_a_missing_reference_that_is_itself_audited_is_said_of_both():
    with faults.serve(caches({1: [2]})) as server:
        found = codes_of(look(server.url, [1, 2]))
        assert found == {1: REFERENCE, f"{hash_of(2)} at {server.url}": MISSING}


def test_a_closure_is_walked_through_the_cache():
    references = {n: [n + 1, n + 2] for n in range(1, 20)} | {20: [21], 21: [], 30: []}
    with faults.serve(caches(references)) as server:
        found = codes_of(look(server.url, [1], follow=True))
    assert found == dict.fromkeys(range(1, 22), OK)


def test_cycles_end():
    with faults.serve(caches({1: [2], 2: [1]})) as server:
        assert codes_of(look(server.url, [1], follow=True)) == {1: OK, 2: OK}


def test_bad_bodies_fail_and_do_not_stop_the_rest():
    files = caches({n: [] for n in range(40)})
    with faults.serve(files) as server:
        for number in range(0, 40, 2):
            server.faults[f"nar/{hash_of(number)}.nar.zst"] = faults.chunked(0, end=False)
        found = codes_of(look(server.url, range(40), processes=2))
    assert found == {n: OK if n % 2 else [codes.BODY_EMPTY.name] for n in range(40)}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_cache_that_is_gone_is_given_up(processes):
    url = faults.closed_port()
    plan = Plan(
        Job(url, PATIENCE, attempts=1),
        [Target(hash_of(n)) for n in range(200)],
        threads=4,
        processes=processes,
    )
    found = [v.code for outcome in run(plan) for v in outcome.verdicts]
    assert len(found) == 200
    assert set(found) == {codes.REFUSED.name, codes.NOT_LOOKED.name}
    assert GIVE_UP_AFTER <= found.count(codes.REFUSED.name) < 40


def test_bandwidth_is_bounded(tmp_path):
    cache = written(tmp_path / "c", caches({1: []}))
    (cache / f"nar/{hash_of(1)}.nar.zst").write_bytes(bytes(200_000))
    began = time.monotonic()
    look(str(cache), [1], job=Job(str(cache), PATIENCE, bytes_per_second=400_000))
    assert 0.25 < time.monotonic() - began < 3


def test_a_worker_that_is_killed_costs_its_paths_and_no_more():
    files = caches({n: [] for n in range(60)})
    with faults.serve(files) as server:
        server.by_ending[".zst"] = lambda handler, body: (time.sleep(0.02), faults.answer(handler, body))
        plan = Plan(
            Job(server.url, PATIENCE), [Target(hash_of(n)) for n in range(60)], threads=4, processes=2
        )
        outcomes = run(plan)
        found = [next(outcomes)]
        workers = subprocess.run(
            ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="], capture_output=True, text=True, check=True
        ).stdout
        pids = [int(line.split()[0]) for line in workers.splitlines() if "ps" not in line.split()[1]]
        os.kill(max(pids), signal.SIGKILL)
        found += outcomes
    seen = [v.code for outcome in found for v in outcome.verdicts]
    assert len(seen) == 60
    assert set(seen) == {codes.BODY_OK.name, codes.NOT_LOOKED.name}
    assert 0 < seen.count(codes.NOT_LOOKED.name) < 20


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    script = (
        "import sys\nfrom tests.observe.test_audit_run import *\n"
        f"plan = Plan(Job({faults.closed_port()!r}, PATIENCE, attempts=50), [Target(hash_of(n)) for n in range(200)],"
        " threads=8, processes=2)\nprint('up', flush=True)\nlist(run(plan))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout.readline() == "up\n"
    deadline = time.monotonic() + 10
    while len(children(parent.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = children(parent.pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.05)


def children(pid):
    done = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False
    )
    return [int(word) for word in done.stdout.split()]


# --- which paths -----------------------------------------------------------------------------------------------------
H1, H2 = hash_of(1), hash_of(2)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (f"/nix/store/{H1}-a", Target(H1, f"/nix/store/{H1}-a")),
        (f"/tmp/s/{H1}-a/", Target(H1, f"/tmp/s/{H1}-a")),
        (H1, Target(H1)),
        (f"{H1}.narinfo", Target(H1)),
    ],
)
def test_a_path_in_any_form(text, target):
    assert targets.parse_target(text) == target


def test_a_link_to_a_store_path_means_that_path(tmp_path):
    path = "/nix/store/8iv5j0f2difw6wg9vwj9r2raacb08fkv-nixos-system"
    (tmp_path / "current-system").symlink_to(path)
    (tmp_path / "result").symlink_to("current-system")
    (tmp_path / "elsewhere").symlink_to("/etc")
    for name in ("current-system", "result"):
        assert targets.parse_target(str(tmp_path / name)) == targets.parse_target(path)
    with pytest.raises(UsageError, match="neither a store path"):
        targets.parse_target(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("text", ["", "hello", H1[:-1], f"{H1}-a", f"/nix/store/{H1}", "result"])
def test_what_is_no_path(text):
    with pytest.raises(UsageError):
        targets.parse_target(text)


@pytest.mark.parametrize(
    "line",
    [
        f"/nix/store/{H1}-a",
        H1,
        f"{H1}.narinfo",
        f"2026-05-06 12:00:00       512 {H1}.narinfo",
        f'"attic","{H1}.narinfo","512","2026-05-06T12:00:00.000Z"',
        f"./cache/{H1}.narinfo",
        f"      512 {H1}.narinfo",
        f'{{"path":"/nix/store/{H1}-a","narSize":1}}',
    ],
)
def test_a_path_in_any_listing(line):
    (found,) = targets.from_listing(["# header", line, "2026 512 nar/" + "0" * 52 + ".nar.zst", line])
    assert found.hash_part == H1


def test_a_listing_knows_a_name_when_it_has_one():
    found = targets.from_listing([H1, f"/nix/store/{H1}-a", H1, f"{H2}-b"])
    assert found == [Target(H1, f"/nix/store/{H1}-a"), Target(H2, f"/nix/store/{H2}-b")]


@given(st.text(max_size=200))
def test_any_text_is_a_listing(text):
    for target in targets.from_listing(text.splitlines()):
        assert targets.parse_target(target.hash_part)


MANY = [Target(hash_of(n)) for n in range(1000)]


@given(st.integers(1, 12))
def test_shards_are_a_partition_whatever_the_order(total):
    parts = [targets.take_shard(MANY, index, total) for index in range(1, total + 1)]
    assert sorted(t for part in parts for t in map(hash, part)) == sorted(map(hash, MANY))
    assert [set(targets.take_shard(reversed(MANY), i + 1, total)) for i in range(total)] == list(
        map(set, parts)
    )
    assert all(len(part) > 400 / total for part in parts)


@pytest.mark.parametrize(
    ("how", "number"), [("100", 100), ("5%", 50), ("0.1%", 1), ("100%", 1000), ("5000", 1000)]
)
def test_samples(how, number):
    drawn = targets.sample(MANY, how, "2026-05-06")
    assert len(drawn) == number
    assert set(drawn) <= set(MANY)
    assert set(drawn) == set(targets.sample(MANY[::-1], how, "2026-05-06"))
    assert number == 1000 or set(drawn) != set(targets.sample(MANY, how, "2026-05-07"))


@pytest.mark.parametrize("how", ["", "0", "-1", "1.5", "0%", "101%", "x", "5 %", "%"])
def test_what_is_no_sample(how):
    with pytest.raises(UsageError):
        targets.sample(MANY, how, "s")


@pytest.mark.parametrize(
    ("environment", "given", "shard"),
    [
        ({}, "", (1, 1)),
        ({}, "2/8", (2, 8)),
        ({"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "5"}, "", (3, 5)),
        ({"CI_NODE_TOTAL": "1"}, "", (1, 1)),
        ({"JOB_COMPLETION_INDEX": "0", "KINGPOST_SHARDS": "4"}, "", (1, 4)),
        ({"JOB_COMPLETION_INDEX": "3", "KINGPOST_SHARDS": "4"}, "", (4, 4)),
        ({"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "5"}, "1/1", (1, 1)),
    ],
)
def test_which_shard(environment, given, shard):
    assert targets.shard_of(environment, given) == shard


@pytest.mark.parametrize(
    ("environment", "given"),
    [
        ({}, "0/3"), ({}, "4/3"), ({}, "1"), ({}, "a/b"), ({}, "1/"),
        ({"CI_NODE_INDEX": "x", "CI_NODE_TOTAL": "5"}, ""),
        ({"JOB_COMPLETION_INDEX": "3"}, ""),
        ({"JOB_COMPLETION_INDEX": "4", "KINGPOST_SHARDS": "4"}, ""),
    ],
)  # fmt: skip
def test_what_is_no_shard(environment, given):
    with pytest.raises(UsageError):
        targets.shard_of(environment, given)


# --- the command -----------------------------------------------------------------------------------------------------
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
