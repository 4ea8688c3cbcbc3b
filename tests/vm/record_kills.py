"""Record what a machine says of its kills for memory: `python -m tests.vm.record_kills FOLDER`.

It runs checks/memory-limits, whose kills are of every kind, and saves the journal in each form that
`kingpost pressure --journal` reads, dmesg, and the counters of the control groups. tests/observe replays them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.real.conftest import Nix, require
from tests.vm.conftest import provided
from tests.vm.evaluated import ROOT, evaluate
from tests.vm.machine import Machine
from tests.vm.run import run_check

FIELDS = "MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_HOSTNAME,_PID,_SYSTEMD_UNIT,_TRANSPORT"
JOURNAL = (
    "journalctl --quiet --no-pager -b --since=\"$(journalctl -b -k -o short-iso -g 'invoked oom-killer'"
    " | head -n 1 | cut -d ' ' -f 1 | cut -c -19 | tr T ' ')\""
    " _TRANSPORT=kernel + _SYSTEMD_UNIT=systemd-oomd.service + _SYSTEMD_UNIT=init.scope"
)
GROUPS = ("jobs.slice", "system.slice", "system.slice/nix-daemon.service", "system.slice/atticd.service")
RECORDED = {
    "journal.json": f"{JOURNAL} -o json --output-fields={FIELDS}",
    "journal.short": JOURNAL,
    "journal.short-iso": f"{JOURNAL} -o short-iso",
    "dmesg": "dmesg | sed -n '/invoked oom-killer/,$p'",
    "memory.events": (
        f"for group in {' '.join(GROUPS)}; do for file in memory.events memory.peak memory.max; do"
        ' sed "s|^|/$group $file |" /sys/fs/cgroup/$group/$file; done; done'
    ),
    "versions": "uname -srm; systemctl --version | head -n 1; docker --version; nix --version; date -u +%F",
}


def short(entries: str) -> str:
    """Leave out what journalctl adds to each entry unasked, but for its time."""
    kept = (
        {key: value for key, value in entry.items() if key in (*FIELDS.split(","), "__REALTIME_TIMESTAMP")}
        for entry in map(json.loads, entries.splitlines())
    )
    return "".join(f"{json.dumps(entry)}\n" for entry in kept)


def main() -> None:
    """Run the check, and write one file for each thing that is recorded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)

    def record(machines: dict[str, Machine]) -> None:
        for name, command in RECORDED.items():
            text = machines["machine"].succeed(command)
            (folder / name).write_text(short(text) if name == "journal.json" else text)

    there = provided()
    with tempfile.TemporaryDirectory(prefix="kp-vm.") as state:
        nix = Nix("2.34", require("nix234"), Path(state) / "nix")
        check = evaluate(nix, ROOT / "checks" / "memory-limits.nix")
        run_check(check, there["image"], there["qemu"], Path(state), then=record)


if __name__ == "__main__":
    sys.exit(main())
