"""What the units of modules/ run when they start, built by real Nix and run against real programs."""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from tests.real.modules import build, package, run, runner, store_fix_package

from kingpost.render.runner_config import DAEMON_VOLUMES
from kingpost.report import prometheus

TOKEN = "glrt-abc_DEF-123"


# store-fix


class Kept:
    """A host's kept tool, and the commands of both units."""

    def __init__(self, nix, tmp_path, more=""):
        self.nix = nix
        self.directory = tmp_path / "kept"
        self.gcroots = tmp_path / "gcroots"
        self.gcroots.mkdir(exist_ok=True)
        says = (
            f'kingpost.storeFix = {{ enable = true; directory = "{self.directory}";'
            f' gcroots = "{self.gcroots}"; {more} }};'
        )
        packages = store_fix_package(tmp_path)
        services = "c.systemd.services"
        self.keep = build(
            nix, "store-fix", says, f'"${{{services}.kingpost-store-fix.serviceConfig.ExecStart}}"', packages
        )
        self.scan = build(
            nix, "store-fix", says, f"{services}.kingpost-store-scan.serviceConfig.ExecStart", packages
        )

    def install(self):
        return run([self.keep])

    def look(self):
        return run(self.scan.split(), self.nix.env)


def test_store_fix_is_kept_outside_the_store_and_as_a_gcroot(nix_new, tmp_path):
    kept = Kept(nix_new, tmp_path)
    assert kept.install().returncode == 0
    assert (kept.directory / "store-fix.pyz").read_bytes() == (tmp_path / "store-fix.pyz").read_bytes()
    root = kept.gcroots / "kingpost-store-fix"
    assert (root.resolve() / "libexec" / "kingpost-store-fix.pyz").is_file()
    help_ = run([kept.directory / "store-fix", "--help"])
    assert help_.returncode == 0
    assert "repair" in help_.stdout
    assert kept.install().returncode == 0
    assert sorted(file.name for file in kept.directory.iterdir()) == [
        "python",
        "store-fix",
        "store-fix.pyz",
        "store-scan.py",
    ]


def test_a_copy_that_works_is_not_replaced_by_one_that_a_power_cut_emptied(nix_new, tmp_path):
    kept = Kept(nix_new, tmp_path)
    kept.install()
    before = (kept.directory / "store-fix.pyz").read_bytes()
    in_store = (kept.gcroots / "kingpost-store-fix").resolve() / "libexec" / "kingpost-store-fix.pyz"
    in_store.chmod(0o644)
    in_store.write_bytes(b"")
    done = kept.install()
    assert done.returncode == 1
    assert "does not work" in done.stderr
    assert (kept.directory / "store-fix.pyz").read_bytes() == before
    assert not list(kept.directory.glob(".new*"))


def test_store_fix_finds_another_python_when_its_own_is_gone(nix_new, tmp_path):
    kept = Kept(nix_new, tmp_path)
    kept.install()
    (kept.directory / "python").write_text("/gone/bin/python3\n")
    assert run([kept.directory / "store-fix", "--help"]).returncode == 0


def test_without_any_python_it_says_so_and_what_to_do(nix_new, tmp_path):
    kept = Kept(nix_new, tmp_path)
    kept.install()
    script = kept.directory / "store-fix"
    # Nothing of this machine is to be found: not by name, and not where others keep it.
    text = re.sub(r"\S*/bin/python3\b", "/gone/python3", script.read_text())
    script.chmod(0o755)
    script.write_text(text)
    (kept.directory / "python").unlink()
    command = ["/bin/sh", script, "--at-boot", "--textfile", tmp_path / "store.prom"]
    done = run(command, {"PATH": "/gone"})
    assert done.returncode == 3
    assert "there is no Python" in done.stderr
    assert "fix: " in done.stderr
    said = (tmp_path / "store.prom").read_text().splitlines()
    assert said[-1] == 'kingpost_exit_code{command="store-fix scan"} 3'
    assert set(said[:-1]) <= set(prometheus.render("x", []).splitlines())


def test_a_look_that_takes_too_long_is_not_taken_for_the_last_one(nix_new, tmp_path):
    kept = Kept(nix_new, tmp_path, more=f'textfile = "{tmp_path}/store.prom";')
    kept.install()
    assert kept.look().returncode == 0
    (kept.directory / "store-fix.pyz").chmod(0o644)
    (kept.directory / "store-fix.pyz").write_text("import time\nprint(flush=True)\ntime.sleep(600)\n")
    (tmp_path / "store.prom").unlink()
    child = subprocess.Popen(kept.scan.split(), env=nix_new.env, stdout=subprocess.DEVNULL)
    process = Path(f"/proc/{child.pid}")
    while not (
        b"store-scan.py" in (process / "cmdline").read_bytes()
        and (process / "task" / process.name / "children").read_text()
    ):
        time.sleep(0.05)
    child.terminate()
    assert child.wait(timeout=30) == 3
    assert 'kingpost_exit_code{command="store-fix scan"} 3' in (tmp_path / "store.prom").read_text()


def test_the_folder_for_metrics_is_made_and_one_that_cannot_be_is_named(nix_new, tmp_path):
    kept = Kept(nix_new, tmp_path, more=f'textfile = "{tmp_path}/not/yet/store.prom";')
    kept.install()
    assert kept.look().returncode == 0
    assert 'kingpost_exit_code{command="store-fix scan"} 0' in (tmp_path / "not/yet/store.prom").read_text()
    (tmp_path / "not/yet/store.prom").unlink()
    (tmp_path / "not/yet").rmdir()
    (tmp_path / "not/yet").write_text("a file")
    done = kept.look()
    assert done.returncode == 1
    assert f"file: {tmp_path}/not/yet/store.prom" in done.stderr
    assert "fix: " in done.stderr
    assert "Traceback" not in done.stderr


def lose_a_path(nix) -> str:
    """Delete what the database says is there; gives the path."""
    path = Path(nix.run("nix-store", "--add", __file__).stdout.strip())
    path.chmod(0o644)
    path.unlink()
    return str(path)


def test_the_scan_at_boot_fails_visibly_on_a_damaged_store(nix, tmp_path):
    kept = Kept(nix, tmp_path, more=f'textfile = "{tmp_path}/store.prom";')
    kept.install()
    healthy = kept.look()
    assert healthy.returncode == 0, healthy.stderr
    metrics = (tmp_path / "store.prom").read_text()
    assert 'kingpost_exit_code{command="store-fix scan"} 0' in metrics.splitlines()
    path = lose_a_path(nix)
    done = kept.look()
    assert done.returncode == 1
    assert path in done.stdout
    assert f"{kept.directory}/store-fix repair" in done.stderr
    report = json.loads((kept.directory / "store-scan.json").read_text())
    assert report["healthy"] is False
    lines = (tmp_path / "store.prom").read_text().splitlines()
    assert 'kingpost_exit_code{command="store-fix scan"} 1' in lines
    codes = [finding["code"] for finding in report["findings"]]
    for code in codes:
        line = f'kingpost_verdict_codes{{command="store-fix scan",code="{code}"}} {codes.count(code)}'
        assert line in lines
    helps = {line.split(" ", 3)[2]: line.split(" ", 3)[3] for line in lines if line.startswith("# HELP")}
    theirs = {line.split(" ", 3)[2]: line.split(" ", 3)[3]
              for line in prometheus.render("x", []).splitlines() if line.startswith("# HELP")}  # fmt: skip
    assert helps["kingpost_exit_code"] == theirs["kingpost_exit_code"]
    assert helps["kingpost_finished_seconds"] == theirs["kingpost_finished_seconds"]
    assert (tmp_path / "store.prom").stat().st_mode & 0o777 == 0o644
    assert nix.run("nix-store", "--check-validity", path).returncode == 0  # looking changed nothing


def test_a_safe_repair_at_boot_mends_what_loses_nothing(nix, tmp_path):
    kept = Kept(nix, tmp_path, more='repair = "safe";')
    kept.install()
    path = lose_a_path(nix)
    done = kept.look()
    assert done.returncode == 0, done.stdout + done.stderr
    assert nix.run("nix-store", "--check-validity", path, check=False).returncode == 1
    assert nix.run("nix-store", "--verify", "--check-contents").returncode == 0
    assert json.loads((kept.directory / "store-scan.json").read_text())["healthy"] is True


def test_a_safe_repair_at_boot_leaves_what_somebody_needs(nix, tmp_path):
    kept = Kept(nix, tmp_path, more='repair = "safe";')
    kept.install()
    path = lose_a_path(nix)
    (nix.state / "gcroots").mkdir(parents=True, exist_ok=True)
    (nix.state / "gcroots" / "needed").symlink_to(path)
    done = kept.look()
    assert done.returncode == 1
    assert nix.run("nix-store", "--check-validity", path).returncode == 0


def test_a_safe_repair_at_boot_gives_up_nothing_that_is_on_disk(nix, tmp_path):
    kept = Kept(nix, tmp_path, more='repair = "safe";')
    kept.install()
    lost = Path(nix.run("nix-store", "--add", __file__).stdout.strip())
    expression = f'builtins.toFile "there" (builtins.storePath {lost})'
    written = nix.run("nix-instantiate", "--eval", "--read-write-mode", "--json", "-E", expression)
    there = json.loads(written.stdout)
    assert nix.run("nix-store", "--query", "--references", there).stdout.strip() == str(lost)
    lost.chmod(0o644)
    lost.unlink()
    done = kept.look()
    assert done.returncode == 1
    assert f"not done unasked: drop {there}" in done.stdout
    assert nix.run("nix-store", "--check-validity", there, lost).returncode == 0


# gitlab-runner


CONFIGURE = "builtins.head c.systemd.services.gitlab-runner.serviceConfig.ExecStartPre"


def start_runner(nix, tmp_path, content: bytes, format_: str):
    """Run what the unit starts with; gives the process and the folder of its configuration."""
    secret = tmp_path / "a secret's file"
    secret.write_bytes(content)
    folder = tmp_path / "home" / ".gitlab-runner"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".runner_system_id").write_text("s_keep")
    script = build(nix, "gitlab-runner", runner(secret, format_), CONFIGURE)
    assert script.startswith("!")
    done = run([script[1:]], {"HOME": str(folder.parent)})
    assert TOKEN not in done.stdout + done.stderr
    return done, folder


@pytest.mark.parametrize(
    ("content", "format_"),
    [
        (f"{TOKEN}\n".encode(), 'format = "raw";'),
        (TOKEN.encode(), 'format = "raw";'),
        (f"CI_SERVER_URL=https://x\nCI_SERVER_TOKEN={TOKEN}\n".encode(), ""),
        (f"TOKEN='{TOKEN}'\n".encode(), 'variable = "TOKEN";'),
    ],
)
def test_the_runner_starts_with_its_token_and_its_old_id(nix_new, tmp_path, content, format_):
    done, folder = start_runner(nix_new, tmp_path, content, format_)
    assert done.returncode == 0, done.stderr
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["concurrent"] == 2
    (made,) = config["runners"]
    assert made["token"] == TOKEN
    assert made["name"] == "it's blog"
    assert made["environment"] == ["NIX_REMOTE=daemon"]
    assert made["docker"]["volumes"] == ["/cache", *DAEMON_VOLUMES]
    assert (folder / "config.toml").stat().st_mode & 0o777 == 0o600
    assert (folder / ".runner_system_id").read_text() == "s_keep"


@pytest.mark.parametrize(
    ("content", "format_", "message"),
    [
        (f"{TOKEN}\r\n".encode(), 'format = "raw";', "carriage returns"),
        (f"CI_SERVER_TOKEN={TOKEN}\r\n".encode(), "", "carriage returns"),
        (f"{TOKEN}\n".encode(), "", "no line CI_SERVER_TOKEN="),
        (f"CI_SERVER_TOKEN={TOKEN}\n".encode(), 'format = "raw";', "a bare token was declared"),
        (f"{TOKEN}\n{TOKEN}\n".encode(), 'format = "raw";', "more than one line"),
        (b"", 'format = "raw";', "empty"),
    ],
)
def test_the_runner_refuses_a_bad_token_and_keeps_what_it_had(nix_new, tmp_path, content, format_, message):
    config = tmp_path / "home" / ".gitlab-runner" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("old")
    done, _ = start_runner(nix_new, tmp_path, content, format_)
    assert done.returncode == 1
    assert message in done.stderr
    assert "fix: " in done.stderr
    assert config.read_text() == "old"


# limits


def test_limits_of_a_mount_are_a_drop_in(nix_new):
    says = 'kingpost.limits.units."data.mount" = { memoryMax = 1073741824; swapMax = 0; };'
    built = build(nix_new, "limits", says, "toString (builtins.head c.systemd.packages)")
    drop_in = Path(built) / "etc/systemd/system/data.mount.d/kingpost.conf"
    assert drop_in.read_text() == "[Mount]\nMemoryMax=1073741824\nMemorySwapMax=0\n"


# atticd


SIGNING = "ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64"
KEY = base64.b64encode(b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n").decode()
CHECK = "builtins.head c.systemd.services.atticd.serviceConfig.ExecStartPre"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({SIGNING: KEY}, ""),
        ({"ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64": "AAECAwQ="}, ""),
        ({}, "there is no secret that signs tokens"),
        ({SIGNING: ""}, "there is no secret that signs tokens"),
        ({SIGNING: KEY + "\r"}, "carriage returns"),
        ({SIGNING: KEY + "\n" + KEY}, "not base64 on one line"),
        ({SIGNING: KEY[:-3]}, "cut short"),
        ({SIGNING: "AAECAwQ="}, "no key in PEM format"),
        ({SIGNING: KEY, "ATTIC_SERVER_TOKEN_RS256_PUBKEY_BASE64": KEY}, "atticd takes the first"),
    ],
)
def test_attic_starts_with_a_secret_that_it_can_sign_with_and_no_other(
    nix_new, tmp_path, environment, message
):
    file = f"{tmp_path}/it's.env"
    says = f'kingpost.atticd = {{ enable = true; environmentFile = "{file}"; }};'
    done = run([build(nix_new, "atticd", says, CHECK)], environment)
    assert done.returncode == (1 if message else 0), done.stderr
    assert message in done.stderr
    if message:
        assert f"file: {file}\n" in done.stderr
        assert "fix: " in done.stderr
    assert KEY[:20] not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (KEY, ""),
        (KEY + "\n", ""),
        (KEY + "\r\n", "carriage returns"),
        (KEY + "\n\n", "not base64 on one line"),
        (f"{SIGNING}={KEY}\n", "declare it as environmentFile"),
        ("", "the secret is empty"),
    ],
)
def test_attics_credential_becomes_its_environment(nix_new, tmp_path, content, message):
    credentials, runtime = tmp_path / "credentials", tmp_path / "runtime"
    credentials.mkdir()
    runtime.mkdir()
    (credentials / "secret").write_text(content, newline="")
    says = 'kingpost.atticd = { enable = true; secretFile = "/run/secret"; };'
    places = {"CREDENTIALS_DIRECTORY": str(credentials), "RUNTIME_DIRECTORY": str(runtime)}
    done = run([build(nix_new, "atticd", says, CHECK)], places)
    assert done.returncode == (1 if message else 0), done.stderr
    assert message in done.stderr
    assert KEY[:20] not in done.stdout + done.stderr
    if message:
        assert not list(runtime.iterdir())
    else:
        assert (runtime / "secret.env").read_text() == f"{SIGNING}={KEY}\n"
        assert (runtime / "secret.env").stat().st_mode & 0o777 == 0o600


# cache-audit and bucket-check


class Timed:
    """An audit of a file:// cache, as its unit runs it."""

    def __init__(self, nix, tmp_path, command=f'exec {sys.executable} -m kingpost "$@"'):
        self.nix = nix
        self.cache = tmp_path / "cache"
        self.metrics = tmp_path / "metrics" / "kingpost-cache-audit-main.prom"
        self.ledger = tmp_path / "state" / "ledger.sqlite"
        path = nix.run("nix-store", "--add", __file__).stdout.strip()
        nix.run("nix", "copy", "--to", f"file://{self.cache}", path)
        says = (
            f'kingpost.cacheAudit = {{ metricsDirectory = "{self.metrics.parent}"; ledger = "{self.ledger}";'
            f' caches.main = {{ url = "file://{self.cache}"; everything = true; }}; }};'
        )
        script = "c.systemd.services.kingpost-cache-audit-main.script"
        made = f"mkdir -p $out/bin; printf '#!/bin/sh\\n%s\\n' '{command}' >$out/bin/kingpost; chmod 555 $out/bin/*"
        packages = f"{{ kingpost = {package('kingpost', made)}; }}"
        self.script = build(nix, "cache-audit", says, script, packages)
        self.runtime = tmp_path / "runtime"
        self.runtime.mkdir()

    def start(self):
        environment = {"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": str(self.runtime)}
        return subprocess.Popen(
            ["bash", "-e", "-c", self.script],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def samples(self) -> list[str]:
        return [line for line in self.metrics.read_text().splitlines() if not line.startswith("#")]

    def exit_code(self) -> str:
        (found,) = (
            line.rsplit(" ", 1)[1] for line in self.samples() if line.startswith("kingpost_exit_code{")
        )
        return found


def test_an_audit_by_the_clock_fails_with_the_cache_and_says_so_in_its_metrics(nix_new, tmp_path):
    timed = Timed(nix_new, tmp_path)
    good = timed.start()
    output = good.communicate(timeout=120)[0]
    assert good.returncode == 0, output
    assert timed.exit_code() == "0"
    for line in timed.samples():
        assert re.match(
            r'kingpost_[a-z_]+\{check="kingpost-cache-audit-main",command="cache audit"[,}]', line
        )
    (nar,) = (timed.cache / "nar").iterdir()
    nar.write_bytes(b"")
    bad = timed.start()
    output = bad.communicate(timeout=120)[0].decode()
    assert bad.returncode == 1
    assert "KP-" in output
    assert timed.exit_code() == "1"
    assert any(line.startswith("kingpost_failed{check=") for line in timed.samples())
    with sqlite3.connect(timed.ledger) as ledger:
        assert [row[0] for row in ledger.execute("SELECT exit_code FROM runs ORDER BY id")] == [0, 1]
    assert [file.name for file in timed.metrics.parent.iterdir()] == [timed.metrics.name]
    assert timed.metrics.stat().st_mode & 0o777 == 0o644


def test_a_run_that_could_not_start_does_not_leave_the_last_good_metrics(nix_new, tmp_path):
    timed = Timed(nix_new, tmp_path, command="exec /gone/kingpost")
    timed.metrics.parent.mkdir()
    timed.metrics.write_text('kingpost_exit_code{check="x"} 0\n')
    child = timed.start()
    child.communicate(timeout=60)
    assert child.returncode == 127
    assert timed.exit_code() == "127"
    ours = timed.metrics.read_text().splitlines()
    theirs = prometheus.render("x", []).splitlines()
    assert {line for line in ours if line[0] == "#"} <= set(theirs)


def test_a_run_that_is_ended_leaves_that_in_its_metrics(nix_new, tmp_path):
    timed = Timed(nix_new, tmp_path, command="echo $$; exec sleep 600")
    child = timed.start()
    inner = int(child.stdout.readline())
    child.terminate()
    child.communicate(timeout=60)
    assert child.returncode == 143
    assert timed.exit_code() == "143"
    with pytest.raises(ProcessLookupError):
        os.kill(inner, 0)
