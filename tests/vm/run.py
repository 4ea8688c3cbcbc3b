"""Run the script of a check as the NixOS test driver does: the machines and a few functions are its globals."""

from __future__ import annotations

import contextlib
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.vm.evaluated import Check
from tests.vm.machine import Machine, retry
from tests.vm.real_programs import make_disk
from tests.vm.vlan import Vlan


class SubtestError(Exception):
    """A part of a script failed: its name, and what it says."""


@contextlib.contextmanager
def booted(
    check: Check, image: Path, qemu: Path, folder: Path, log: Callable[[str], None] = print
) -> Iterator[dict[str, Machine]]:
    """Give a check's machines, which start when they are used, and are off afterwards."""
    vlan = Vlan(folder)
    disks: dict[str, Path] = {}
    for name in check.nodes:
        if packages := check.real(name):
            disks[name] = folder / f"{name}.programs"
            make_disk(packages, disks[name])
            log(f"{name}: has the real {', '.join(packages)}")
    if stand_ins := check.stand_ins():
        log(f"skipped: what stands in for a real program, or is not there: {', '.join(stand_ins)}")
    machines = {
        name: Machine(
            name=name,
            image=image,
            folder=folder / name,
            files=check.files(name),
            vlan=vlan,
            index=index,
            programs=disks.get(name),
            memory=check.nodes[name]["memorySize"],
            qemu=qemu,
            log=log,
        )
        for index, name in enumerate(sorted(check.nodes), 1)
    }
    try:
        yield machines
    finally:
        for machine in machines.values():
            machine.release()
        vlan.close()


def run_check(
    check: Check,
    image: Path,
    qemu: Path,
    folder: Path,
    log: Callable[[str], None] = print,
    then: Callable[[dict[str, Machine]], None] = lambda _: None,
) -> dict[str, float]:
    """Run a check's script, then what `then` does with the machines; give the seconds that each part took.

    The script is the check's own: it may run what it likes. A line `skipped: …` that it prints goes to `log` too,
    as does everything that it does.
    """
    times: dict[str, float] = {}

    @contextlib.contextmanager
    def subtest(name: str) -> Iterator[None]:
        log(f"subtest: {name}")
        start = time.monotonic()
        try:
            yield
        except Exception as error:
            raise SubtestError(f"{name}: {type(error).__name__}: {error}") from error
        finally:
            times[name] = time.monotonic() - start

    with booted(check, image, qemu, folder, log) as machines:

        def start_all() -> None:
            for machine in machines.values():
                machine.start()

        names = {
            **{name.replace("-", "_"): machine for name, machine in machines.items()},
            "machines": list(machines.values()),
            "start_all": start_all,
            "subtest": subtest,
            "retry": retry,
            "t": unittest.TestCase(),
            "print": lambda *words: log(" ".join(map(str, words))),
            "__name__": "test_script",
        }
        exec(compile(check.script, f"checks/{check.name}", "exec"), names)
        then(machines)
    return times
