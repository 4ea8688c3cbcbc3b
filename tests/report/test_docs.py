"""The pages about caches name only commands, options and codes that exist."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from kingpost.cli.main import build
from kingpost.cli.registry import COMMANDS
from kingpost.report import reference

PAGE = (Path(__file__).parents[2] / "docs" / "caches.md").read_text(encoding="utf-8")


def test_every_code_is_real_and_every_link_leads_somewhere():
    names = {code.name for code in reference.declared()}
    told = set(re.findall(r"KP-[A-Z]+(?:-[A-Z]+)+", PAGE))
    assert told
    assert told <= names
    for target in re.findall(r"\]\(([\w.]+)(?:#[\w-]+)?\)", PAGE):
        assert (Path(__file__).parents[2] / "docs" / target).exists()


def test_every_option_is_real():
    app = typer.main.get_command(build(["cache", "history", "bucket"]))
    options = {option for command in walk(app) for parameter in command.params for option in parameter.opts}
    told = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", PAGE)) - {"--fallback"}  # Nix's
    assert told
    assert told <= options


def walk(command):
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from walk(inner)


def test_every_command_is_real():
    for name in re.findall(r"`kingpost ([a-z-]+)", PAGE) + re.findall(
        r"(?m)^(?:\$ )?kingpost ([a-z-]+)", PAGE
    ):
        assert name in COMMANDS
