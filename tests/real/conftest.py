"""Fixtures that hand out real programs, and skip by name (never silently) where one is not there."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from tests.storefix.lab import Lab

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)


@cache
def provided() -> dict[str, Path]:
    """Give the bin directory of each real program that is ready (see `provide`)."""
    done = subprocess.run([HERE / "provide"], capture_output=True, text=True, check=True)
    pairs = (line.split("=", 1) for line in done.stdout.splitlines())
    return {name: Path(directory) for name, directory in pairs}


def require(name: str) -> Path:
    """Give a program's bin directory or skip the test, saying how to get it."""
    if name not in provided():
        pytest.skip(f"{name} is not here: run `make real` (as root) first")
    return provided()[name]


def require_program(name: str) -> Path:
    """Give a program that `provide` cannot install, from KINGPOST_NAME or PATH; or skip the test by its name."""
    variable = f"KINGPOST_{name.upper().replace('-', '_')}"
    if named := os.environ.get(variable):
        assert os.access(named, os.X_OK), f"{variable}={named} is no program"
        return Path(named)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: put it on PATH, or name it by {variable}")
    return Path(found)


def require_root() -> None:
    """Skip the test without root, saying why."""
    if os.geteuid():
        pytest.skip("needs root: network namespaces and Docker")


@dataclass
class Nix:
    """A real Nix with a private store, configuration and home below `root`; the machine's /nix is never used.

    Attributes:
        version: "2.8" or "2.34".
        bin: Directory with nix, nix-store, nix-build and the rest.
        root: Everything of this Nix lives below it.
    """

    version: str
    bin: Path
    root: Path
    extra_conf: str = ""
    env: dict[str, str] = field(init=False)

    def __post_init__(self):
        for name in ("store", "var", "log", "conf", "home", "tmp"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "conf" / "nix.conf").write_text(
            "build-users-group =\nsandbox = false\nsubstituters =\n"
            "experimental-features = nix-command flakes\n" + self.extra_conf
        )
        self.env = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "NIX_STORE_DIR": str(self.root / "store"),
            "NIX_STATE_DIR": str(self.root / "var"),
            "NIX_LOG_DIR": str(self.root / "log"),
            "NIX_CONF_DIR": str(self.root / "conf"),
            "NIX_REMOTE": "local",
            "NIX_USER_CONF_FILES": "/dev/null",
            "NIX_PATH": "",
            "LC_ALL": "C.UTF-8",
        }

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def state(self) -> Path:
        return self.root / "var"

    def run(self, *argv, check=True, env=None, stdin=None, timeout=300, **options):
        """Run `nix…` of this version; gives CompletedProcess with text."""
        done = subprocess.run(
            [str(self.bin / argv[0]), *map(str, argv[1:])],
            env={**self.env, **(env or {})},
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **options,
        )
        assert not check or done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done

    def eval_json(self, expression: str, **options):
        """Evaluate an expression with `nix-instantiate --eval --strict --json`."""
        import json

        done = self.run("nix-instantiate", "--eval", "--strict", "--json", "-E", expression, **options)
        return json.loads(done.stdout)


NIX_VERSIONS = {"2.8": "nix28", "2.34": "nix234"}


@pytest.fixture(params=list(NIX_VERSIONS))
def nix(request, tmp_path):
    """Each real Nix in turn, with a private store."""
    return Nix(request.param, require(NIX_VERSIONS[request.param]), tmp_path / f"nix-{request.param}")


@pytest.fixture
def nix_new(tmp_path):
    """The newest real Nix, with a private store."""
    return Nix("2.34", require("nix234"), tmp_path / "nix-2.34")


@pytest.fixture(scope="module", params=list(NIX_VERSIONS))
def built(request, tmp_path_factory):
    """A store to break of each real Nix in turn, for all tests of a module; a module may build another."""
    root = tmp_path_factory.mktemp("lab") / "nix"
    return Lab(Nix(request.param, require(NIX_VERSIONS[request.param]), root))


@pytest.fixture
def lab(built):
    """The module's store, as it was built."""
    built.reset()
    return built
