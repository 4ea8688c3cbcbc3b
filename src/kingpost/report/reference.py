"""Every verdict code as one page of documentation: `python -m kingpost.report.reference > docs/verdicts.md`."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from itertools import groupby
from typing import Final

import kingpost
from kingpost.base.codes import Code

_HEAD: Final = """\
# Verdicts

Every code that kingpost's observing commands can give. A code never changes its meaning, and always goes with the same
status. `ok` it works; `expected` looks like a failure and is none; `failed` is a failure; `skipped` could not be
looked at and is never counted as ok.

This page is generated from the code: `python -m kingpost.report.reference > docs/verdicts.md`.
"""


def declared() -> list[Code]:
    """Give every code, by name. They are declared in modules whose name ends in `codes`.

    Raises:
        ValueError: Two codes have the same name.

    """
    found: dict[str, Code] = {}
    for module in pkgutil.walk_packages(kingpost.__path__, "kingpost."):
        if not module.name.endswith("_codes"):
            continue
        own = [one for one in vars(import_module(module.name)).values() if isinstance(one, Code)]
        for code in own:
            if found.get(code.name, code) != code:
                raise ValueError(f"{code.name} is declared twice")
            found[code.name] = code
    return [found[name] for name in sorted(found)]


def render(codes: list[Code]) -> str:
    """Give the page: one section for each area (`KP-AREA-…`), one entry for each code."""
    parts = [_HEAD]
    for area, group in groupby(codes, key=lambda code: code.name.split("-")[1]):
        members = list(group)
        parts.append(f"\n## KP-{area}\n\n| code | status | |\n|---|---|---|\n")
        parts += [f"| [{c.name}](#{c.name.lower()}) | {c.status} | {_cell(c.title)} |\n" for c in members]
        parts += [_entry(code) for code in members]
    return "".join(parts)


def _entry(code: Code) -> str:
    lines = [f"\n### {code.name}\n", f"**{code.title}** ({code.status})\n", f"{code.symptom}\n"]
    for label, text in (("Why", code.cause), ("Not to be confused", code.told_apart), ("Do", code.remedy)):
        if text:
            lines.append(f"- {label}: {text}")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    sys.stdout.write(render(declared()))
