"""`kingpost bucket` on a real S3 server, with the divergence of the incident reproduced before it."""

import json
import os
import subprocess
import sys

import pytest
from tests.observe.s3_front import Front, serve
from tests.real.conftest import require
from tests.real.s3_server import KEY, rclone_s3
from tests.real.sshd import running

from kingpost.base.errors import CannotLookError
from kingpost.base.ledger import Ledger
from kingpost.cache.s3 import MIN_PART_BYTES, S3Error
from kingpost.observe import bucket, bucket_disk, bucket_scratch
from kingpost.observe.executors.local import Here
from kingpost.report import history


@pytest.fixture
def served(tmp_path):
    with rclone_s3(tmp_path / "data") as server:
        server.bucket("attic")
        (server.data / "attic" / "0b4c.chunk").write_bytes(b"chunk" * 100)
        yield server


@pytest.fixture
def front(served, tmp_path):
    (tmp_path / "hidden").mkdir()
    with serve(Front(served.url, tmp_path / "hidden")) as running:
        yield running


@pytest.fixture
def kingpost(tmp_path):
    """Run the command with an imitated systemctl, kubectl and journalctl first on PATH."""

    def run(*argv, code=0, **env):
        done = subprocess.run(
            [sys.executable, "-m", "kingpost", "bucket", *map(str, argv)],
            env={
                **os.environ,
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "XDG_STATE_HOME": str(tmp_path / "state"),
                "AWS_ACCESS_KEY_ID": KEY.access_key,
                "AWS_SECRET_ACCESS_KEY": KEY.secret_key,
                **env,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        for text in (done.stdout, done.stderr):
            assert KEY.secret_key not in text
            assert KEY.access_key not in text
        return done

    return run


def put_program(tmp_path, name, body):
    path = tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
    path.chmod(0o755)


def codes_of(done):
    return [verdict["code"].removeprefix("KP-BUCKET-") for verdict in json.loads(done.stdout)["verdicts"]]


def here(served):
    return [bucket_disk.Directory(Here(), str(served.data))]


def test_the_wrapper_speaks_to_a_real_server(served):
    s3 = served.s3()
    assert "attic" in s3.buckets()
    s3.head("attic")
    assert [(found.key, found.size) for found in s3.objects("attic")] == [("0b4c.chunk", 500)]
    assert s3.get("attic", "0b4c.chunk") == b"chunk" * 100
    assert s3.get("attic", "0b4c.chunk", limit=5) == b"chunk"
    with pytest.raises(S3Error) as absent:
        s3.objects("nowhere")
    assert (absent.value.code, absent.value.absent, absent.value.status) == ("NoSuchBucket", True, 404)
    s3.put_parts("attic", "multi", [b"a" * MIN_PART_BYTES, b"b"])
    assert s3.objects("attic")[1].size == MIN_PART_BYTES + 1


@pytest.mark.parametrize(
    ("hide", "data", "metadata", "state"),
    [
        (False, True, True, "COHERENT"),
        (True, True, True, "INDEX-DIVERGENCE"),
        (True, False, False, "ABSENT"),
        (True, True, False, "METADATA-LOSS"),
        (True, False, True, "ORPHAN-METADATA"),
    ],
)
def test_each_row_of_the_table(served, front, kingpost, hide, data, metadata, state):
    if hide:
        (front.hidden / "attic").touch()
    if not data:
        (served.data / "attic" / "0b4c.chunk").unlink()
        (served.data / "attic").rmdir()
    if not metadata:
        (served.data / ".rustfs.sys/buckets/attic").rmdir()
    argv = ("rca", "attic", "--endpoint", front.url, "--disk", served.data, "--json", "--no-ledger")
    assert codes_of(kingpost(*argv, code=0 if state == "COHERENT" else 1)) == [state]


def test_a_bucket_on_another_volume_is_a_phantom(served, kingpost, tmp_path):
    (tmp_path / "other").mkdir()
    argv = ("rca", "attic", "--endpoint", served.url, "--disk", tmp_path / "other", "--json", "--no-ledger")
    assert codes_of(kingpost(*argv, code=1)) == ["PHANTOM"]


def test_without_the_disk_nothing_is_claimed_about_it(served, front, kingpost):
    argv = ("rca", "attic", "--endpoint", front.url, "--json", "--no-ledger")
    assert codes_of(kingpost(*argv)) == ["READABLE"]
    (front.hidden / "attic").touch()
    assert codes_of(kingpost(*argv, code=1)) == ["NOT-LISTED"]
    argv = (*argv, "--disk", "/nonexistent/data")
    assert codes_of(kingpost(*argv, code=1)) == ["NOT-LISTED", "DISK-UNSEEN"]


def test_listed_but_not_readable(served, front, kingpost):
    argv = ("rca", "attic", "--endpoint", front.url, "--disk", served.data, "--json", "--no-ledger")
    front.fail = lambda method, path, query: 500 if path.endswith(".chunk") else None
    assert codes_of(kingpost(*argv, code=1)) == ["UNREADABLE"]
    front.fail = lambda method, path, query: 404 if method == "HEAD" else None
    done = kingpost(*argv, code=1)
    assert codes_of(done) == ["INDEX-DIVERGENCE"]
    assert "half lost" in done.stdout


def test_refused_credentials_say_nothing_about_the_bucket(served, kingpost):
    argv = ("rca", "attic", "--endpoint", served.url, "--disk", served.data, "--json", "--no-ledger")
    assert codes_of(kingpost(*argv, code=1, AWS_ACCESS_KEY_ID="somebodyelse12345678")) == ["DENIED"]
    assert "no AWS_ACCESS_KEY_ID" in kingpost(*argv, code=3, AWS_ACCESS_KEY_ID="").stderr


def test_no_server_is_no_verdict(kingpost):
    done = kingpost("rca", "attic", "--endpoint", "http://127.0.0.1:9", code=3)
    assert "got no answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_scratch_cycle_passes_and_leaves_nothing(served, kingpost):
    before = sorted(path.name for path in served.data.iterdir())
    argv = (
        "rca",
        "attic",
        "--endpoint",
        served.url,
        "--disk",
        served.data,
        "--scratch-probe",
        "--json",
        "--no-ledger",
    )
    assert codes_of(kingpost(*argv, "--provider", "other")) == ["COHERENT", "SCRATCH-OK"]
    strict = (*argv, "--strict-scratch-disk-markers")
    assert codes_of(kingpost(*strict, "--provider", "other")) == ["COHERENT", "SCRATCH-OK"]
    # rclone keeps no metadata as RustFS does: strictly, that is a finding.
    assert codes_of(kingpost(*strict, code=1)) == ["COHERENT", "SCRATCH-MARKERS"]
    assert codes_of(kingpost(*argv)) == ["COHERENT", "SCRATCH-OK"]
    assert sorted(path.name for path in served.data.iterdir()) == before


STEPS = [
    ("PUT", r"/kingpost-rca-[^/]+/?$", "", "create the bucket"),
    ("GET", r"/$", "", "find it listed"),
    ("PUT", r"/small$", "", "write a small object"),
    ("POST", r"/multipart$", "uploads", "write an object in two parts"),
    ("PUT", r"/multipart$", "partNumber=2", "write an object in two parts"),
    ("POST", r"/multipart$", "uploadId", "write an object in two parts"),
    ("GET", r"/kingpost-rca-[^/]+/?$", "list-type", "list both"),
    ("GET", r"/small$", "", "read the small object"),
    ("GET", r"/multipart$", "", "read the object of two parts"),
]


@pytest.mark.parametrize(("method", "path", "query", "step"), STEPS)
def test_a_failing_step_is_named_and_the_bucket_is_still_removed(served, front, method, path, query, step):
    import re

    before = sorted(entry.name for entry in served.data.iterdir())
    front.fail = lambda m, p, q: 500 if m == method and re.search(path, p) and query in q else None
    (verdict,) = bucket_scratch.run(served.s3(front.url))
    assert verdict.code == "KP-BUCKET-SCRATCH-FAILED"
    assert verdict.summary.startswith(f"{step} failed")
    assert sorted(entry.name for entry in served.data.iterdir()) == before


@pytest.mark.parametrize("what", ["objects", "bucket"])
def test_a_scratch_bucket_that_stays_is_a_finding(served, front, what):
    front.fail = lambda m, p, q: (
        500 if m == "DELETE" and "uploadId" not in q and ((p.count("/") > 1) == (what == "objects")) else None
    )
    (verdict,) = bucket_scratch.run(served.s3(front.url))
    assert verdict.code == "KP-BUCKET-SCRATCH-LEFT"
    assert verdict.evidence["bucket"] in verdict.summary


def test_a_server_that_loses_the_scratch_bucket_midway(served, front):
    """The fault of the incident, triggered by a write."""

    def lose(method, path):
        if method == "PUT" and path.endswith("/small"):
            (front.hidden / path.split("/")[1]).touch()

    front.after = lose
    (verdict,) = bucket_scratch.run(served.s3(front.url), directories=here(served))
    assert verdict.code == "KP-BUCKET-SCRATCH-FAILED"
    assert "NoSuchBucket" in verdict.summary


TOPOLOGY = """
[site]
name = "lab"
[networks.lan]
kind = "lan"
[buckets.attic]
provider = "rustfs"
endpoint = "URL"
[waivers.singleton]
code = "KP-BUCKET-INDEX-DIVERGENCE"
on = "buckets.attic"
reason = "the replacement is being built"
owner = "platform"
expires = "EXPIRES"
"""


def test_an_interim_state_is_expected_until_it_is_over(served, front, kingpost, tmp_path):
    def rca(expires, code):
        text = TOPOLOGY.replace("URL", front.url).replace('"EXPIRES"', expires)
        (tmp_path / "topology.toml").write_text(text)
        argv = ("rca", "attic", "--topology", tmp_path / "topology.toml", "--disk", served.data)
        return codes_of(kingpost(*argv, "--expect-interim", "singleton", "--json", "--no-ledger", code=code))

    assert rca("2999-01-01", 1) == ["INTERIM-UNNEEDED"]
    (front.hidden / "attic").touch()
    assert rca("2999-01-01", 0) == ["INTERIM"]
    assert rca("2020-01-01", 1) == ["INTERIM-EXPIRED"]
    (served.data / ".rustfs.sys/buckets/attic").rmdir()
    assert rca("2999-01-01", 1) == ["METADATA-LOSS"]


UNIT = "ExecStart={ path=/nix/store/abc-rustfs-1.0/bin/rustfs ; argv[]=rustfs }\nMainPID=1\n"


@pytest.fixture
def systemd(tmp_path, front):
    """Imitate systemd: `systemctl restart` brings the index back."""
    put_program(
        tmp_path,
        "systemctl",
        f'if [ "$1" = restart ]; then rm -f {front.hidden}/*; else printf "%s" "{UNIT}"; fi',
    )
    put_program(tmp_path, "journalctl", f'echo "NoSuchBucket attic; secret_key={KEY.secret_key}"')

    def calls():
        path = tmp_path / "calls"
        return path.read_text().splitlines() if path.exists() else []

    return calls


def test_a_restart_keeps_evidence_first_and_proves_recovery_and_counts(
    served, front, kingpost, systemd, tmp_path
):
    argv = ("restart", "attic", "--endpoint", front.url, "--disk", served.data, "--server", "rustfs.service")
    plan = kingpost(*argv)
    assert "--confirm restart-rustfs.service" in plan.stderr
    assert systemd() == []
    assert "is not the phrase" in kingpost(*argv, "--confirm", "restart-other", code=2).stderr
    # Nothing to recover: refused, and nothing restarted.
    done = kingpost(*argv, "--confirm", "restart-rustfs.service", code=1)
    assert "nothing to recover" in done.stderr
    assert not any("restart" in call for call in systemd())

    for count in (1, 2):
        (front.hidden / "attic").touch()
        evidence = ("--evidence", tmp_path / f"evidence{count}", "--json")
        done = kingpost(*argv, *evidence, "--confirm", "restart-rustfs.service")
        found = json.loads(done.stdout)
        assert found["before"]["code"] == "KP-BUCKET-INDEX-DIVERGENCE"
        assert codes_of(done) == ["EVIDENCE", "RECOVERED", *(["RECURRENCE"] if count > 1 else [])]
        if count > 1:
            last = found["verdicts"][-1]["evidence"]
            assert (last["count"], last["image"]) == (2, "/nix/store/abc-rustfs-1.0/bin/rustfs")
    restarts = [at for at, call in enumerate(systemd()) if call == "systemctl restart rustfs.service"]
    logs = [at for at, call in enumerate(systemd()) if call.startswith("journalctl")]
    assert len(restarts) == 2
    assert logs[1] < restarts[0], "evidence comes before the restart"
    log = (tmp_path / "evidence1" / "server.log").read_text()
    assert "NoSuchBucket attic" in log
    assert "[secret]" in log
    again = kingpost(*argv, *evidence, "--confirm", "restart-rustfs.service", code=2)
    assert "holds evidence already" in again.stderr
    # What was seen is recorded as looks at the bucket: the last one was good.
    ledger = Ledger(tmp_path / "state" / "kingpost" / "ledger.sqlite")
    (looks,) = [one for one in history.read(ledger) if one.command == "bucket rca"]
    ledger.close()
    assert (looks.breakages, looks.broken_since) == (2, "")
    for path in (tmp_path / "evidence1").iterdir():
        assert KEY.secret_key not in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_state_that_a_restart_would_harm_is_refused(served, front, kingpost, systemd, tmp_path):
    (front.hidden / "attic").touch()
    (served.data / ".rustfs.sys/buckets/attic").rmdir()
    argv = ("restart", "attic", "--endpoint", front.url, "--disk", served.data, "--server", "rustfs.service")
    confirm = ("--confirm", "restart-rustfs.service", "--evidence", tmp_path / "evidence")
    assert "metadata-loss, which a restart does not recover" in kingpost(*argv, *confirm, code=1).stderr
    assert not any("restart" in call for call in systemd())
    elsewhere = (*confirm[:-1], tmp_path / "evidence2")
    no_disk = kingpost(*argv[:4], *argv[6:], *elsewhere, code=1)
    assert "without the disk's view" in no_disk.stderr


def test_a_restart_that_does_not_help_says_so(served, front, kingpost, systemd, tmp_path):
    (front.hidden / "attic").touch()
    put_program(tmp_path, "systemctl", f'[ "$1" = restart ] || printf "%s" "{UNIT}"')
    argv = ("restart", "attic", "--endpoint", front.url, "--disk", served.data, "--server", "rustfs.service")
    confirm = ("--confirm", "restart-rustfs.service", "--timeout", "2s", "--evidence", tmp_path / "evidence")
    assert codes_of(kingpost(*argv, *confirm, "--json", code=1)) == ["EVIDENCE", "NOT-RECOVERED"]


def test_the_disk_tells_absent_from_not_allowed_to_see(served):
    view = bucket_disk.look(here(served), "attic")
    assert (view.data, view.metadata, view.found[0].entries) == (True, True, 1)
    with pytest.raises(CannotLookError, match="is not there"):
        bucket_disk.look([bucket_disk.Directory(Here(), "/nonexistent")], "attic")
    (served.data / "file").touch()
    with pytest.raises(CannotLookError, match="is no directory"):
        bucket_disk.look([bucket_disk.Directory(Here(), str(served.data / "file"))], "attic")


def test_the_api_view_of_an_empty_bucket(served):
    served.bucket("empty")
    api = bucket.look(served.s3(), "empty")
    assert (api.known, api.objects, api.read_key) == (True, 0, "")


def test_the_disk_of_another_host_by_the_real_ssh(served, kingpost, tmp_path):
    with running(tmp_path / "ssh", require("sshd"), {"LC_ALL": "C.UTF-8"}) as sshd:
        # kingpost adds no options of its own for a port or key: those are the user's configuration, here a wrapper's.
        put_program(tmp_path, "ssh", f'exec /usr/bin/ssh {sshd.nix_sshopts} "$@"')
        argv = ("rca", "attic", "--endpoint", served.url, "--json", "--no-ledger")
        where = f"ssh:root@127.0.0.1:{served.data}"
        done = kingpost(*argv, "--disk", where)
        assert codes_of(done) == ["COHERENT"]
        (view,) = json.loads(done.stdout)["verdicts"][0]["evidence"]["disk"].values()
        assert view == {"data": True, "entries": 1, "metadata": True}
        assert codes_of(kingpost(*argv, "--disk", f"{where}/a b'c")) == ["READABLE", "DISK-UNSEEN"]


def test_a_killed_run_leaves_a_bucket_that_the_next_one_names(served, kingpost):
    argv = ("rca", "attic", "--endpoint", served.url, "--scratch-probe", "--json", "--no-ledger")
    fresh = bucket_scratch.fresh_name()
    for name in (fresh, "kingpost-rca-somebody-elses"):
        served.s3().create(name)
    assert codes_of(kingpost(*argv)) == ["READABLE", "SCRATCH-OK"], "a running one is left alone"
    served.s3().create("kingpost-rca-20200101000000-0123abcd")
    done = kingpost(*argv, code=1)
    assert codes_of(done) == ["READABLE", "SCRATCH-OK", "SCRATCH-LEFT"]
    assert json.loads(done.stdout)["verdicts"][-1]["evidence"]["buckets"] == [
        "kingpost-rca-20200101000000-0123abcd"
    ]
    assert (served.data / fresh).exists()


def test_evidence_is_collected_without_a_restart(served, front, kingpost, systemd, tmp_path):
    argv = ("rca", "attic", "--endpoint", front.url, "--disk", served.data, "--json", "--no-ledger")
    server = ("--server", "rustfs.service", "--since", "30m", "--evidence", tmp_path / "kept")
    assert codes_of(kingpost(*argv, *server)) == ["COHERENT", "EVIDENCE"]
    assert [call.split()[0] for call in systemd()] == ["journalctl", "systemctl"]
    assert "--since=-1800s" in systemd()[0]
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert "add --server" in kingpost(*argv, "--since", "30m", code=2).stderr
    assert "strict markers need" in kingpost(*argv, "--strict-scratch-disk-markers", code=2).stderr
