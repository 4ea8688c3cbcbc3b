"""Secret files: there, owned and readable as declared, and of the right shape. A value never leaves its host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from kingpost.observe import drift_codes as codes
from kingpost.observe.looking import Question, answer_to, words
from kingpost.render.secret_files import secret_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.base.verdict import Verdict
    from kingpost.observe.drift_items import Visit
    from kingpost.render.secret_files import SecretUse

_SHAPE: Final = Path(__file__).parent / "inside" / "secret.sh"
_RAW: Final = {
    "empty": "it is empty",
    "carriage-returns": "it has carriage returns: Windows line ends",
    "byte-order-mark": "it begins with a byte order mark",
    "several-newlines": "it has more than one line",
    "several-lines": "it has more than one line",
    "assignments": "it holds NAME=value where the bare value belongs",
    "odd-characters": "it has a blank, a quote or another character that no token has",
}
_ENV: Final = {
    "empty": "it is empty",
    "carriage-returns": "it has carriage returns: Windows line ends",
    "byte-order-mark": "it begins with a byte order mark",
    "other-lines": "it has a line that is no NAME=value",
}


def questions(visit: Visit) -> Iterator[Question]:
    """Ask for the shape of each secret."""
    script = _SHAPE.read_text(encoding="utf-8")
    for name, use in visit.on.secrets.items():
        path, held = secret_path(name, use.secret), use.secret.variables
        yield Question(f"secret {name}", f"set -- {words((path, *held))}\n{script}")


def judge(visit: Visit) -> Iterator[Verdict]:
    """Compare presence, access and shape."""
    for name, use in visit.on.secrets.items():
        answer = answer_to(visit.answers, f"secret {name}")
        facts = answer.text.splitlines()
        if "missing" in facts:
            path = secret_path(name, use.secret)
            yield visit.differs(codes.SECRET_MISSING, f"secret {name}", path, None)
            continue
        yield from _access(visit, name, use, facts)
        if answer.code:
            yield visit.not_asked(f"secret {name} shape", answer.why)
        else:
            yield from _shape(visit, name, use, set(facts))


def _access(visit: Visit, name: str, use: SecretUse, facts: list[str]) -> Iterator[Verdict]:
    seen = next((fact.split()[1:] for fact in facts if fact.startswith("access ")), None)
    if seen is None:
        return
    secret = use.secret
    declared = f"{secret.owner}:{secret.group} {int(secret.mode, 8):04o}"
    yield visit.compared(
        codes.SECRET_ACCESS, f"secret {name} owner and mode", declared, f"{seen[0]} {int(seen[1], 8):04o}"
    )


def _shape(visit: Visit, name: str, use: SecretUse, facts: set[str]) -> Iterator[Verdict]:
    item, secret = f"secret {name} shape", use.secret
    wrong = [text for fact, text in (_RAW if secret.format == "raw" else _ENV).items() if fact in facts]
    if secret.format == "env":
        wrong += [f"there are blanks around the = of {v}" for v in secret.variables if f"blanks {v}" in facts]
        for variable in secret.variables:
            if f"variable {variable}" not in facts:
                yield visit.differs(codes.SECRET_VARIABLE, f"secret {name} {variable}", "a value", None)
    if wrong:
        yield visit.differs(codes.SECRET_SHAPE, item, secret.format, "; ".join(dict.fromkeys(wrong)))
    elif secret.format == "raw" and "final-newline" in facts:
        yield visit.differs(codes.SECRET_NEWLINE, item, "the bare value", "the value and a newline")
    else:
        yield visit.same(item, secret.format)
