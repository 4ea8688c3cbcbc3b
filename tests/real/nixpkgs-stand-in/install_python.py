"""Install a Python project as nixpkgs' hooks and hatchling would, as far as pyproject.toml tells; no pip, no network.

Reads the derivation's variables src, out, requirements ("name==version" of what flake.nix gives), pythonImportsCheck,
shellPath. Fails when a declared dependency is not given or too old (pythonRuntimeDepsCheckHook does), when a
file that the wheel is made of is not in src, or when an import or `--version` fails.
"""

# ruff: noqa: SIM112 - a derivation's variables are named as Nix writes them

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

source, out = Path(os.environ["src"]), Path(os.environ["out"])
project = tomllib.loads((source / "pyproject.toml").read_text())


def numbers(version):
    return [int(part) for part in re.findall(r"\d+", version)]


given = dict(text.split("==") for text in os.environ["requirements"].split())
for requirement in [*project["build-system"]["requires"], *project["project"]["dependencies"]]:
    name, _, least = requirement.partition(">=")
    if name not in given:
        sys.exit(f"{requirement} is not among the dependencies that flake.nix gives")
    if numbers(given[name]) < numbers(least):
        sys.exit(f"{requirement} not satisfied by version {given[name]}")

for name in (project["project"]["readme"], "LICENSE"):
    (source / name).read_text()

library = out / "lib"
wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
for package in wheel["packages"]:
    shutil.copytree(source / package, library / Path(package).name)
for origin, target in wheel["force-include"].items():
    shutil.copytree(source / origin, library / target)

programs = out / "bin"
programs.mkdir()
for name, entry in project["project"]["scripts"].items():
    module, function = entry.split(":")
    code = f"import sys; from {module} import {function}; sys.exit({function}())"
    program = programs / name
    program.write_text(
        f'#!{os.environ["shellPath"]}\nPYTHONPATH={library} exec {sys.executable} -P -c "{code}" "$@"\n'
    )
    program.chmod(0o555)

for module in os.environ["pythonImportsCheck"].split():
    code = f"import {module}; assert {module}.__file__.startswith({str(out)!r})"
    subprocess.run([sys.executable, "-P", "-c", code], env={"PYTHONPATH": str(library)}, check=True)
told = subprocess.run(
    [programs / os.environ["pname"], "--version"], check=True, capture_output=True, text=True
)
if os.environ["version"] not in told.stdout:
    sys.exit(f"--version says {told.stdout!r}, flake.nix says {os.environ['version']}")
