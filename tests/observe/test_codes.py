"""What fails, and what only looks like it, has all four parts of its page: symptom, cause, told apart, remedy."""

from __future__ import annotations

import pytest

from kingpost.base.codes import Code
from kingpost.base.verdict import Status
from kingpost.observe import doctor_codes, drift_codes, pressure_codes, trace_codes

MODULES = (doctor_codes, drift_codes, pressure_codes, trace_codes)
CODES = [one for module in MODULES for one in vars(module).values() if isinstance(one, Code)]
TOLD = [one for one in CODES if one.status in {Status.FAILED, Status.EXPECTED}]


@pytest.mark.parametrize(
    "code", [one for one in CODES if one.status in {Status.FAILED, Status.EXPECTED}], ids=lambda one: one.name
)
def test_a_code_tells_why_and_what_to_do(code):
    assert code.symptom
    assert code.cause
    assert code.told_apart
    assert code.remedy
