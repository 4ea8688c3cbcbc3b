"""Every option of modules/ as one page: `python -m tools.modules_reference > docs/modules.md`.

A real Nix evaluates the modules against tests/real/nixos-stand-in; it needs no nixpkgs and no network.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kingpost.render import nix_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[1]
STAND_IN: Final = ROOT / "tests" / "real" / "nixos-stand-in"
MODULES: Final = {file.stem: file for file in sorted((ROOT / "modules").glob("*.nix"))}

_HEAD: Final = """\
# NixOS modules

`modules/` are NixOS modules for the hosts of a platform. What `kingpost generate` renders for a host imports and
configures them, and brings those that it needs along in `generated/modules/`, so that
`(import ./generated).nixosModules.<host>` is all that a host's flake has to import. Each also works alone:

    imports = [ inputs.kingpost.nixosModules.store-fix ];
    kingpost.storeFix.enable = true;

A module that is imported both ways counts once. Each sets nothing until it is told to. What is said here with
`lib.mkDefault` a host may simply say otherwise; a mistake that evaluation can see is an assertion that says what to do.

This page is generated from the modules: `python -m tools.modules_reference > docs/modules.md`.
"""


def expression() -> str:
    """Give the Nix expression whose value `page` takes, as JSON."""
    modules = " ".join(f'"{name}" = {file};' for name, file in MODULES.items())
    return (
        f"import {ROOT}/tools/modules-reference.nix {{ lib = import {STAND_IN}/lib.nix;"
        f" base = {STAND_IN}/options.nix; modules = {{ {modules} }}; }}"
    )


def evaluated() -> Any:
    """Evaluate the expression with the Nix on PATH."""
    command = ["nix-instantiate", "--eval", "--strict", "--json", "-E", expression()]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def page(modules: dict[str, list[dict[str, Any]]]) -> str:
    """Give the page.

    Args:
        modules: By name, its options: name, type, description, default and example.

    """
    parts = [_HEAD, *(_module(name, options) for name, options in modules.items())]
    return "\n".join(parts)


def _module(name: str, options: list[dict[str, Any]]) -> str:
    lines = [f"## {name}", "", introduction(MODULES[name].read_text(encoding="utf-8")), ""]
    for option in options:
        lines += [f"### {_escaped(option['name'])}", "", option["description"].strip(), ""]
        lines.append(f"- Type: {option['type']}")
        lines += _value("Default", option["default"])
        lines += _value("Example", option["example"])
        lines.append("")
    return "\n".join(lines)


def introduction(text: str) -> str:
    """Give the comment that a module begins with, one line for each paragraph's lines."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines).strip()


def _escaped(name: str) -> str:
    return re.sub(r"[<>*]", lambda match: "\\" + match.group(), name)


def _value(label: str, written: dict[str, Any] | None) -> Iterator[str]:
    if written is None:
        return
    text = written["literal"] if "literal" in written else nix_text.nix(written["value"])
    if "\n" in text:
        yield f"- {label}:"
        yield ""
        yield textwrap.indent(f"```nix\n{text}\n```", "  ")
    else:
        yield f"- {label}: `{text}`"


def main(evaluate: Callable[[], Any] = evaluated) -> None:
    """Write the page to standard output."""
    sys.stdout.write(page(evaluate()))


if __name__ == "__main__":
    main()
