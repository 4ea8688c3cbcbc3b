"""Evaluate rendered NixOS modules with a real Nix, against the stand-in for nixpkgs or a real one."""

from __future__ import annotations

import json
import os
from pathlib import Path

from kingpost.render.nix_files import render_nix
from kingpost.render.runner_config import render_runners
from kingpost.topology.loader import load
from kingpost.topology.platform import Platform

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STAND_IN = HERE / "nixos-stand-in"
LIB = Path(os.environ.get("NIXPKGS_LIB", STAND_IN / "lib.nix"))
USERS = '{ users.users = { ann.home = "/home/ann"; bob = { }; root = { }; _svc = { }; x-1 = { }; }; }'

PACKAGES = """{
  kingpost = { type = "derivation"; name = "kingpost"; outPath = "/kingpost"; };
  kingpost-store-fix = { type = "derivation"; name = "store-fix"; outPath = "/store-fix"; };
}"""
"""What kingpost's overlay gives a host."""

PER_BUILD = {
    "site": {"name": "x", "substituters": ["attic:home/main"]},
    "hosts": {"box": {"memory": "8GiB", "docker": {}}},
    "attic": {
        "home": {"host": "box", "port": 8080, "secret": "s", "caches": {"main": {"public": True}}},
    },
    "runners": {
        "blog": {
            "executor": "docker",
            "host": "box",
            "image": "a",
            "network": "per-build",
            "token": "t",
        },
    },
    "secrets": {
        "s": {"provider": "sops-nix", "source": "secrets/all.yaml"},
        "t": {"provider": "sops-nix", "source": "secrets/runner.env", "variables": ["CI_SERVER_TOKEN"]},
    },
}


def write(tree: Path, platform: Platform) -> None:
    """Write a platform's modules, and the config.toml that they read."""
    for path, text in {**render_nix(platform), **render_runners(platform)}.items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="")


def evaluate(nix, trees: dict[str, tuple[Path, Platform]], extra=USERS, check=True):
    """Evaluate every host of every tree in one Nix process: {tree: {host: configuration}}."""
    lines = []
    for name, (tree, _) in trees.items():
        site = f"(import {tree}/default.nix).nixosModules"
        lines.append(
            f'"{name}" = builtins.mapAttrs (_: module: import {STAND_IN}/evaluate.nix'
            f" {{ inherit module; lib = {LIB}; extra = {extra}; packages = {PACKAGES}; }}) {site};"
        )
    file = nix.root / "all.nix"
    file.write_text("{\n" + "\n".join(lines) + "\n}\n")
    done = nix.run("nix-instantiate", "--eval", "--strict", "--json", file, check=check)
    return json.loads(done.stdout) if check else done


def example(name: str) -> Platform:
    return Platform(load(ROOT / "examples" / name / "topology.toml").topology)


def build(nix, tree: Path, host: str, text: str) -> str:
    """Give a text of a host's configuration `c`, with every script that it names built."""
    expression = (
        f"let c = import {STAND_IN}/evaluate.nix"
        f" {{ module = {tree}/hosts/{host}; lib = {LIB}; packages = {PACKAGES}; }};"
        f' in derivation {{ name = "text"; system = builtins.currentSystem; builder = "/bin/sh"; text = {text};'
        ' passAsFile = [ "text" ]; PATH = "/usr/bin:/bin"; args = [ "-c" "cat $textPath >$out" ]; }'
    )
    out = nix.run("nix-build", "--no-out-link", "-E", expression).stdout.strip()
    return Path(out).read_text()
