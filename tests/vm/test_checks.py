"""The checks of checks/ on machines that are emulated here, with what the modules evaluate to."""

from __future__ import annotations

import pytest

from tests.vm.evaluated import ROOT, evaluate
from tests.vm.real_programs import missing
from tests.vm.run import run_check

NEEDS = {
    "attic-environment": ("attic-server", "attic-client", "rclone"),
    "cache-integrity": ("attic-server", "attic-client", "rclone"),
}
"""Checks that prove nothing of a stand-in: without the real programs they are evaluated only, and skipped by name."""

CHECKS = sorted(path.stem for path in (ROOT / "checks").glob("*.nix"))


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", CHECKS)
def test_check(name, nix_new, machines):
    check = evaluate(nix_new, ROOT / "checks" / f"{name}.nix")
    if lacking := missing(NEEDS.get(name, ())):
        pytest.skip(f"{name}: Debian does not have, and this machine neither: {lacking}")
    image, qemu, folder = machines
    times = run_check(check, image, qemu, folder)
    for part, seconds in times.items():
        print(f"{seconds:6.1f} s  {part}")
