"""Many paths: references, closures walked, giving up, and many processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.observe import faults
from tests.observe.many_paths import PATIENCE, caches, codes_of, hash_of, look, path_of, written

from kingpost.observe import audit_codes as codes
from kingpost.observe.audit import Target
from kingpost.observe.audit_crew import Job
from kingpost.observe.audit_run import GIVE_UP_AFTER, Plan, run

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
        os.kill(max(children(os.getpid())), signal.SIGKILL)
        found += outcomes
    seen = [v.code for outcome in found for v in outcome.verdicts]
    assert len(seen) == 60
    assert set(seen) == {codes.BODY_OK.name, codes.NOT_LOOKED.name}
    assert 0 < seen.count(codes.NOT_LOOKED.name) < 20


@pytest.mark.parametrize("threads", [2, 4])
def test_when_every_worker_is_killed_the_rest_was_not_looked_at(tmp_path, threads):
    cache = written(tmp_path / "c", caches({n: [] for n in range(300)}))
    plan = Plan(
        Job(str(cache), PATIENCE), [Target(hash_of(n)) for n in range(300)], threads=threads, processes=2
    )
    outcomes = run(plan)
    found = [next(outcomes)]
    for worker in children(os.getpid()):
        os.kill(worker, signal.SIGKILL)
    found += outcomes
    seen = [v.code for outcome in found for v in outcome.verdicts]
    assert len(seen) == 300
    assert set(seen) == {codes.BODY_OK.name, codes.NOT_LOOKED.name}


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
        ["ps", "--ppid", str(pid), "-o", "pid=,comm="], capture_output=True, text=True, check=False
    )
    found = [line.split() for line in done.stdout.splitlines()]
    return [int(pid) for pid, name in found if name != "ps"]
