"""What every kind of item shares: questions to a host, and verdicts with both values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kingpost.observe import drift_codes as codes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kingpost.base.codes import Code
    from kingpost.base.verdict import Verdict
    from kingpost.observe.looking import Answer
    from kingpost.render.nix_hosts import OnHost


@dataclass(frozen=True, slots=True)
class Visit:
    """One host: what is declared there, how its programs are called, and what it answered.

    Attributes:
        on: What the topology puts there.
        docker: The docker client's argument list.
        kubectl: Likewise.
        answers: By question.

    """

    on: OnHost
    docker: tuple[str, ...] = ("docker",)
    kubectl: tuple[str, ...] = ("kubectl",)
    answers: Mapping[str, Answer] = field(default_factory=dict)

    def subject(self, item: str) -> str:
        """Name an item: `node1: atticd.service MemoryMax`."""
        return f"{self.on.name}: {item}"

    def same(self, item: str, value: Any) -> Verdict:
        """Say that an item is as declared."""
        evidence = {"declared": value, "operational": value}
        return codes.SAME.verdict(self.subject(item), f"{shown(value)}, as declared", evidence)

    def differs(
        self, code: Code, item: str, declared: Any, operational: Any, *, remedy: str | None = None
    ) -> Verdict:
        """Say that an item is not, with both values."""
        summary = f"declared {shown(declared)}, in operation {shown(operational)}"
        evidence = {"declared": declared, "operational": operational}
        return code.verdict(self.subject(item), summary, evidence, remedy=remedy)

    def compared(self, code: Code, item: str, declared: Any, operational: Any) -> Verdict:
        """Compare two values."""
        if declared == operational:
            return self.same(item, declared)
        return self.differs(code, item, declared, operational)

    def not_asked(self, item: str, why: str) -> Verdict:
        """Say that an item could not be looked at."""
        rights = any(word in why for word in ("ermi", "root", "may not"))
        return codes.NOT_ASKED.verdict(self.subject(item), why, remedy=None if rights else "")


def shown(value: Any) -> str:
    """Give a value for a sentence."""
    if value is None or value == "":
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)
