"""How long `kingpost generate` takes for a fleet, against a peer in the same run, and whether it grows with the fleet.

    benchmarks/render_fleet.py [HOSTS]     default: 1000

The peer renders the same files with Jinja2 alone (see `_peer.py`): a process starts, imports Jinja2 and compiles the
templates; then every file's context is ready in memory and is rendered, and nothing is written. kingpost is measured as
a process, from its start to its end, with all that the peer need not do: import, load, check, derive, render, and write
so that a kill leaves the old tree or the new. A second peer has less to do than any template: where kingpost writes a
format by construction (TOML, YAML, nix.conf, Markdown) it is handed the finished lines and only joins them.

A fleet is rendered in two processes, so both kinds of seconds are printed: those on the clock, which the bound of 3
is held against and which need two processors that are free, and the processors' together, which have no bound and
tell what a machine with one processor, or a busy one, would take. Below them stands the peer that also writes its
files, one after the other and none durable. Each figure is the least of several runs, taken in turn. Files are in
memory (/dev/shm) where there is such a thing: a disk has moods. Python's compiled modules are kept, as installing
does. The exit code is 1 when a bound is broken.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from _fleet import fleet
from _peer import Ready, contexts, finished

from kingpost.render.environment import environment
from kingpost.render.sources import templates
from kingpost.topology.loader import load
from kingpost.topology.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Iterable

MEMORY = Path("/dev/shm")
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
RUNS = int(os.environ.get("KINGPOST_RUNS", "5"))
STARTS = 20

COMPILE = """
import sys
from jinja2 import Environment, FileSystemLoader
templates = Environment(loader=FileSystemLoader(sys.argv[1]))
templates.filters.update(dict.fromkeys(sys.argv[2:], str))
for name in templates.list_templates(extensions=["j2"]):
    templates.get_template(name)
"""


@dataclass
class Seconds:
    """What something took: on the clock, and of all processors."""

    clock: float = math.inf
    processor: float = math.inf

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.clock + other.clock, self.processor + other.processor)

    @classmethod
    def now(cls) -> Seconds:
        return cls(time.perf_counter(), time.process_time())

    def since(self, before: Seconds) -> Seconds:
        return Seconds(self.clock - before.clock, self.processor - before.processor)

    @classmethod
    def least(cls, of: Iterable[Seconds]) -> Seconds:
        found = list(of)
        return cls(min(one.clock for one in found), min(one.processor for one in found))


class Process:
    """One run of a command with its children: its seconds, and the peak memory of the largest in bytes."""

    def __init__(self, *argv: object):
        before = time.perf_counter()
        child = subprocess.Popen([*map(str, argv)], stdout=subprocess.DEVNULL, env=COMPILED)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        self.seconds = Seconds(time.perf_counter() - before, usage.ru_utime + usage.ru_stime)
        self.memory = usage.ru_maxrss * 1024
        if child.returncode:
            sys.exit(f"{argv} ended with {child.returncode}")


def generate(topology: Path, output: Path) -> Process:
    return Process(sys.executable, "-m", "kingpost", "generate", topology, "-o", output)


def peer(ready: Ready, output: Path) -> tuple[Seconds, Seconds]:
    """Render and write every file; give the seconds of rendering alone, and of both."""
    before = Seconds.now()
    texts = {path: template.render(values) for path, (template, values) in ready.items()}
    rendered = Seconds.now()
    for path, text in texts.items():
        target = output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return rendered.since(before), Seconds.now().since(before)


class Report:
    """Prints figures with their bounds, and remembers whether one was broken."""

    broken = False

    def line(self, what: str, figure: float, unit: str = "", *, bound: float | None = None) -> None:
        verdict = ""
        if bound is not None:
            verdict = f"at most {bound:g}{unit}: {'ok' if figure <= bound else 'BROKEN'}"
            self.broken |= figure > bound
        print(f"{what:<62} {figure:8.2f}{unit:<3} {verdict}")


def main() -> int:
    hosts = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    report = Report()
    memory = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="kingpost-bench-", dir=memory) as folder:
        root = Path(folder)
        topologies = {}
        for size in (hosts, 2 * hosts):
            topologies[size] = root / f"{size}.toml"
            topologies[size].write_text(fleet(size))

        ready = contexts(Platform(load(topologies[hosts]).topology))
        handed = finished(ready)
        compiling, fresh, again, double, rendering, writing, joining = [], [], [], [], [], [], []
        for run in range(RUNS):
            one, two, by_peer, by_other = (root / f"{name}{run}" for name in ("one", "two", "peer", "other"))
            compiling += [
                Process(sys.executable, "-c", COMPILE, templates(), *environment().filters).seconds
                for _ in range(STARTS // RUNS + 1)
            ]
            for figures, seconds in zip((rendering, writing), peer(ready, by_peer), strict=True):
                figures.append(seconds)
            joining.append(peer(handed, by_other)[0])
            fresh.append(generate(topologies[hosts], one))
            again.append(generate(topologies[hosts], one))
            double.append(generate(topologies[2 * hosts], two))
            for tree in (one, two, by_peer, by_other):
                shutil.rmtree(tree)
        first, second, twice = (
            Seconds.least(process.seconds for process in runs) for runs in (fresh, again, double)
        )
        start = Seconds.least(compiling)
        alone = start + Seconds.least(rendering)
        both = start + Seconds.least(writing)
        joined = start + Seconds.least(joining)
        print(f"{hosts} hosts, {len(ready)} files")
        report.line("peer: Jinja2 alone, every context ready, nothing written", alone.clock, " s")
        report.line("generate, the whole process", first.clock, " s")
        report.line("generate / peer, on the clock", first.clock / alone.clock, "x", bound=3)
        report.line("generate / peer, processor time", first.processor / alone.processor, "x")
        report.line(
            "generate / a peer that is handed finished lines, on the clock", first.clock / joined.clock, "x"
        )
        report.line(
            "generate / a peer that also writes, processor time", first.processor / both.processor, "x"
        )
        report.line("twice the hosts, on the clock", twice.clock / first.clock, "x", bound=2.2)
        report.line("twice the hosts, processor time", twice.processor / first.processor, "x", bound=2.2)
        report.line("second run, nothing changed, on the clock", second.clock / first.clock, "x", bound=0.5)
        report.line(
            "second run, nothing changed, processor time", second.processor / first.processor, "x", bound=0.5
        )
        memory = 2 * max(process.memory for process in fresh)
        report.line("peak memory, twice that of the larger process", memory / 1e6, " MB", bound=500)
    kingpost = Path(sys.executable).with_name("kingpost")
    version = Seconds.least(Process(kingpost, "--version").seconds for _ in range(STARTS))
    nothing = Seconds.least(Process(sys.executable, "-c", "pass").seconds for _ in range(STARTS))
    report.line("kingpost --version / python -c pass", version.processor / nothing.processor, "x", bound=3)
    return report.broken


if __name__ == "__main__":
    sys.exit(main())
