"""Where kingpost's own templates, modules and scripts are, from which it renders."""

from __future__ import annotations

from pathlib import Path


def templates() -> Path:
    """Give the folder of the templates: in the wheel beside the code, in a clone at its root."""
    package = Path(__file__).parents[1]
    installed = package / "templates"
    return installed if installed.is_dir() else package.parents[1] / "templates"
