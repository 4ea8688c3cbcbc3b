"""The power is cut at random moments of a copy to the store; a repair ends with a clean store each time.

KINGPOST_POWER_CUTS says how often (`make soak`: 20); KINGPOST_POWER_SEED repeats a run's moments.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.vm.evaluated import ROOT, evaluate
from tests.vm.run import booted

CUTS = int(os.environ.get("KINGPOST_POWER_CUTS", "0"))
STORE_FIX = "/var/lib/kingpost/store-fix"
REPAIR = f"{STORE_FIX} repair --contents --quiet --yes --no-check-sigs --from /var/cache/parts"
COPY = "nix copy --no-check-sigs --from file:///var/cache/parts $(cat /var/parts/top)"


@pytest.mark.skipif(
    not CUTS, reason="run `make soak`, or say with KINGPOST_POWER_CUTS how often to cut the power"
)
@pytest.mark.timeout(0)
def test_every_power_cut_ends_with_a_clean_store(nix_new, machines):
    seed = int(os.environ.get("KINGPOST_POWER_SEED") or time.time())
    moments = random.Random(seed)
    print(f"KINGPOST_POWER_SEED={seed}")
    check = evaluate(nix_new, ROOT / "checks" / "store-fix.nix")
    prepare = {}
    exec(check.script[: check.script.index("SCANNED = ")], prepare)
    image, qemu, folder = machines
    with booted(check, image, qemu, folder) as nodes:
        machine = nodes["machine"]
        machine.wait_for_unit("kingpost-store-fix.service")
        machine.succeed(prepare["CHAIN"])
        start = time.monotonic()
        machine.succeed(COPY)
        whole = time.monotonic() - start
        for number in range(1, CUTS + 1):
            machine.succeed("nix-store --delete $(tac /var/parts/all) >/dev/null 2>&1; sync")
            moment = moments.uniform(0, whole)
            synced = moments.random() < 0.5
            machine.execute(f"({COPY} >/dev/null 2>&1 &) >&2")
            time.sleep(moment)
            if synced:
                machine.execute("sync /nix/var/nix/db/db.sqlite-wal")
            machine.crash()
            machine.start()
            machine.wait_for_unit("multi-user.target")
            _, before = machine.execute("nix-store --verify --check-contents 2>&1")
            machine.succeed("systemctl stop nix-daemon.socket nix-daemon.service")
            machine.succeed(f"{REPAIR} 2>&1", "nix-store --verify --check-contents 2>&1", COPY)
            machine.succeed("nix-store --verify --check-contents 2>&1")
            damaged = before.count("was modified") + before.count("disappeared")
            print(
                f"cut {number} after {moment:.1f} of {whole:.1f} s, {damaged} paths damaged: clean",
                flush=True,
            )
