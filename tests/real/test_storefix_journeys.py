"""Whole repairs as a person does them: over ssh, from a peer, below a root, on a store mounted read-only."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.real import sshd as sshd_module
from tests.real.conftest import NIX_VERSIONS, Nix, require, require_root
from tests.storefix.lab import Lab

from kingpost.storefix.cli import main

READ_ONLY = """
set -e
mount --bind $1 $1
mount -o remount,bind,ro $1
shift
"$@"
touch $0 2>&1 && exit 9
exit 0
"""


@pytest.fixture(scope="module", params=list(NIX_VERSIONS))
def built(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("journeys") / "nix"
    return Lab(Nix(request.param, require(NIX_VERSIONS[request.param]), root), size=6, seed=5)


def far(lab, folder, **more):
    """Run an sshd on which this lab is the machine's Nix."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "nix-store").symlink_to(lab.nix.bin / "nix-store")
    environment = {**lab.nix.env, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(folder), **more}
    return sshd_module.running(folder / "sshd", require("sshd"), environment)


def test_plan_and_apply_on_another_machine(lab, tmp_path, monkeypatch, capfd):
    """`kingpost store-fix --host`: the plan comes back here, is read here, and is applied there."""
    lost = sorted(lab.live)[:2]
    lab.lose(*lost)
    folder = tmp_path / "far"
    folder.mkdir()
    plan = tmp_path / "plan.json"
    with far(lab, folder) as server:
        monkeypatch.setenv("NIX_SSHOPTS", server.nix_sshopts)
        before = set(folder.iterdir())
        host = ["--host", "127.0.0.1", "--quiet"]
        source = ["--offline", "--from", f"file://{lab.cache}"]
        assert main(["scan", *host]) == 1
        assert "is registered, but not on disk" in capfd.readouterr().out
        assert main(["plan", "-o", str(plan), "--no-rebuild", *source, *host]) == 1
        actions = json.loads(plan.read_text())["actions"]
        assert {action["subject"] for action in actions if action["kind"] == "fetch"} == set(lost)
        assert main(["apply", str(plan), *source, *host]) == 0
        assert main(["scan", *host]) == 0
        assert set(folder.iterdir()) == before
    lab.assert_sound()


@pytest.fixture
def peer(lab, tmp_path, monkeypatch):
    """A second machine with the same store, undamaged, reached over ssh."""
    copy = tmp_path / "peer"
    copy.mkdir()
    subprocess.run(["cp", "-a", lab.template / "store", lab.template / "var", copy], check=True)
    folder = tmp_path / "far"
    folder.mkdir()
    store = f"local?real={copy}/store&state={copy}/var"
    with far(lab, folder, NIX_REMOTE=store, NIX_STATE_DIR=f"{copy}/var") as server:
        monkeypatch.setitem(lab.nix.env, "NIX_SSHOPTS", server.nix_sshopts)
        yield copy


def test_fetching_from_a_peer(lab, peer):
    """The incident: rows without paths, and no cache has them, but the machine that deployed them does."""
    lost = sorted(lab.live)[:3]
    lab.lose(*lost)
    code, said = lab.run(
        "repair", "--yes", "--no-rebuild", "--offline", "--from", "ssh://127.0.0.1", cache=False
    )
    assert code == 0, said
    lab.assert_sound()


def test_a_peer_with_other_bytes_is_not_believed(lab, peer):
    lost = min(lab.live)
    lab.lose(lost)
    place = peer / "store" / Path(lost).name / "f"
    place.parent.chmod(0o755)
    place.chmod(0o644)
    place.write_text(place.read_text().replace("node", "evil"))
    code, said = lab.run(
        "repair", "--yes", "--no-rebuild", "--offline", "--from", "ssh://127.0.0.1", cache=False
    )
    assert code == 1
    assert not os.path.lexists(lost)
    assert "hash is sha256:" in said
    code, said = lab.run("repair", "--yes", "--no-rebuild", "--offline")
    assert code == 0, said
    lab.assert_sound()


def test_without_any_source_nix_rebuilds(lab):
    lost = sorted(lab.live)[:2]
    lab.lose(*lost)
    code, said = lab.run("repair", "--yes", "--offline", cache=False)
    assert code == 0, said
    lab.assert_sound()


def test_a_store_below_a_root(lab, tmp_path, monkeypatch):
    """As a rescue system sees the mounted disk of another machine; Nix of the rescue system is not needed."""
    disk = tmp_path / "disk"
    environment = {name: value for name, value in lab.nix.env.items() if not name.startswith("NIX_")}
    environment |= {"NIX_CONF_DIR": lab.nix.env["NIX_CONF_DIR"], "NIX_USER_CONF_FILES": "/dev/null"}

    def nix(*words):
        argv = [lab.nix.bin / words[0], "--store", disk, *words[1:]]
        return subprocess.run(
            argv, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    (tmp_path / "file").write_text("on the disk\n")
    path = nix("nix-store", "--add-fixed", "sha256", tmp_path / "file")
    assert path.startswith("/nix/store/")
    cache = tmp_path / "cache"
    nix("nix", "copy", "--to", f"file://{cache}?compression=zstd", path)
    (disk / "etc/nix").mkdir(parents=True)
    (disk / "etc/nix/nix.conf").write_text(f"substituters = file://{cache}\n")
    (disk / path[1:]).unlink()
    # A root that leads in circles keeps nothing alive, and must not keep the repair from its work.
    (disk / "loop").symlink_to("loop")
    (disk / "nix/var/nix/gcroots/auto").mkdir(parents=True, exist_ok=True)
    (disk / "nix/var/nix/gcroots/auto/circle").symlink_to("/loop/result")
    for name in lab.nix.env:
        monkeypatch.delenv(name, raising=False) if name.startswith("NIX_") else None
    assert main(["scan", "--root", str(disk), "--quiet"]) == 1
    assert main(["repair", "--root", str(disk), "--yes", "--quiet", "--no-rebuild"]) == 0
    assert (disk / path[1:]).read_text() == "on the disk\n"
    nix("nix-store", "--verify", "--check-contents")


def test_a_store_that_is_mounted_read_only(lab):
    """As on NixOS, where only Nix itself writes to /nix/store."""
    require_root()
    lost = min(lab.live)
    lab.lose(lost)
    words = ["repair", "--yes", "--quiet", "--no-rebuild", "--offline", "--from", f"file://{lab.cache}"]
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, f"{lab.nix.store}/x"]
    argv += [lab.nix.store, sys.executable, "-m", "kingpost.storefix", *words]
    done = subprocess.run(argv, env=lab.nix.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Read-only file system" in done.stdout, "for everybody else it stays read-only"
    assert os.path.lexists(lost)
    lab.assert_sound()


def test_the_far_side_may_be_gone(monkeypatch, capsys):
    monkeypatch.setenv("NIX_SSHOPTS", "-F none -o BatchMode=yes -p 1")
    assert main(["scan", "--host", "127.0.0.1"]) == 3
    assert "store-fix could not be sent there" in capsys.readouterr().err
