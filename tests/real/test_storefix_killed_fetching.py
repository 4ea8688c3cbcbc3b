"""kill -9 while paths are fetched and exchanged: at every kind of step, and at steps in between."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.real.conftest import NIX_VERSIONS, Nix, require
from tests.storefix.lab import Lab

CHILD = """
import os, sys, threading
from kingpost.storefix import effects
from kingpost.storefix.cli import main
last, names, steps = int(sys.argv[1]), sys.argv[2], 0
lock = threading.Lock()  # several paths are fetched at once

def boundary(name):
    global steps
    with lock:
        steps += 1
        with open(names, "a") as file:
            file.write(name + "\\n")
        if steps == last:
            os.kill(os.getpid(), 9)

effects.boundary = boundary
sys.exit(main(sys.argv[3:]))
"""
EXTRA = int(os.environ.get("KINGPOST_SOAK_STEPS", "6"))
"""Steps to kill at besides the first of each kind."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    root = tmp_path_factory.mktemp("killed") / "nix"
    lab = Lab(Nix("2.34", require(NIX_VERSIONS["2.34"]), root), size=6, seed=7)
    lab.live_paths = sorted(lab.live)
    return lab


def damage(lab):
    """Lose two live paths and spoil a third, which is in use; make the plan that mends them."""
    lab.reset()
    lab.lose(*lab.live_paths[1:3])
    lab.rewrite(f"{lab.live_paths[0]}/f", b"damaged\n")
    plan = lab.nix.root / "plan.json"
    code, said = lab.run("plan", "-o", plan, "--contents", "--no-rebuild", "--offline")
    assert code == 1, said
    return plan


def apply_until(lab, plan, last):
    """Apply the plan in a process that dies at step `last`; give its exit code and the steps it took."""
    names = lab.nix.root / "steps"
    names.unlink(missing_ok=True)
    argv = [sys.executable, "-c", CHILD, str(last), str(names), "apply", str(plan), "--offline", "--quiet"]
    argv += ["--from", f"file://{lab.cache}"]
    done = subprocess.run(argv, env=lab.nix.env, capture_output=True, text=True, check=False)
    return done.returncode, names.read_text().splitlines()


def test_whenever_it_is_killed_the_next_run_comes_to_the_same_end(lab):
    code, steps = apply_until(lab, damage(lab), 0)
    assert code == 0
    lab.assert_sound(gc=False)
    expected = lab.rows("select path, hash from ValidPaths order by path")
    chosen = {steps.index(name) + 1 for name in steps}
    chosen |= set(range(1, len(steps) + 1, max(1, len(steps) // EXTRA)))
    assert {"unpack file", "unpacked", "flushed", "exchange", "exchanged", "committed"} <= set(steps)
    for last in sorted(chosen):
        plan = damage(lab)
        code, _ = apply_until(lab, plan, last)
        assert code == -9
        assert os.path.lexists(lab.live_paths[0]), (
            f"killed at step {last}, {steps[last - 1]}: a path in use is gone"
        )
        # Either the same plan again or a new one brings it to the same end.
        words = (
            ["apply", plan, "--offline"]
            if last % 2
            else ["repair", "--yes", "--contents", "--no-rebuild", "--offline"]
        )
        code, said = lab.run(*words)
        assert code == 0, f"killed at step {last}, {steps[last - 1]}\n{said}"
        assert lab.rows("select path, hash from ValidPaths order by path") == expected
        names = {place.name for place in lab.nix.store.iterdir()}
        left = names - {Path(path).name for path, _ in expected} - {".links", ".store-fix"}
        assert left == set(), f"killed at step {last}, {steps[last - 1]}"
    lab.assert_sound()
