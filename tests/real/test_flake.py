"""The flake under real Nix, offline: it evaluates, and its packages and apps are built and run.

nixpkgs is replaced by `nixpkgs-stand-in`, whose builders use this machine's shell and Python.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kingpost import __version__

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).parent / "nixpkgs-stand-in"
SYSTEMS = {"x86_64-linux", "aarch64-linux", "aarch64-darwin"}


@pytest.fixture
def flake(tmp_path):
    """A copy of the project, and what `nix` needs to take the stand-in for nixpkgs."""
    project, nixpkgs = tmp_path / "project", tmp_path / "nixpkgs"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project / name, follow_symlinks=False)
    shutil.copytree(STAND_IN, nixpkgs)
    (nixpkgs / "python.nix").write_text(f'"{sys.executable}"\n')
    return Flake(project, nixpkgs)


class Flake:
    def __init__(self, project, nixpkgs):
        self.project = project
        self.nixpkgs = nixpkgs

    @property
    def options(self):
        return ["--override-input", "nixpkgs", f"path:{self.nixpkgs}", "--offline", "--no-write-lock-file"]

    def of(self, attribute):
        return f"path:{self.project}#{attribute}"

    def replace(self, file, old, new):
        path = self.project / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def shown(nix, flake):
    every_system = ["--all-systems"] if nix.version != "2.8" else []  # 2.8 shows them all anyway
    done = nix.run("nix", "flake", "show", "--json", *every_system, f"path:{flake.project}", *flake.options)
    tree = json.loads(done.stdout)
    return tree.get("inventory", tree), done.stderr


def test_every_output_evaluates_on_every_system(nix, flake):
    tree, warnings = shown(nix, flake)
    assert "warning: Git tree" not in warnings
    for output in ("packages", "apps", "checks", "devShells", "formatter"):
        assert set(tree[output]) == SYSTEMS, output
    for system in SYSTEMS:
        assert set(tree["packages"][system]) == {"default", "kingpost", "store-fix"}
        assert tree["packages"][system]["kingpost"]["name"] == f"kingpost-{__version__}"
        assert set(tree["apps"][system]) >= {"default", "generate", "check", "explain", "matrix", "store-fix"}
        assert {"kingpost", "store-fix", "lint", "examples"} <= set(tree["checks"][system])
    assert "default" in tree["nixosModules"]
    assert "default" in tree["overlays"]


def test_flake_check_finds_nothing(nix_new, flake):
    done = nix_new.run(
        "nix", "flake", "check", "--no-build", "--all-systems", f"path:{flake.project}", *flake.options
    )
    complaints = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    ours = [line for line in complaints if "not writing modified lock file" not in line]
    assert ours == []


def test_a_module_and_a_machine_test_for_each_file(nix_new, flake):
    for folder in ("modules", "checks"):
        (flake.project / folder).mkdir(exist_ok=True)
        (flake.project / folder / "sample.nix").write_text("{ lib, ... }: { }\n")
        (flake.project / folder / "README.md").write_text("no module\n")
    tree, _ = shown(nix_new, flake)
    assert {"default", "sample"} <= set(tree["nixosModules"])
    assert "README" not in tree["nixosModules"]
    assert tree["checks"]["x86_64-linux"]["vm-sample"]["name"] == "vm-test"
    assert "vm-sample" not in tree["checks"]["aarch64-darwin"]


def test_each_app_says_what_it_does(nix_new, flake):
    apply = 'apps: builtins.mapAttrs (_: app: app.meta.description or "") apps'
    done = nix_new.run(
        "nix", "eval", "--json", flake.of("apps.x86_64-linux"), "--apply", apply, *flake.options
    )
    described = json.loads(done.stdout)
    assert described
    assert all(described.values()), described


def test_nix_run_generate_renders_a_topology(nix, flake, tmp_path):
    topology = ROOT / "examples" / "minimal" / "topology.toml"
    out = tmp_path / "generated"
    nix.run("nix", "run", flake.of("generate"), *flake.options, "--", topology, "-o", out)
    assert (out / "manifest.json").is_file()
    again = nix.run("nix", "run", flake.of("generate"), *flake.options, "--", topology, "-o", out, "--check")
    assert again.returncode == 0


def test_nix_run_default_is_kingpost(nix_new, flake):
    done = nix_new.run("nix", "run", f"path:{flake.project}", *flake.options, "--", "--version")
    assert done.stdout == f"kingpost {__version__}\n"


def test_nix_run_store_fix_is_one_file_without_kingpost(nix, flake, tmp_path):
    done = nix.run("nix", "run", flake.of("store-fix"), *flake.options, "--", "--help")
    assert "store" in done.stdout
    nix.run("nix", "build", "--out-link", tmp_path / "result", flake.of("store-fix"), *flake.options)
    files = sorted(path.name for path in (tmp_path / "result").resolve().rglob("*") if path.is_file())
    assert files == ["kingpost-store-fix", "kingpost-store-fix.pyz"]


def test_a_dependency_that_the_flake_forgets_fails_the_build(nix_new, flake):
    flake.replace("flake.nix", "            tomlkit\n", "")
    done = nix_new.run("nix", "build", "--no-link", flake.of("kingpost"), *flake.options, check=False)
    assert done.returncode != 0
    assert "tomlkit" in done.stderr


def test_a_dependency_newer_than_nixpkgs_has_fails_the_build(nix_new, flake):
    flake.replace("pyproject.toml", '"pydantic>=2.7"', '"pydantic>=2.99"')
    done = nix_new.run("nix", "build", "--no-link", flake.of("kingpost"), *flake.options, check=False)
    assert done.returncode != 0
    assert "pydantic>=2.99 not satisfied by version" in done.stderr


def test_a_package_that_nixpkgs_lacks_fails_the_evaluation(nix_new, flake):
    flake.replace("flake.nix", "            tomlkit\n", "            tomlkit\n            no-such-thing\n")
    done = nix_new.run("nix", "eval", flake.of("kingpost.drvPath"), *flake.options, check=False)
    assert done.returncode != 0
    assert "no-such-thing" in done.stderr


def test_a_source_that_is_gone_fails_the_evaluation(nix_new, flake):
    shutil.rmtree(flake.project / "templates")
    done = nix_new.run("nix", "eval", flake.of("kingpost.drvPath"), *flake.options, check=False)
    assert done.returncode != 0
    assert "templates does not exist" in done.stderr


def test_the_lock_file_pins_every_input_as_nix_writes_it():
    lock = json.loads((ROOT / "flake.lock").read_text())
    assert (lock["version"], lock["root"]) == (7, "root")
    inputs = set(re.findall(r"^  inputs\.([\w-]+)\.url", (ROOT / "flake.nix").read_text(), re.MULTILINE))
    assert set(lock["nodes"]["root"]) == {"inputs"}
    assert set(lock["nodes"]["root"]["inputs"]) == inputs
    assert set(lock["nodes"]) == inputs | {"root"}
    for name in inputs:
        node = lock["nodes"][name]
        locked, original = node["locked"], node["original"]
        assert set(locked) == {"lastModified", "narHash", "owner", "repo", "rev", "type"}
        assert {key: locked[key] for key in ("owner", "repo", "type")} == {
            key: original[key] for key in ("owner", "repo", "type")
        }
        assert re.fullmatch(r"[0-9a-f]{40}", locked["rev"])
        algorithm, encoded = locked["narHash"].split("-")
        assert (algorithm, len(base64.b64decode(encoded, validate=True))) == ("sha256", 32)
        assert isinstance(locked["lastModified"], int)


def test_nix_reads_the_lock_file_and_would_not_change_it(nix, flake):
    done = nix.run(
        "nix", "flake", "metadata", "--json", f"path:{flake.project}", "--offline", "--no-update-lock-file"
    )
    assert json.loads(done.stdout)["locks"] == json.loads((ROOT / "flake.lock").read_text())


def test_the_examples_render_in_a_build(nix_new, flake, tmp_path):
    result = tmp_path / "result"
    nix_new.run(
        "nix", "build", "--out-link", result, flake.of("checks.x86_64-linux.examples"), *flake.options
    )
    examples = {path.parent.name for path in (ROOT / "examples").glob("*/topology.toml")}
    assert examples == {path.parent.name for path in result.resolve().glob("*/manifest.json")}
