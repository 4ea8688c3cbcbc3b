"""docs/verdicts.md is complete and current, and no code is used without being declared."""

from __future__ import annotations

import re
from pathlib import Path

from kingpost.base.verdict import Status
from kingpost.report import reference

ROOT = Path(__file__).parents[2]
LITERAL = re.compile(r"[\"'`](KP-[A-Z0-9]+(?:-[A-Z0-9]+)+)[\"'`]")


def test_the_page_is_current():
    page = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    assert page == reference.render(reference.declared()), (
        "run: python -m kingpost.report.reference > docs/verdicts.md"
    )


def test_every_code_is_declared_once_and_well():
    codes = reference.declared()
    assert len({code.name for code in codes}) == len(codes)
    for code in codes:
        assert re.fullmatch(r"KP-[A-Z0-9]+(-[A-Z0-9]+)+", code.name)
        assert code.symptom.endswith("."), code.name
        assert code.status is not Status.FAILED or code.remedy, f"{code.name}: a failure says what to do"


def test_no_undeclared_code_is_used_or_documented():
    names = {code.name for code in reference.declared()}
    checks = {name for file in (ROOT / "src/kingpost/topology").rglob("*.py") for name in literals(file)}
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    used = {name: str(file.relative_to(ROOT)) for file in files for name in literals(file)}
    # What the checks of a topology say is listed in docs/checks.md.
    assert not {name: file for name, file in used.items() if name not in names | checks | {"KP-AREA-NAME"}}


def literals(file):
    return LITERAL.findall(file.read_text(encoding="utf-8"))
