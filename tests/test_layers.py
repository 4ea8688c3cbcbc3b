"""A module imports only from layers below its own; storefix imports nothing but the standard library and itself."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "kingpost"

# From the bottom up (ARCHITECTURE.md, "Layers").
LAYERS = ("base", "topology", "render", "cache", "observe", "repair", "report", "cli")
APART = "storefix"
# Of the standard library, but younger than the Python 3.9 that storefix must start on: only inside functions.
YOUNG = {"annotationlib", "compression", "tomllib"}


def package_of(path: Path) -> tuple[str, ...]:
    """Give the package that a module's relative imports start from: ("kingpost", "storefix", "sources")."""
    return ("kingpost", *path.relative_to(SOURCE).parent.parts)


def imported(tree: ast.AST, package: tuple[str, ...]) -> list[tuple[ast.stmt, str]]:
    """Give (statement, absolute module name) of every import, those in functions and under TYPE_CHECKING too."""
    found: list[tuple[ast.stmt, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, node.module) if node.module else base)
            # `from kingpost import cli` names the layer only behind `import`.
            deeper = module == "kingpost" or node.level
            found += [(node, f"{module}.{alias.name}" if deeper else module) for alias in node.names]
    return found


def layer_of(module: str) -> str | None:
    """Give the layer of `kingpost.LAYER…`; None for what has none, such as `kingpost.__version__`."""
    part = module.split(".")[1] if module.startswith("kingpost.") else None
    return part if part in (*LAYERS, APART) else None


def is_standard(module: str, *, late: bool) -> bool:
    """Tell whether every Python since 3.9 has a module; the young ones only count when imported `late`."""
    top = module.split(".", maxsplit=1)[0]
    return late if top in YOUNG else top in sys.stdlib_module_names


def violations(path: Path, text: str) -> list[str]:
    """Give a line for each import that a module may not make."""
    own = layer_of(".".join((*package_of(path), path.stem)))
    found = []
    for statement, module in imported(ast.parse(text), package_of(path)):
        theirs = layer_of(module)
        where = f"{path}:{statement.lineno}"
        if own == APART:
            if theirs != APART and not is_standard(module, late=statement.col_offset > 0):
                found.append(f"{where}: storefix imports {module}")
            elif theirs == APART and getattr(statement, "level", 0) == 0:
                found.append(f"{where}: storefix imports itself by its full name, and ships under another")
        elif own == "cli" or theirs is None:
            continue
        elif theirs == APART or own is None or LAYERS.index(theirs) > LAYERS.index(own):
            found.append(f"{where}: {own or 'the root'} imports {module}, which is not below it")
    return found


def test_every_import_goes_down():
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name != "__main__.py":  # it is the command line's other door
            found += violations(path, path.read_text())
    assert found == []


def test_every_folder_is_a_layer():
    folders = {path.parent.relative_to(SOURCE).parts[0] for path in SOURCE.glob("*/*.py")}
    assert folders == {*LAYERS, APART}


@pytest.mark.parametrize(
    ("module", "line", "is_wrong"),
    [
        ("topology/x.py", "import kingpost.render.tree", True),
        ("topology/x.py", "from kingpost.render.tree import write", True),
        ("topology/x.py", "from kingpost.render import tree", True),
        ("topology/x.py", "from kingpost import render", True),
        ("topology/x.py", "from ..render import tree", True),
        ("topology/x.py", "from .. import cli", True),
        ("topology/checks/x.py", "from ...observe import probe", True),
        ("base/x.py", "if TYPE_CHECKING:\n    from kingpost.topology.model import Topology", True),
        ("base/x.py", "def late():\n    import kingpost.cli.main", True),
        ("__init__.py", "import kingpost.base.errors", True),
        ("repair/x.py", "from kingpost.report import page", True),
        ("repair/x.py", "from kingpost.storefix import scan", True),
        ("topology/x.py", "from kingpost.base import errors", False),
        ("topology/x.py", "from kingpost.topology.model import Topology", False),
        ("topology/checks/x.py", "from ..model import Topology", False),
        ("topology/x.py", "from kingpost import __version__", False),
        ("topology/x.py", "import pydantic", False),
        ("cli/x.py", "from kingpost.storefix import main", False),
        ("cli/x.py", "from kingpost.report import page", False),
        ("storefix/x.py", "import pydantic", True),
        ("storefix/x.py", "from kingpost.base import process", True),
        ("storefix/x.py", "from ..base import process", True),
        ("storefix/x.py", "from kingpost.storefix.errors import Problem", True),
        ("storefix/x.py", "import tomllib", True),
        ("storefix/x.py", "def late():\n    import httpx", True),
        ("storefix/x.py", "def late():\n    from compression import zstd", False),
        ("storefix/x.py", "import sqlite3", False),
        ("storefix/x.py", "from .errors import Problem", False),
        ("storefix/sources/x.py", "from ..errors import Problem", False),
        ("storefix/sources/x.py", "from . import nar", False),
    ],
)
def test_the_checker_itself(module, line, is_wrong):
    assert bool(violations(SOURCE / module, line)) is is_wrong
