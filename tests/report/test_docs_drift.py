"""The page about drift and pressure names only codes and options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from kingpost.cli.main import build
from kingpost.report import reference

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "drift-and-pressure.md").read_text(encoding="utf-8")


def test_every_code_and_link_is_real():
    told = set(re.findall(r"KP-[A-Z]+(?:-[A-Z]+)+", PAGE))
    assert told
    assert told <= {code.name for code in reference.declared()}
    for target in re.findall(r"\]\(([\w.-]+)\)", PAGE):
        assert (DOCS / target).exists()


def test_every_option_is_real():
    app = typer.main.get_command(build(["drift", "pressure"]))
    commands = app.commands.values()
    known = {word for c in commands for p in c.params for word in (*p.opts, *p.secondary_opts)}
    told = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", PAGE)) - {"--gc", "--print-dead"}  # nix-store's
    assert told <= known


def test_the_remedies_shown_are_those_of_the_code():
    texts = " ".join(code.remedy for code in reference.declared())
    shown = [line for line in re.findall(r"(?m)^ +do:   (.*)$", PAGE) if not line.startswith("raise ")]
    assert len(shown) == 7
    for remedy in shown:
        assert remedy in texts
