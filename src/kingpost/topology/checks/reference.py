"""docs/checks.md, written from the checks themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kingpost.topology.checks.example import BASE
from kingpost.topology.checks.registry import CHECKS
from kingpost.topology.checks.scene import dotted
from kingpost.topology.checks.shape import SHAPES, UNREADABLE

if TYPE_CHECKING:
    from kingpost.topology.checks.registry import Check
    from kingpost.topology.checks.shape import Shape

THEMES: Final = {
    "references": "Names and places",
    "network": "Networks",
    "routes": "Routes",
    "binds": "Listeners",
    "nix_mounts": "Nix in containers",
    "secrets": "Secrets",
    "memory": "Memory and limits",
    "runners": "Runners",
    "pushes": "Pushes",
    "tokens": "Tokens",
    "caches": "Caches",
    "clusters": "Clusters",
    "attic_server": "Attic's settings",
    "buckets": "Buckets",
    "deploys": "Deploys",
    "waivers": "Waivers",
}
"""The modules of checks, in the order of the documentation, with their headings."""

_INTRODUCTION: Final = """\
# Checks

<!-- Written by `python -m kingpost.topology.checks`; change the checks, not this file. -->

`kingpost check topology.toml` finds these problems, all at once, each with its place and what to change; the other
commands refuse a topology that has one. A code is stable for ever. The exit code is 0 without a problem and 2 with one.

`--json` prints one document, and nothing else:

```json
{
  "schema": "kingpost.check/1",
  "file": "topology.toml",
  "problems": [
    {
      "code": "KP-RUNNER-IMAGE",
      "file": "topology.toml",
      "line": 12,
      "column": 2,
      "path": ["runners", "blog"],
      "message": "the docker runner blog has no image",
      "why": "what happens otherwise",
      "fix": "what to write instead"
    }
  ]
}
```

Lines and columns count from 1, and are 0 for a `.nix` file; the wording of `message`, `why` and `fix` is not stable.

Codes marked *can be waived* may be permitted for a while, where the platform would work all the same:

```toml
[waivers.state]
code = "KP-BUCKET-SHARED"
on = "buckets.store"                          # the table, or a key in it
reason = "the state moves to a store of its own"
owner = "platform team"
expires = 2027-03-31                          # then it is a problem again
```
"""

_BASE: Final = f"""\
## The topology of the examples

Each example is laid over this one: its tables are merged into these. Every example is a test.

```toml
{BASE}```
"""


def markdown() -> str:
    """Give the whole document."""
    parts = [_INTRODUCTION, _contents(), "## Shape\n", *map(_shape, (UNREADABLE, *SHAPES))]
    for module, heading in THEMES.items():
        parts += [f"## {heading}\n", *(_check(check) for check in _of(module))]
    return "\n".join([*parts, _BASE])


def _of(module: str) -> list[Check]:
    return [check for check in CHECKS.values() if check.find.__module__.rpartition(".")[2] == module]


def _contents() -> str:
    rows = [f"| [{shape.code}](#{shape.code.lower()}) | {shape.title} |" for shape in (UNREADABLE, *SHAPES)]
    for module in THEMES:
        rows += [f"| [{check.code}](#{check.code.lower()}) | {check.title} |" for check in _of(module)]
    return "\n".join(["| Code | Rule |", "| --- | --- |", *rows, ""])


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


def _check(check: Check) -> str:
    waivable = "\n\n*Can be waived.*" if check.waivable else ""
    return (
        f"### {check.code}\n\n**{_sentence(check.title)}**{waivable}\n\n"
        f"Why: {_sentence(check.why)}\n\nFix: {_sentence(check.fix)}\n\n"
        f"Wrong, reported at `{dotted(check.example.at)}`:\n\n```toml\n{check.example.bad.strip()}\n```\n\n"
        f"Right:\n\n```toml\n{check.example.good.strip()}\n```\n"
    )


def _shape(shape: Shape) -> str:
    where = f", reported at `{dotted(shape.at)}`" if shape.at else ""
    return (
        f"### {shape.code}\n\n**{_sentence(shape.title)}**\n\nWhy: {_sentence(shape.why)}\n\n"
        f"Fix: {_sentence(shape.fix)}\n\nWrong{where}:\n\n```toml\n{shape.bad}\n```\n\n"
        f"Right:\n\n```toml\n{shape.good}\n```\n"
    )
