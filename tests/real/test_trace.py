"""Real Nix builds against caches with one fault each: the trace names who served, who was passed over, and why."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from tests.real import sshd
from tests.real.bad_cache import Fault, bad_cache
from tests.real.conftest import require, require_root

from kingpost.observe.trace import Trace
from kingpost.observe.trace_report import Gates, judge
from kingpost.observe.trace_run import follow

EXPRESSION = """
let mk = name: deps: derivation {
  inherit name; system = builtins.currentSystem; builder = "/bin/sh";
  args = [ "-c" "i=0; while [ $i -lt LINES ]; do echo ${name} ${toString deps} $i; i=$((i+1)); done > $out" ]; };
  a = mk "a" [ ]; big = mk "big" [ a ]; in mk "top" [ big a ]
"""
HURRY = ["--option", "require-sigs", "false", "--option", "download-attempts", "1",
         "--option", "connect-timeout", "1", "--option", "stalled-download-timeout", "1"]  # fmt: skip


class Stage:
    """A store that lost what its cache holds, and the command line that fetches it again."""

    def __init__(self, nix, directory, compression="zstd", lines=300):
        self.nix, self.cache = nix, directory / "cache"
        self.file, self.link = directory / "x.nix", directory / "result"
        self.file.write_text(EXPRESSION.replace("LINES", str(lines)))
        nix.run("nix-build", self.file, "-o", self.link)
        nix.run("nix", "copy", "--to", f"file://{self.cache}?compression={compression}", self.link.readlink())
        self.link.unlink()
        nix.run("nix-collect-garbage")

    def command(self, *substituters, nix_options=(), command=None):
        build = command or ["nix", "build", "-f", self.file, "-o", self.link]
        return [*map(str, build), *HURRY, "--option", "substituters", " ".join(substituters), *nix_options]

    def follow(self, *substituters, nix_options=()):
        """Trace in this process, whose environment must be Nix's; gives the trace and the exit code."""
        trace = Trace(live=True)
        return trace, follow(self.command(*substituters, nix_options=nix_options), trace, None)

    def trace(self, *substituters, options=(), nix_options=(), command=None):
        command = self.command(*substituters, nix_options=nix_options, command=command)
        done = subprocess.run(
            [sys.executable, "-m", "kingpost", "trace", "--json", "--no-ledger", *options, "--", *command],
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
    Fault.NAR_403: "narinfo without NAR",
    Fault.NAR_STALLS: "NAR stalled",
    Fault.NAR_HANGS: "NAR stalled",
    Fault.OTHER_KEY: "untrusted signature",
    Fault.HANGS: "timeout",
    Fault.NARINFO_HTML: {"2.8": None, "2.34": "narinfo corrupt"},  # 2.8 gives up at once
    Fault.HTML: {"2.8": None, "2.34": "narinfo corrupt"},  # a page is accepted as nix-cache-info
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
            if fault in {Fault.UNSIGNED, Fault.OTHER_KEY}:
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


#: With nobody else to ask: who lacks a path is passed over and it is built; who promises one and fails ends the run.
BUILT_INSTEAD = {
    Fault.REFUSED, Fault.DENIED_401, Fault.DENIED_403, Fault.NO_CACHE_INFO, Fault.OTHER_STORE, Fault.NARINFO_403,
    Fault.BUSY_503, Fault.BUSY_429, Fault.CONNECT_HANGS, Fault.HANGS, Fault.UNSIGNED, Fault.OTHER_KEY, Fault.NAR_404,
    Fault.NAR_403,
}  # fmt: skip


def test_a_bad_cache_alone_is_named_whether_the_run_fails_or_builds(stage, nix, monkeypatch):
    for name, value in nix.env.items():
        monkeypatch.setenv(name, value)
    for fault in (*FIRST_BAD, Fault.NARINFO_403):
        stage.forget()
        trusted = (
            [] if fault not in {Fault.UNSIGNED, Fault.OTHER_KEY} else ["--option", "require-sigs", "true"]
        )
        with bad_cache(stage.cache, fault) as (bad, _):
            trace, returncode = stage.follow(bad, nix_options=trusted)
        codes = {verdict.code for verdict in judge(trace, Gates({}), returncode)}
        built = {build.derivation.rpartition("-")[2] for build in trace.local_builds}
        if fault in BUILT_INSTEAD:
            assert returncode == 0, fault
            assert built == {"a.drv", "big.drv", "top.drv"}, fault
        else:
            assert returncode != 0, fault
            assert "KP-TRACE-RUN-FAILED" in codes, fault
            assert not built, fault
        promised = fault in {Fault.NAR_404, Fault.NAR_403} or fault not in BUILT_INSTEAD
        assert bool(trace.fallbacks) == (promised and "NAR" in fault), (fault, trace.fallbacks)
        reason = FIRST_BAD.get(fault, "nothing said")
        reason = reason[nix.version] if isinstance(reason, dict) else reason
        if reason == "nothing said":
            assert "KP-TRACE-SILENT" in codes
        elif reason is not None:
            assert reason in trace.troubles[bad], (fault, trace.troubles)


def test_a_cache_that_nix_disables_is_said_to_be(stage):
    """Only with --fallback, and only for a download that failed: it is then not asked again for a minute."""
    with (
        bad_cache(stage.cache, Fault.NAR_500) as (bad, requests),
        bad_cache(stage.cache, Fault.NONE) as (good, _),
    ):
        done, found, _ = stage.trace(bad, good, nix_options=["--fallback", "-j", "1"])
    assert done.returncode == 1, "the cache has failed, though Nix is content"
    assert "disabled for 60 seconds" in found["KP-TRACE-TROUBLED", bad]["evidence"]["complaints"]
    assert len([path for path in requests if path.startswith("/nar/")]) == 1, "asked once, then no more"


BODIES = {
    # compression, size of the path, fault: what Nix says of it is other words each time
    ("none", 300, Fault.NAR_HALF): {"NAR incomplete or empty", "NAR cut off", "NAR corrupt"},
    ("none", 300, Fault.NAR_CORRUPT): {"NAR incomplete or empty", "NAR corrupt", "NAR of another content"},
    ("zstd", 200_000, Fault.NAR_HALF): {"NAR corrupt"},
    ("zstd", 200_000, Fault.NAR_CORRUPT): {"NAR corrupt", "NAR of another content"},
    ("xz", 300, Fault.NAR_HALF): {"NAR corrupt"},
    ("xz", 300, Fault.NAR_CORRUPT): {"NAR corrupt"},
}


@pytest.mark.parametrize("case", BODIES, ids=str)
def test_damaged_bodies_of_other_sizes_and_compressions(nix, tmp_path, case):
    compression, lines, fault = case
    stage = Stage(nix, tmp_path, compression, lines)
    with bad_cache(stage.cache, fault) as (bad, _), bad_cache(stage.cache, Fault.NONE) as (good, _r):
        done, found, paths = stage.trace(bad, good)
    complaints = set(found["KP-TRACE-TROUBLED", bad]["evidence"]["complaints"])
    assert complaints <= BODIES[case], done.stderr[-2000:]
    assert paths["top"]["served_by"] == good


def test_nix_build_and_nixos_rebuild_are_traced_too(stage, tmp_path):
    """nixos-rebuild hands `--log-format` and `-v` on to Nix: its stand-in does only that."""
    script = tmp_path / "nixos-rebuild"
    script.write_text('#!/bin/sh\n[ "$1" = build ] || exit 64\nshift\nexec nix-build "$@"\n')
    script.chmod(0o755)
    for command in (["nix-build"], [str(script), "build"]):
        stage.forget()
        with bad_cache(stage.cache, Fault.NONE) as (good, _):
            done, found, paths = stage.trace(good, command=[*command, stage.file, "-o", stage.link])
        assert done.returncode == 0, done.stderr
        assert ("KP-TRACE-SERVED", good) in found
        assert paths["top"]["served_by"] == good
        assert "copying path" in done.stderr


@pytest.fixture
def far(stage, nix, tmp_path, monkeypatch):
    """Another machine by ssh: the same store directory, with another store in it."""
    require_root()
    for name in ("store", "var"):
        (tmp_path / "far" / name).mkdir(parents=True)
    binds = " && ".join(f"mount --bind {tmp_path}/far/{name} {nix.root / name}" for name in ("store", "var"))
    environment = {**nix.env, "HOME": str(tmp_path / "far")}
    with sshd.running(tmp_path / "sshd", require("sshd"), environment, before=binds) as server:
        stage.nix.env["NIX_SSHOPTS"] = server.nix_sshopts
        yield server


PROTOCOLS = ("ssh", "ssh-ng")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_remote_builder_built_is_said(stage, far, protocol):
    builder = f"{protocol}://root@127.0.0.1"
    system = stage.nix.eval_json("builtins.currentSystem")
    options = ["--option", "builders", f"{builder} {system} - 1 1", "--option", "max-jobs", "0"]
    gates = ["--max-local-builds", "0"]
    done, found, paths = stage.trace("", options=gates, nix_options=options)
    assert done.returncode == 0, done.stderr
    remote = {name for name, entry in paths.items() if entry["origin"] == "remote build"}
    assert remote == {"a.drv", "big.drv", "top.drv"}, paths
    assert {paths[name]["machine"].partition("?")[0] for name in remote} == {builder}
    assert found["KP-GATE-HELD", "--max-local-builds 0"]["evidence"]["seen"] == 0
    assert not [code for code, _ in found if code == "KP-TRACE-TROUBLED"]
    assert {paths[name]["origin"] for name in ("a", "big", "top")} == {"remote builder"}
    assert "it built and sent 3 paths" in found["KP-TRACE-SERVED", builder]["summary"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_machines_store_as_substituter(stage, far, nix, protocol):
    store = f"{protocol}://root@127.0.0.1"
    nix.run("nix-build", stage.file, "-o", stage.link)
    nix.run("nix", "copy", "--to", store, "--no-check-sigs", stage.link.readlink())
    stage.forget()
    done, found, paths = stage.trace(store, options=["--require", store])
    assert done.returncode == 0, done.stderr
    assert ("KP-GATE-HELD", f"--require {store}") in found
    assert {paths[name]["served_by"] for name in ("a", "big", "top")} == {store}


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
