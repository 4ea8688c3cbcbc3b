"""Render a platform's NixOS modules: a folder of small ones per host, and what exposes them to a flake."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kingpost.render import nix_buckets, nix_checks, nix_services, nix_system, nix_text
from kingpost.render.environment import render
from kingpost.render.layout import MODULES as MODULES_FOLDER
from kingpost.render.layout import host_directory
from kingpost.render.nix_hosts import OnHost, by_host
from kingpost.render.sources import templates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kingpost.topology.platform import Platform

MODULES: Final[dict[str, Callable[[OnHost], str | None]]] = {
    "atticd.nix": nix_services.atticd,
    "bucket.nix": nix_buckets.bucket_server,
    "bucket-check.nix": nix_checks.bucket_check,
    "cache-audit.nix": nix_checks.cache_audit,
    "docker.nix": nix_system.docker,
    "firewall.nix": nix_system.firewall,
    "gitlab-runner.nix": nix_services.gitlab_runner,
    "k3s.nix": nix_services.k3s,
    "limits.nix": nix_system.limits,
    "nix.nix": nix_system.nix_daemon,
    "secrets.nix": nix_services.secrets,
    "store-fix.nix": nix_checks.store_fix,
    "tunnels.nix": nix_services.tunnels,
}
"""Every module of a host by its file; a function gives None where the host has no such thing."""

_FROM_HOST: Final = re.compile(rf"\.\./\.\./{MODULES_FOLDER}/([a-z-]+\.[a-z]+)")
_FROM_MODULE: Final = re.compile(r"[\s{(]\./((?:[a-z-]+/)*[a-z-]+\.[a-z]+)")


def render_nix(platform: Platform) -> dict[str, str]:
    """Give every Nix file of a platform, and kingpost's own that they import: path in the tree to text.

    `hosts/<host>/gitlab-runner.nix` reads `hosts/<host>/gitlab-runner.toml`, which is not rendered here.

    Raises:
        InvalidInputError: Something that NixOS has one of per host is declared twice on one.

    """
    files: dict[str, str] = {}
    hosts = by_host(platform)
    for name, on in hosts.items():
        folder = host_directory(name)
        made = {file: text for file, module in MODULES.items() if (text := module(on)) is not None}
        files |= {f"{folder}/{file}": text for file, text in made.items()}
        files[f"{folder}/default.nix"] = render(
            "nix/host.nix.j2",
            modules=[nix_text.path(f"./{file}") for file in made],
            state_version=on.host.state_version,
        )
    modules = {name: nix_text.path(f"./{host_directory(name)}") for name in hosts}
    files["default.nix"] = render("nix/site.nix.j2", modules=modules)
    files["flake-module.nix"] = render("nix/flake-module.nix.j2", modules=modules)
    return files | own_files(files.values())


def own_files(texts: Iterable[str]) -> dict[str, str]:
    """Give kingpost's own modules and scripts that Nix files import from the tree, and what those import."""
    found: dict[str, str] = {}
    wanted = {name for text in texts for name in _FROM_HOST.findall(text)}
    while wanted:
        name = wanted.pop()
        text = found[f"{MODULES_FOLDER}/{name}"] = (templates() / "modules" / name).read_text(
            encoding="utf-8"
        )
        folder = name.rpartition("/")[0]
        others = {f"{folder}/{other}".lstrip("/") for other in _FROM_MODULE.findall(text)}
        wanted |= {other for other in others if f"{MODULES_FOLDER}/{other}" not in found}
    return dict(sorted(found.items()))
