"""How long `kingpost generate` takes for a fleet, against a peer in the same run, and whether it grows with the fleet.

    benchmarks/render_fleet.py [HOSTS]     default: 1000

The peer is the least that a program needs which writes the same tree: it starts, imports Jinja2 and compiles the
templates, finds every file's context ready in memory, renders it with Jinja2 alone and writes it. Where kingpost uses
a template the peer uses the same one; where kingpost writes a format by construction (TOML, YAML, nix.conf, Markdown)
the peer's template loops over the finished lines. kingpost is measured as a process, from its start to its end, with
all that the peer need not do: import, load, check, derive, and write so that a kill leaves the old tree or the new.

Seconds are the processor's, so that what else runs on the machine counts little, and each figure is the least of
several runs. Files are in memory (/dev/shm) where there is such a thing: a disk has moods. The exit code is 1 when a
bound is broken.

The bound of 3 is held against this peer, which writes. Against rendering alone, without a file written, the ratio is
about twice as large: it is printed below it, and has no bound that it would meet.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _fleet import fleet
from jinja2 import Environment, Template

from kingpost.render.environment import environment, templates

MEMORY = Path("/dev/shm")
RUNS = 3
STARTS = 20
LINES = Environment(autoescape=False, keep_trailing_newline=True).from_string(
    "{% for line in lines %}{{ line }}{% endfor %}"
)


COMPILE = """
import sys
from jinja2 import Environment, FileSystemLoader
templates = Environment(loader=FileSystemLoader(sys.argv[1]))
templates.filters.update(dict.fromkeys(sys.argv[2:], str))
for name in templates.list_templates(extensions=["j2"]):
    templates.get_template(name)
"""


class Process:
    """One run of a command: the processor's seconds, and peak memory in bytes."""

    def __init__(self, *argv: object):
        child = subprocess.Popen([*map(str, argv)], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        self.seconds = usage.ru_utime + usage.ru_stime
        self.memory = usage.ru_maxrss * 1024
        if child.returncode:
            sys.exit(f"{argv} ended with {child.returncode}")


def generate(topology: Path, output: Path) -> Process:
    return Process(sys.executable, "-m", "kingpost", "generate", topology, "-o", output)


def contexts(topology: Path) -> dict[str, tuple[Template, dict[str, object]]]:
    """Give each file's template and its context, by the file's path."""
    from kingpost.render.site import render_site
    from kingpost.topology.loader import load
    from kingpost.topology.platform import Platform

    made: dict[str, tuple[Template, dict[str, object]]] = {}
    render = Template.render

    def recorded(template: Template, *arguments, **values):
        text = render(template, *arguments, **values)
        made[text] = (template, dict(*arguments, **values))
        return text

    Template.render = recorded
    try:
        files = render_site(Platform(load(topology).topology))
    finally:
        Template.render = render
    return {
        path: made.get(text) or (LINES, {"lines": text.splitlines(keepends=True)})
        for path, text in files.items()
    }


def peer(ready: dict[str, tuple[Template, dict[str, object]]], output: Path) -> tuple[float, float]:
    """Render and write every file; give the seconds of rendering alone, and of both."""
    before = time.process_time()
    texts = {path: template.render(values) for path, (template, values) in ready.items()}
    rendered = time.process_time()
    for path, text in texts.items():
        target = output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return rendered - before, time.process_time() - before


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

        ready = contexts(topologies[hosts])
        compiling = min(
            Process(sys.executable, "-c", COMPILE, templates(), *environment().filters).seconds
            for _ in range(STARTS)
        )
        fresh, again, rendering, writing = [], [], [], []
        double = []
        for run in range(RUNS):
            one, two, by_peer = (root / f"{name}{run}" for name in ("one", "two", "peer"))
            for figures, seconds in zip((rendering, writing), peer(ready, by_peer), strict=True):
                figures.append(seconds)
            fresh.append(generate(topologies[hosts], one))
            again.append(generate(topologies[hosts], one))
            double.append(generate(topologies[2 * hosts], two))
            for tree in (one, two, by_peer):
                shutil.rmtree(tree)
        first = min(process.seconds for process in fresh)
        alone = compiling + min(rendering)
        both = compiling + min(writing)
        print(f"{hosts} hosts, {len(ready)} files")
        report.line("generate, the whole process", first, " s")
        report.line("peer: Jinja2 alone, every context ready, files written", both, " s")
        report.line("generate / peer", first / both, "x", bound=3)
        report.line("generate / the peer without its writing", first / alone, "x")
        report.line("twice the hosts", min(process.seconds for process in double) / first, "x", bound=2.2)
        report.line(
            "second run, nothing changed", min(process.seconds for process in again) / first, "x", bound=0.5
        )
        report.line("peak memory", max(process.memory for process in fresh) / 1e6, " MB", bound=500)
    kingpost = Path(sys.executable).with_name("kingpost")
    version = min(Process(kingpost, "--version").seconds for _ in range(STARTS))
    nothing = min(Process(sys.executable, "-c", "pass").seconds for _ in range(STARTS))
    report.line("kingpost --version / python -c pass", version / nothing, "x", bound=3)
    return report.broken


if __name__ == "__main__":
    sys.exit(main())
