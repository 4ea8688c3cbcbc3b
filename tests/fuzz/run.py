"""Fuzz with atheris (libFuzzer): python -m tests.fuzz.run [--seconds N] [TARGET]...

Each target runs in a process of its own for N seconds (default 120), starts from its corpus in tests/fuzz/corpus, and
may use 600 MB. An input that breaks it stays in build/fuzz/TARGET-…, and belongs into the corpus with its fix.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEMORY_MB = 600
INPUT_BYTES = 8192
PATIENCE_SECONDS = 120  # wall-clock: a busy machine is no finding


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args()
    if given.only:
        return fuzz(given.only, given.seconds)
    from tests.fuzz.targets import TARGETS

    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    failed = []
    for name in given.targets or TARGETS:
        print(f"== {name}, {given.seconds} s", flush=True)
        argv = [sys.executable, "-m", "tests.fuzz.run", "--only", name, "--seconds", str(given.seconds)]
        if subprocess.run(argv, cwd=ROOT, check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}; see build/fuzz" if failed else "nothing found")
    return 1 if failed else 0


def fuzz(name: str, seconds: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["kingpost.cache", "kingpost.observe"]):
        from tests.fuzz.targets import TARGETS
    findings = ROOT / "build" / "fuzz"
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kingpost-fuzz-") as grown:
        argv = [
            sys.argv[0], f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MB}", f"-timeout={PATIENCE_SECONDS}",
            f"-max_len={INPUT_BYTES}", f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1",
            "-verbosity=0", grown, str(ROOT / "tests" / "fuzz" / "corpus" / name),
        ]  # fmt: skip
        atheris.Setup(argv, TARGETS[name])
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
