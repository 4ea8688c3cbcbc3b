"""What checks/ import is what `kingpost generate` writes."""

from __future__ import annotations

import pytest
from tools.rendered_checks import FOLDER, TOPOLOGIES, rendered


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_what_the_checks_import_is_what_generate_writes(name):
    wanted = {path: text for path, text in rendered().items() if path.startswith(f"{name}/")}
    found = {
        str(path.relative_to(FOLDER)): path.read_text(encoding="utf-8")
        for path in (FOLDER / name / "hosts").rglob("*")
        if path.is_file()
    }
    assert found == wanted, "run: python -m tools.rendered_checks"
    assert (FOLDER / name / "modules").resolve() == FOLDER.parents[1] / "modules"
