"""Real Nix builds against caches with one fault each: the trace names who served, who was passed over, and why."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from tests.real.bad_cache import Fault, bad_cache

EXPRESSION = """
let mk = name: deps: derivation {
  inherit name; system = builtins.currentSystem; builder = "/bin/sh";
  args = [ "-c" "i=0; while [ $i -lt 300 ]; do echo ${name} ${toString deps} $i; i=$((i+1)); done > $out" ]; };
  a = mk "a" [ ]; big = mk "big" [ a ]; in mk "top" [ big a ]
"""
HURRY = ["--option", "require-sigs", "false", "--option", "download-attempts", "1",
         "--option", "connect-timeout", "1", "--option", "stalled-download-timeout", "1"]  # fmt: skip


class Stage:
    """A store that lost what its cache holds, and the command line that fetches it again."""

    def __init__(self, nix, directory):
        self.nix, self.cache = nix, directory / "cache"
        self.file, self.link = directory / "x.nix", directory / "result"
        self.file.write_text(EXPRESSION)
        nix.run("nix-build", self.file, "-o", self.link)
        nix.run("nix", "copy", "--to", f"file://{self.cache}?compression=zstd", self.link.readlink())
        self.link.unlink()
        nix.run("nix-collect-garbage")

    def trace(self, *substituters, options=(), nix_options=(), check=None):
        command = ["nix", "build", "-f", self.file, "-o", self.link, *HURRY,
                   "--option", "substituters", " ".join(substituters), *nix_options]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "kingpost", "trace", "--json", "--no-ledger", *options, "--", *map(str, command)],
            env=self.nix.env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        report = json.loads(done.stdout)
        found = {(v["code"], v["subject"]): v for v in report["verdicts"]}
        return done, found, {entry["path"].rpartition("-")[2]: entry for entry in report["paths"]}

    def forget(self):
        """Lose the paths and the client's narinfo cache again."""
        self.link.unlink(missing_ok=True)
        self.nix.run("nix-collect-garbage")
        shutil.rmtree(self.nix.root / "home" / ".cache", ignore_errors=True)


@pytest.fixture
def stage(nix, tmp_path):
    return Stage(nix, tmp_path)


# What is said of the bad cache, when a good one follows it: (reason, whether the fault is one of bodies).
FIRST_BAD = {
    Fault.REFUSED: "refused",
    Fault.DENIED_401: {"2.8": "no binary cache", "2.34": "401 or 403"},
    Fault.DENIED_403: {"2.8": "no binary cache", "2.34": "401 or 403"},
    Fault.NO_CACHE_INFO: "no binary cache",
    Fault.OTHER_STORE: "for another store directory",
    Fault.BUSY_503: "HTTP error",
    Fault.BUSY_429: "429",
    Fault.CONNECT_HANGS: "timeout",
    Fault.UNSIGNED: "untrusted signature",
    Fault.NAR_EMPTY: "NAR incomplete or empty",
    Fault.NAR_NOTHING: "NAR cut off",
    Fault.NAR_OTHER: {"2.8": "NAR of another content", "2.34": "NAR of another content"},
    Fault.NAR_CUT: "NAR cut off",
    Fault.NAR_HALF: "NAR corrupt",
    Fault.NAR_CORRUPT: "NAR corrupt",
    Fault.NAR_500: "HTTP error",
    Fault.NAR_404: "narinfo without NAR",
    Fault.NAR_STALLS: "NAR stalled",
    Fault.HANGS: "timeout",
    Fault.NARINFO_HTML: {"2.8": None, "2.34": "narinfo corrupt"},  # 2.8 gives up at once
    Fault.NARINFO_500: {"2.8": None, "2.34": "HTTP error"},
}


def test_a_bad_cache_before_a_good_one_is_named_with_its_fault(stage, nix):
    """One store, every row of the table: rebuilding the stage for each would take minutes."""
    for fault, expected in FIRST_BAD.items():
        reason = expected[nix.version] if isinstance(expected, dict) else expected
        stage.forget()
        with (
            bad_cache(stage.cache, fault) as (bad, _),
            bad_cache(stage.cache, Fault.NONE) as (good, _requests),
        ):
            # One row is retried, so that a retry's message is seen to be no failure of its own.
            retries = ["--option", "download-attempts", "2"] if fault is Fault.BUSY_503 else []
            if fault is Fault.UNSIGNED:
                retries = ["--option", "require-sigs", "true"]
            done, found, paths = stage.trace(bad, f"{good}?trusted=1", nix_options=retries)
        if reason is None:  # this Nix asks nobody else then
            assert "KP-TRACE-RUN-FAILED" in {code for code, _ in found}, (fault, list(found))
            continue
        assert ("KP-TRACE-TROUBLED", bad) in found, (fault, done.stderr[-2000:], list(found))
        assert reason in found["KP-TRACE-TROUBLED", bad]["evidence"]["complaints"], (fault, found)
        assert ("KP-TRACE-SERVED", good) in found, (fault, list(found))
        assert {paths[name]["served_by"] for name in ("a", "big", "top")} == {good}, (fault, paths)
        assert paths["top"]["passed_over"].get(bad) == reason, (fault, paths["top"])
        assert done.returncode == 1


def test_silence_is_named_too(stage):
    with (
        bad_cache(stage.cache, Fault.NARINFO_403) as (bad, _),
        bad_cache(stage.cache, Fault.NONE) as (good, _r),
    ):
        done, found, paths = stage.trace(bad, good)
    assert done.returncode == 0, done.stderr
    assert ("KP-TRACE-SILENT", bad) in found
    assert paths["a"]["passed_over"] == {bad: "nothing said"}
    assert paths["a"]["served_by"] == good
    assert paths["a"]["download_bytes"] > 100
    assert paths["a"]["nar_bytes"] is None or paths["a"]["nar_bytes"] > 1000
    assert paths["a"]["seconds"] is not None


def test_a_healthy_run_passes_its_gates_and_shows_nixs_own_output(stage):
    with bad_cache(stage.cache, Fault.NONE) as (good, _):
        gates = ["--require", good, "--max-fallbacks", "0", "--max-local-builds", "0"]
        done, found, _ = stage.trace(good, options=gates)
    assert done.returncode == 0, done.stdout
    assert ("KP-GATE-HELD", f"--require {good}") in found
    assert "copying path" in done.stderr
    assert "@nix" not in done.stderr


def test_fallback_hides_nothing(stage):
    with bad_cache(stage.cache, Fault.NAR_EMPTY) as (bad, _):
        gates = ["--require", bad, "--max-fallbacks", "0", "--max-local-builds", "0"]
        done, found, paths = stage.trace(bad, options=gates, nix_options=["--fallback"])
    assert done.returncode == 1
    assert found["KP-TRACE-FALLBACK", "fallback"]["evidence"]["fallbacks"] >= 1
    assert {code for code, _ in found} >= {"KP-GATE-REQUIRE", "KP-GATE-FALLBACKS", "KP-GATE-LOCAL-BUILDS"}
    assert "KP-TRACE-RUN-FAILED" not in {code for code, _ in found}, "Nix itself is content"
    assert any(entry["origin"] == "local build" for entry in paths.values())


def test_what_was_there_already_is_said(stage):
    with bad_cache(stage.cache, Fault.NONE) as (good, _):
        stage.trace(good)
        top = stage.link.readlink()
        stage.link.unlink()
        stage.nix.run("nix-store", "--delete", top)
        done, _, paths = stage.trace(good)
    assert done.returncode == 0
    assert paths["top"]["origin"] == "substituter"
    assert {paths["a"]["origin"], paths["big"]["origin"]} == {"already there"}


def test_the_clients_own_cache_is_told_from_the_server(stage):
    with bad_cache(stage.cache, Fault.NONE) as (good, requests):
        stage.trace(good)
        stage.link.unlink()
        stage.nix.run("nix-collect-garbage")
        requests.clear()
        _, found, paths = stage.trace(good)
    assert not [r for r in requests if r.endswith(".narinfo")], "this version asked the server after all"
    assert ("KP-TRACE-CLIENT-CACHE", good) in found
    assert paths["a"]["from_client_cache"] == [good]


def test_a_log_that_was_cut_gives_what_there_is(stage, tmp_path):
    log = tmp_path / "log"
    with bad_cache(stage.cache, Fault.NONE) as (good, _):
        stage.trace(good, options=["--keep-log", log])
    text = log.read_text()
    cut = text.index('"type":100', len(text) * 2 // 3)
    log.write_text(text[: cut + 4])
    done = subprocess.run(
        [sys.executable, "-m", "kingpost", "trace", "--json", "--no-ledger", "--log", log],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    codes = [v["code"] for v in json.loads(done.stdout)["verdicts"]]
    assert "KP-TRACE-TORN" in codes
    assert "KP-TRACE-SERVED" in codes
