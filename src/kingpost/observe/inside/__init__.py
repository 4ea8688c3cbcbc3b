"""What runs *inside* a context: sent there as text through stdin, so that nothing is installed or left behind.

`route.py` needs only Python >= 3.6; `route.sh` is for contexts without Python.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent


def route_probe(plan: dict[str, Any]) -> str:
    """Give the shell text that carries out a plan with Python where there is one, else with the shell's tools.

    The plan may hold tokens: they travel in this text, on stdin, never in an argument list.
    """
    source = (_HERE / "route.py").read_text(encoding="utf-8")
    call = f"\nPLAN = json.loads({json.dumps(plan)!r})\nmain(PLAN)\n"
    shell = (_HERE / "route.sh").read_text(encoding="utf-8")
    targets = "\n".join(f"target {_word(t['id'])} {_word(_probe_url(t))}" for t in plan["targets"])
    return (
        "for python in python3 python; do\n"
        '  if "$python" -c "import sys; sys.exit(sys.version_info < (3, 6))" </dev/null 2>/dev/null; then\n'
        "    \"$python\" - <<'KINGPOST-PYTHON'\n"
        f"{source}{call}"
        "KINGPOST-PYTHON\n"
        "    exit $?\n"
        "  fi\n"
        "done\n"
        f"{shell}\n{targets}\nfinish\n"
    )


def _probe_url(target: dict[str, Any]) -> str:
    base = str(target["url"]).rstrip("/")
    cache = f"/{target['cache']}" if target.get("cache") else ""
    return (
        f"{base}{cache}/nix-cache-info"
        if target["kind"] in {"attic", "cachix", "substituter"}
        else f"{base}/"
    )


def _word(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
