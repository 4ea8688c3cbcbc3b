"""Look at the Nix store at boot, repair what loses nothing if that is wanted, and say how it stands.

For any Python since 3.9, standard library only: it runs while the store is damaged. Exit codes are those of
store-fix: 0 healthy, 1 problems, 3 could not look.
"""

# ruff: noqa: T201 - a program of its own, whose output is the journal

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HEALTHY, PROBLEMS, CANNOT_LOOK = 0, 1, 3
COMMAND = "store-fix scan"
SAFE = frozenset({"clean", "fetch", "forget", "register", "restate", "drop"})
"""Kinds of actions that may be done unasked, when they lose nothing: see store-fix's plan."""
SHOWN = 10
HELP = {
    "kingpost_verdict_codes": "Failed verdicts of the last run by code.",
    "kingpost_exit_code": "Exit code of the last run: 0 good, 1 something failed, 3 could not look.",
    "kingpost_finished_seconds": "When the last run ended, in seconds since 1970.",
}
"""As `kingpost … --prometheus` has them: node_exporter wants one help text for a metric."""


def main() -> int:
    """Run the program and give its exit code."""
    parser = argparse.ArgumentParser(prog="store-scan", description="Look at the Nix store at boot.")
    parser.add_argument("--program", required=True, help="store-fix.pyz")
    parser.add_argument("--repair", choices=("none", "safe"), default="none")
    parser.add_argument("--report", help="write what was found, as JSON")
    parser.add_argument("--textfile", help="write metrics for node_exporter")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(CANNOT_LOOK))
    code = CANNOT_LOOK
    scan: dict[str, Any] = {}
    try:
        code, scan = look(options.program)
        if code == PROBLEMS and options.repair == "safe" and repaired(options.program):
            code, scan = look(options.program)
        if options.report and scan:
            write(Path(options.report), json.dumps(scan, indent=1) + "\n")
    finally:  # a look that took too long is no look: the last one must not seem to be this one
        if options.textfile and not published(Path(options.textfile), metrics(code, scan)):
            code = code or PROBLEMS
    findings = scan.get("findings", [])
    for finding in findings[:SHOWN]:
        print(f"{finding['code']} {finding['subject']}: {finding.get('summary', '')}".rstrip(": "))
    if len(findings) > SHOWN:
        print(f"and {len(findings) - SHOWN} more")
    if code == PROBLEMS:
        directory = Path(options.program).absolute().parent
        print(f"The Nix store is damaged. Next: {directory}/store-fix repair", file=sys.stderr)
    return code


def look(program: str) -> tuple[int, dict[str, Any]]:
    """Scan the store; gives the exit code and the report, which is empty if there is none."""
    done = call(program, "scan", "--quiet", "--json")
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        return done.returncode or CANNOT_LOOK, {}


def repaired(program: str) -> bool:
    """Repair the store if that loses nothing; tells whether anything was done."""
    with tempfile.TemporaryDirectory(prefix="kingpost-store-scan.") as directory:
        file = Path(directory) / "plan.json"
        call(program, "plan", "--quiet", "--offline", "--no-rebuild", "--json", "-o", str(file))
        try:
            actions = json.loads(file.read_text(encoding="utf-8"))["actions"]
        except (OSError, ValueError, KeyError):
            return False
        losing = [action for action in actions if action.get("loses") or action["kind"] not in SAFE]
        for action in losing[:SHOWN]:
            reason = action.get("loses") or action["reason"]
            print(f"not done unasked: {action['kind']} {action['subject']}: {reason}")
        if losing or not actions:
            return False
        print(f"repairing: {len(actions)} actions, none of which loses anything", flush=True)
        done = call(program, "apply", "--quiet", "--offline", "--json", str(file))
        return done.returncode in (HEALTHY, PROBLEMS)


def call(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run store-fix with this Python; what it complains of goes to the journal."""
    return subprocess.run(
        [sys.executable, "-I", "-S", program, *arguments], stdout=subprocess.PIPE, text=True, check=False
    )


def metrics(code: int, scan: dict[str, Any]) -> str:
    """Give the text in Prometheus' exposition format."""
    codes = Counter(finding["code"] for finding in scan.get("findings", []))
    samples = {
        "kingpost_verdict_codes": [(f',code="{name}"', number) for name, number in sorted(codes.items())],
        "kingpost_exit_code": [("", code)],
        "kingpost_finished_seconds": [("", int(time.time()))],
    }
    lines = []
    for name, values in samples.items():
        if values:
            lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
        lines += [f'{name}{{command="{COMMAND}"{labels}}} {value}' for labels, value in values]
    return "\n".join(lines) + "\n"


def published(path: Path, text: str) -> bool:
    """Write metrics, into a folder that is made if need be; what keeps them from being written is said."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write(path, text)
    except OSError as error:
        print(f"kingpost: the metrics cannot be written: {error.strerror}", file=sys.stderr)
        print(f"  file: {path}", file=sys.stderr)
        print("  fix: set kingpost.storeFix.textfile to a file in node_exporter's folder", file=sys.stderr)
        return False
    return True


def write(path: Path, text: str) -> None:
    """Replace a file in one step, readable by everybody."""
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=".new.")
    new = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(handle)
        new.chmod(0o644)
        new.replace(path)
    except BaseException:
        new.unlink()
        raise


if __name__ == "__main__":
    sys.exit(main())
