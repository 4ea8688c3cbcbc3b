"""Disks that are full, made of layers, or failing: nothing is lost on them, and what is wrong is said."""

import os
import subprocess
import sys

import pytest
from tests.real.conftest import NIX_VERSIONS, Nix, require, require_root
from tests.storefix.lab import Lab


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("disk") / "nix"
    return Lab(Nix("2.34", require(NIX_VERSIONS["2.34"]), root), size=8, seed=3)


FULL = """
set -e
mount -t tmpfs -o size=3m none $STORE
cp -a $TEMPLATE/. $STORE
rm -rf $LOST
dd if=/dev/zero of=$STORE/filler bs=64k 2>/dev/null || true
set +e
"$@"; echo "full: $?"
rm $STORE/filler
"$@"; echo "then: $?"
nix-store --verify --check-contents; echo "nix: $?"
"""


def test_a_disk_that_fills_up_while_fetching(lab):
    require_root()
    lost = min(lab.live)
    argv = [
        sys.executable,
        *["-m", "kingpost.storefix", "repair", "--yes", "--no-rebuild", "--offline", "--quiet", "--from"],
    ]
    argv += [f"file://{lab.cache}"]
    variables = {"STORE": str(lab.nix.store), "TEMPLATE": str(lab.template / "store"), "LOST": lost}
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", FULL, "sh", *argv],
        env={**lab.nix.env, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "full: 1" in done.stdout, done.stdout + done.stderr
    assert "the disk is full" in done.stderr
    assert "nothing was lost" in done.stderr
    assert "then: 0" in done.stdout, done.stdout + done.stderr
    assert "nix: 0" in done.stdout, done.stdout + done.stderr


OVERLAY = """
set -e
mount -t tmpfs none $SCRATCH
mkdir $SCRATCH/upper $SCRATCH/work
mount -t overlay overlay -o lowerdir=$LOWER,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work $STORE
set +e
"$@"; echo "repair: $?"
nix-store --verify --check-contents; echo "nix: $?"
"""


def test_a_store_in_a_layer_of_a_container_image(lab, tmp_path):
    """There a directory of the image cannot be renamed: overlayfs says EXDEV."""
    require_root()
    path = min(lab.live)
    lab.rewrite(f"{path}/f", b"damaged\n")
    lower = tmp_path / "lower"
    subprocess.run(["cp", "-a", lab.nix.store, lower], check=True)
    (tmp_path / "scratch").mkdir()
    argv = [
        sys.executable,
        "-m",
        "kingpost.storefix",
        "repair",
        "--contents",
        "--yes",
        "--no-rebuild",
        "--offline",
    ]
    argv += ["--quiet", "--from", f"file://{lab.cache}"]
    variables = {"STORE": str(lab.nix.store), "LOWER": str(lower), "SCRATCH": str(tmp_path / "scratch")}
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", OVERLAY, "sh", *argv],
        env={**lab.nix.env, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "repair: 0" in done.stdout, done.stdout + done.stderr
    assert "nix: 0" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("call", ["scandir", "readlink", "lstat"])
def test_roots_on_a_failing_disk_are_not_taken_for_none(lab, monkeypatch, call):
    """With its root unreadable, what is alive looks dead: the plan would drop it, and a collection delete it."""
    (lab.nix.state / "gcroots" / "more").mkdir()
    link = lab.nix.state / "gcroots" / "more" / "only"
    dead = sorted(set(lab.paths.values()) - lab.live)
    link.symlink_to(dead[0])
    lab.lose(dead[0])
    before = lab.rows("select path from ValidPaths order by path")
    real = getattr(os, call)
    bad = str(link.parent if call == "scandir" else link)

    def failing(path=".", *args, **options):
        if os.fspath(path) == bad:
            raise OSError(5, "Input/output error", bad)
        return real(path, *args, **options)

    monkeypatch.setattr(os, call, failing)
    code, said = lab.run("repair", "--yes", "--no-rebuild", "--offline", cache=False)
    monkeypatch.undo()
    assert (code, "Input/output error" in said) == (3, True), said
    assert lab.rows("select path from ValidPaths order by path") == before


def test_no_failure_of_the_disk_ends_in_a_traceback(lab, monkeypatch):
    def failing(_path):
        raise OSError(5, "Input/output error", str(lab.nix.store))

    monkeypatch.setattr(os, "statvfs", failing)
    code, said = lab.run("scan")
    assert code == 3
    assert f"{lab.nix.store}: Input/output error" in said
    assert "dmesg" in said
