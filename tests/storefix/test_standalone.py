"""store-fix imports nothing but the standard library, relatively, and is Python 3.9."""

import ast
import re
import sys
from pathlib import Path

import pytest

import kingpost.storefix

FOLDER = Path(kingpost.storefix.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_imports_only_the_standard_library_and_itself(path):
    depth = len(path.relative_to(FOLDER).parts)
    optional = {"compression", "zstandard", "brotli", "backports"}  # tried, and done without
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= depth, f"{path}:{node.lineno} imports from the rest of kingpost"
            names = [] if node.level else [node.module]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names | optional, f"{path}:{node.lineno} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_is_python_3_9(path):
    ast.parse(path.read_text(), feature_version=(3, 9))
    assert "from __future__ import annotations" in path.read_text() or path.name == "__init__.py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_statements_number_no_parameters(path):
    # sqlite3 of Python 3.14 refuses a sequence for `?1`.
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "select" in node.value:
            assert not re.search(r"\?\d", node.value), f"{path}:{node.lineno}"
