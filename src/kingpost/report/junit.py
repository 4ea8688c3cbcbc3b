"""Verdicts as JUnit XML, which GitLab shows in a merge request: a finding is a test case."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from kingpost.base.verdict import Status, count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kingpost.base.verdict import Verdict

#: XML 1.0 has no way at all to write these characters.
_ILLEGAL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(command: str, verdicts: Sequence[Verdict]) -> str:
    """Give the document. `expected` is a passed case whose output says why; `skipped` is skipped."""
    counts = count(verdicts)
    totals = {
        "tests": str(len(verdicts)),
        "failures": str(counts["failed"]),
        "skipped": str(counts["skipped"]),
    }
    root = ET.Element("testsuites", {"name": "kingpost", **totals})
    suite = ET.SubElement(root, "testsuite", {"name": _legal(f"kingpost {command}"), "errors": "0", **totals})
    for verdict in verdicts:
        name = {"classname": verdict.code, "name": _legal(verdict.subject)}
        case = ET.SubElement(suite, "testcase", name)
        if verdict.status is Status.FAILED:
            message = {"message": _legal(verdict.summary), "type": verdict.code}
            ET.SubElement(case, "failure", message).text = _details(verdict)
        elif verdict.status is Status.SKIPPED:
            ET.SubElement(case, "skipped", {"message": _legal(verdict.summary)})
        elif verdict.status is Status.EXPECTED:
            ET.SubElement(case, "system-out").text = _legal(f"expected: {verdict.summary}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _details(verdict: Verdict) -> str:
    lines = [verdict.summary, *(f"{key}: {json.dumps(value)}" for key, value in verdict.evidence.items())]
    if verdict.remedy:
        lines.append(f"do: {verdict.remedy}")
    return _legal("\n".join(lines))


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
