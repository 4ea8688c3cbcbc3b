"""A log of 1,000,000 events: seconds and memory of `kingpost trace --log`, beside reading the same JSON alone."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EVENTS = 1_000_000
SCRIPT = "import json,sys\nfor line in open(sys.argv[1]): json.loads(line[5:])"


def write_log(path: Path, events: int) -> None:
    """Write a run that copies paths with progress in between, as Nix 2.34 logs it."""
    with path.open("w") as file:
        number = 0
        while number < events:
            store = f"/nix/store/{number:032x}-package-{number}"
            base, copy, transfer = "https://cache.example.org", number + 1, number + 2
            lines = [
                {"action": "start", "id": number, "type": 109, "level": 4, "fields": [store, base], "parent": 0},
                {"action": "stop", "id": number},
                {"action": "start", "id": copy, "type": 100, "level": 3, "fields": [store, base, "local"]},
                {"action": "start", "id": transfer, "type": 101, "level": 4, "parent": copy,
                 "fields": [f"{base}/nar/{number}.nar"]},
                *({"action": "result", "id": transfer, "type": 105, "fields": [n, 94, 0, 0]} for n in range(94)),
                {"action": "stop", "id": transfer},
                {"action": "stop", "id": copy},
            ]  # fmt: skip
            file.writelines(f"@nix {json.dumps(line)}\n" for line in lines)
            number += len(lines)


def timed(*argv: object) -> float:
    start = time.monotonic()
    subprocess.run([str(a) for a in argv], stdout=subprocess.DEVNULL, check=False)
    return time.monotonic() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        write_log(log, EVENTS)
        alone = timed(sys.executable, "-c", SCRIPT, log)
        seconds = timed(sys.executable, "-m", "kingpost", "trace", "--log", log, "--json", "--no-ledger")
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"trace: {EVENTS:,} events in {seconds:.1f} s (goal: under 15), {seconds / alone:.2f}x parsing the JSON alone"
    )
    print(f"trace: at most {memory:.0f} MiB (goal: under 200)")


if __name__ == "__main__":
    main()
