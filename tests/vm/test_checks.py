"""The checks of checks/ on machines that are emulated here, with what the modules evaluate to."""

from __future__ import annotations

import pytest

from tests.vm.evaluated import ROOT, evaluate
from tests.vm.run import run_check

NEEDS_NIXOS = {
    "attic-environment": "Debian has neither atticd nor garage, and what stands in for them proves nothing here",
}
"""Checks that only NixOS test machines can run (`nix flake check`), and why; here they are evaluated."""

CHECKS = sorted(path.stem for path in (ROOT / "checks").glob("*.nix"))


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", CHECKS)
def test_check(name, nix_new, machines):
    check = evaluate(nix_new, ROOT / "checks" / f"{name}.nix")
    if name in NEEDS_NIXOS:
        pytest.skip(f"{name}: {NEEDS_NIXOS[name]}")
    image, qemu, folder = machines
    times = run_check(check, image, qemu, folder)
    for part, seconds in times.items():
        print(f"{seconds:6.1f} s  {part}")
