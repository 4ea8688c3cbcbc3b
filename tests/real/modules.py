"""Hosts that have one of the modules of modules/, evaluated and built with a real Nix."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.real.evaluation import LIB, ROOT, STAND_IN

from kingpost.storefix import bundle

MODULES = ROOT / "modules"
NAMES = sorted(file.stem for file in MODULES.glob("*.nix"))

_PACKAGE = """derivation {
  name = "NAME"; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
  args = [ "-c" "COMMAND" ];
}"""


def package(name: str, command: str = "mkdir $out") -> str:
    """Give the expression of a package that a shell command makes in $out."""
    return _PACKAGE.replace("NAME", name).replace(
        "COMMAND", command.replace("\\", "\\\\").replace('"', '\\"')
    )


def store_fix_package(folder: Path) -> str:
    """Give packages with the real one file in them, which is made in a folder."""
    pyz = folder / "store-fix.pyz"
    pyz.write_bytes(bundle.build())
    made = package("store-fix", f"mkdir -p $out/libexec; cp ${{{pyz}}} $out/libexec/kingpost-store-fix.pyz")
    return f"{{ kingpost-store-fix = {made}; }}"


def host(module: str, says: str, packages: str = "{ }") -> str:
    """Give the expression of a host's configuration.

    Args:
        module: Name of our module.
        says: The attributes of the host's own configuration; `lib` and `config` are there.
        packages: A set of further packages, as a Nix expression.

    """
    return (
        f"import {STAND_IN}/evaluate.nix {{ module = {MODULES}/{module}.nix; lib = {LIB};"
        f' extra = {{ config, lib, ... }}: {{ system.stateVersion = "26.05"; {says} }}; packages = {packages}; }}'
    )


def evaluate(nix, module: str, cases: dict[str, str], packages: str = "{ }", select: str = "") -> dict:
    """Evaluate a host for each case in one Nix process: {case: configuration, or what `select` names in it}."""
    members = " ".join(
        f"{json.dumps(name)} = ({host(module, says, packages)}){select};" for name, says in cases.items()
    )
    return nix.eval_json(f"{{ {members} }}")


RUNNER = """
  kingpost.gitlabRunner = {
    enable = true;
    settings.concurrent = 2;
    runners."it's blog" = {
      settings = {
        url = "https://gitlab.example.org";
        executor = "docker";
        docker = { image = "alpine:3.22"; volumes = [ "/cache" ]; };
      };
      hostNix = true;
      token = { file = "FILE"; FORMAT };
    };
    MORE
  };
"""


def runner(file: object = "/run/agenix/runner", token: str = "", more: str = "") -> str:
    """Give what a host says that has a docker runner with a quote in its name."""
    return RUNNER.replace("FILE", str(file)).replace("FORMAT", token).replace("MORE", more)


def failing(assertions) -> list[str]:
    """Give the messages of a host's assertions that fail."""
    return [one["message"] for one in assertions if not one["assertion"]]


def check_complaints(nix, module: str, cases: dict[str, tuple[str, str]], packages: str = "{ }") -> None:
    """Demand that each host is told exactly one thing, which has a phrase in it: {case: (what it says, phrase)}."""
    told = {name: says for name, (says, _) in cases.items()}
    found = evaluate(nix, module, told, packages, ".assertions")
    for name, (_, phrase) in cases.items():
        said = failing(found[name])
        assert len(said) == 1, (name, said)
        assert phrase in said[0], name


def build(nix, module: str, says: str, value: str, packages: str = "{ }") -> str:
    """Give a text, `value` of a host's configuration `c`, with everything that it names built."""
    expression = (
        f"let c = {host(module, says, packages)};"
        ' in derivation { name = "text"; system = builtins.currentSystem; builder = "/bin/sh";'
        f' text = {value}; passAsFile = [ "text" ]; PATH = "/usr/bin:/bin";'
        ' args = [ "-c" "cat $textPath >$out" ]; }'
    )
    return Path(nix.run("nix-build", "--no-out-link", "-E", expression).stdout.strip()).read_text()


def run(command, env=None):
    """Run a program with a clean environment."""
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
