"""`kingpost cache probe` with real Nix, to a directory and to a real S3 server that fails when it is told to."""

import json
import subprocess
import sys

import pytest
from tests.observe.s3_front import Front, serve
from tests.real.s3_server import KEY, rclone_s3

from kingpost.cache.narinfo import parse_narinfo


@pytest.fixture
def probe(nix_or_new, tmp_path):
    """Run the command with a real Nix of its own."""

    def run(*argv, code=0, confirm="synthetic"):
        name = "attic" if str(argv[0]).startswith("s3:") else "cache"
        phrase = ["--confirm", f"probe-{name}-{confirm}"] if confirm else []
        done = subprocess.run(
            [sys.executable, "-m", "kingpost", "cache", "probe", *map(str, argv), *phrase, "--settle", "0s"],
            env={
                **nix_or_new.env,
                "PATH": f"{tmp_path / 'bin'}:{nix_or_new.env['PATH']}",
                "XDG_STATE_HOME": str(tmp_path / "state"),
                "AWS_ACCESS_KEY_ID": KEY.access_key,
                "AWS_SECRET_ACCESS_KEY": KEY.secret_key,
                "AWS_EC2_METADATA_DISABLED": "true",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stdout[-6000:] + done.stderr[-3000:]
        assert KEY.secret_key not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def nix_or_new(request):
    """Both versions where a test asks for `nix`, else the newest."""
    return request.getfixturevalue("nix" if "nix" in request.fixturenames else "nix_new")


def report(done):
    return json.loads(done.stdout)


def probe_codes(done):
    return [v["code"].removeprefix("KP-PROBE-") for v in report(done)["verdicts"] if "-PROBE-" in v["code"]]


PASSED = ["PART-OK"] * 5


@pytest.mark.parametrize(
    ("profile", "paths", "last"),
    [
        ("synthetic", 1, "PASSED-SYNTHETIC"),
        ("small", 6, "PASSED-GENERATED"),
        ("medium", 36, "PASSED-GENERATED"),
    ],
)
def test_a_made_up_closure_is_published_to_a_directory(nix, probe, tmp_path, profile, paths, last):
    argv = (f"file://{tmp_path}/cache?compression=none", "--profile", profile, "--json")
    done = probe(*argv, confirm=profile)
    assert probe_codes(done) == [*PASSED, last]
    evidence = report(done)["verdicts"][-1]["evidence"]
    assert (evidence["paths"], evidence["new"], evidence["profile"]) == (paths, paths, profile)
    assert evidence["representative"] == (profile != "synthetic")
    assert (evidence["above_threshold"] > 0) == (profile != "synthetic")
    infos = [parse_narinfo(file.read_text()) for file in (tmp_path / "cache").glob("*.narinfo")]
    assert len(infos) == paths
    # Attic cuts by contents: only a NAR above max-size, usually four thresholds, is sure to be more than one chunk.
    assert sum(info.nar_size > 4 * 65536 for info in infos) == evidence["above_threshold"]
    ledger = (tmp_path / "state" / "kingpost" / "ledger.sqlite").read_bytes()
    assert b"publication to" in ledger
    assert b"-kingpost-probe at" not in ledger, "made-up paths would stay in the history for ever"
    # Again: it is new each time, or it would show nothing.
    assert report(probe(*argv, confirm=profile))["verdicts"][-1]["evidence"]["new"] == paths


def test_nothing_is_written_without_the_phrase_of_the_profile(probe, tmp_path):
    argv = (f"file://{tmp_path}/cache", "--profile", "medium")
    assert "add --confirm probe-cache-medium" in probe(*argv, confirm="").stderr
    assert "it is probe-cache-medium" in probe(*argv, confirm="small", code=2).stderr
    other = (f"file://{tmp_path}/other", "--profile", "medium")  # the phrase of one cache is none for another
    assert "it is probe-other-medium" in probe(*other, confirm="medium", code=2).stderr
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "other").exists()


def test_a_real_payload_must_have_the_shape_that_the_profile_claims(nix, nix_or_new, probe, tmp_path):
    one = nix_or_new.run("nix-instantiate", "--eval", "--read-write-mode", "-E", 'builtins.toFile "own" "x"')
    path = one.stdout.strip('"\n')
    argv = (f"file://{tmp_path}/cache", "--profile", "small", "--payload", path, "--json")
    done = probe(*argv, confirm="small", code=1)
    assert probe_codes(done) == ["PART-OK", "SHAPE", "NOT-TRIED", "NOT-TRIED", "NOT-TRIED"]
    assert not (tmp_path / "cache").exists()


EXPRESSION = """
let
  hash = n: i: builtins.hashString "sha512" "${toString n} ${toString i}";
  block = n: builtins.concatStringsSep "" (builtins.genList (hash n) n);
  leaf = n: builtins.toFile "leaf" (block n);
in builtins.toFile "own" (builtins.concatStringsSep " " (map (n: "${leaf n}") [ 1 2 3 4 5 900 ]))
"""


def test_a_closure_of_ones_own_passes_and_something_new_is_always_written(nix, nix_or_new, probe, tmp_path):
    done = nix_or_new.run("nix-instantiate", "--eval", "--read-write-mode", "-E", EXPRESSION)
    path = done.stdout.strip('"\n')
    argv = (f"file://{tmp_path}/cache", "--profile", "small", "--payload", path, "--json")
    first, second = (report(probe(*argv, confirm="small"))["verdicts"][-1] for _ in range(2))
    assert first["code"] == second["code"] == "KP-PROBE-PASSED"
    assert first["evidence"]["payload"] == path
    assert (first["evidence"]["new"], second["evidence"]["new"]) == (13, 6)


def test_a_payload_that_is_not_there(probe, tmp_path):
    absent = "/nix/store/00000000000000000000000000000000-absent"
    argv = (f"file://{tmp_path}/cache", "--profile", "small", "--payload", absent, "--json")
    assert "BUILD" in probe_codes(probe(*argv, confirm="small", code=1))


# --- a real S3 server, and one that fails -----------------------------------------------------------------------


@pytest.fixture
def front(tmp_path):
    # Debian's Nix signs nothing (and its 2.8 has no S3 at all), so the server asks for no signature.
    with rclone_s3(tmp_path / "data", anonymous=True) as served:
        served.bucket("attic")
        (tmp_path / "hidden").mkdir()
        with serve(Front(served.url, tmp_path / "hidden")) as running:
            yield running


@pytest.fixture
def to_s3(front, probe, tmp_path):
    host = front.url.removeprefix("http://")
    store = f"s3://attic?endpoint={host}&scheme=http&region=us-east-1"
    bucket = ("--bucket", "attic", "--endpoint", front.url, "--disk", tmp_path / "data")

    def run(profile="small", code=0):
        return probe(store, *bucket, "--profile", profile, "--json", confirm=profile, code=code)

    return run


def test_a_closure_is_published_to_a_real_s3_server(to_s3):
    done = to_s3("medium")
    assert probe_codes(done) == [*PASSED, "PASSED-GENERATED"]
    found = report(done)["verdicts"]
    assert [v["code"] for v in found].count("KP-BUCKET-COHERENT") == 2
    assert found[-1]["evidence"]["storage_looked_at"]


def test_an_unsound_storage_is_not_written_to(front, to_s3):
    (front.hidden / "attic").touch()
    done = to_s3(code=1)
    assert probe_codes(done) == ["PRE", *["NOT-TRIED"] * 4]
    assert "KP-BUCKET-INDEX-DIVERGENCE" in done.stdout
    assert not any(line.startswith(("PUT", "POST")) for line in front.log)


def test_a_storage_that_fails_during_the_push(front, to_s3):
    """As on 2026-05-08: the bucket goes while dependencies are uploaded."""

    def lose(method, path):
        if method == "PUT" and path.startswith("/attic/nar/"):
            (front.hidden / "attic").touch()

    front.after = lose
    done = to_s3(code=1)
    assert probe_codes(done) == ["PART-OK", "PART-OK", "PUSH", "POST", "NOT-TRIED"]


def test_a_storage_that_fails_right_after_the_push_is_found_by_reading_back(front, to_s3):
    def lose(method, path):
        narinfos = {line for line in front.log if line.startswith("PUT") and ".narinfo" in line}
        if len(narinfos) == 6:
            (front.hidden / "attic").touch()

    front.after = lose
    done = to_s3(code=1)
    assert probe_codes(done) == ["PART-OK", "PART-OK", "PART-OK", "READ-BACK", "POST"]


def test_a_storage_that_fails_after_reading_back_is_found_by_the_evidence_after(front, to_s3):
    """As on 2026-05-13: evidence before passed, evidence after did not."""

    def lose(method, path):
        bodies = {line.split("?")[0] for line in front.log if line.startswith("GET /attic/nar/")}
        if len(bodies) == 6:
            (front.hidden / "attic").touch()

    front.after = lose
    done = to_s3(code=1)
    assert probe_codes(done) == ["PART-OK"] * 4 + ["POST"]
    assert "KP-BUCKET-INDEX-DIVERGENCE" in done.stdout


def test_a_server_that_acknowledges_and_does_not_store(front, to_s3):
    front.fail = lambda method, path, query: 200 if method == "PUT" and "/nar/" in path else None
    done = to_s3(code=1)
    assert probe_codes(done)[:4] == ["PART-OK", "PART-OK", "PART-OK", "READ-BACK"]
    broken = next(v for v in report(done)["verdicts"] if v["code"] == "KP-PROBE-READ-BACK")
    assert broken["evidence"]["unreadable"] == 6


def test_synthetic_passes_where_a_closure_fails(front, to_s3):
    """The lesson of the incident: it breaks from the third NAR on."""

    def third(method, path, query):
        bodies = {line.split("?")[0] for line in front.log if line.startswith("PUT /attic/nar/")}
        return 500 if method == "PUT" and len(bodies) > 2 else None

    front.fail = third
    assert probe_codes(to_s3("synthetic"))[-1] == "PASSED-SYNTHETIC"
    assert "PUSH" in probe_codes(to_s3("medium", code=1))


TOPOLOGY = """
[site]
name = "lab"
[networks.lan]
kind = "lan"
[hosts.node]
memory = "8GiB"
addresses = { lan = "192.168.1.2" }
[gitlab.com]
[runners.ci]
executor = "shell"
host = "node"
[pipelines.hosts]
runner = "ci"
build = ["PATH"]
"""


def test_a_pipeline_of_the_topology_is_a_profile_of_its_own(nix_or_new, probe, tmp_path):
    done = nix_or_new.run("nix-instantiate", "--eval", "--read-write-mode", "-E", EXPRESSION)
    (tmp_path / "topology.toml").write_text(TOPOLOGY.replace("PATH", done.stdout.strip('"\n')))
    argv = (
        f"file://{tmp_path}/cache",
        "--profile",
        "hosts",
        "--topology",
        tmp_path / "topology.toml",
        "--json",
    )
    done = probe(*argv, confirm="hosts")
    assert probe_codes(done) == [*PASSED, "PASSED"]
    assert report(done)["profile"] == "hosts"
    assert "there is no pipeline" in probe(*argv[:2], "x", *argv[3:], confirm="x", code=2).stderr
    assert "there is no profile" in probe(*argv[:2], "x", confirm="x", code=2).stderr


def test_a_flake_output_is_built_and_published(nix_or_new, probe, tmp_path):
    flake = tmp_path / "flake"
    flake.mkdir()
    expression = 'derivation { name = "own"; system = builtins.currentSystem; builder = "/bin/sh"; '
    expression += f'args = ["-c" "echo ${{{EXPRESSION}}} > $out"]; }}'
    (flake / "flake.nix").write_text("{ outputs = _: { own = " + expression + "; }; }")
    argv = (f"file://{tmp_path}/cache", "--profile", "small", "--payload", f"path:{flake}#own", "--json")
    text = (flake / "flake.nix").read_text().replace("builtins.currentSystem", '"x86_64-linux"')
    (flake / "flake.nix").write_text(text)
    done = probe(*argv, confirm="small")
    assert probe_codes(done) == [*PASSED, "PASSED"]
    assert report(done)["verdicts"][-1]["evidence"]["payload"] == f"path:{flake}#own"
    (flake / "flake.nix").write_text('{ outputs = _: { own = throw "no"; }; }')
    assert "BUILD" in probe_codes(probe(*argv, confirm="small", code=1))
