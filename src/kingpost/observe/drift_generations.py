"""NixOS generations: what runs against the newest one, and those whose paths are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kingpost.observe import drift_codes as codes
from kingpost.observe.looking import Question, answer_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.base.verdict import Verdict
    from kingpost.observe.drift_items import Visit

_SCRIPT: Final = """
[ -e /run/current-system ] || [ -L /nix/var/nix/profiles/system ] || { echo 'this is no NixOS' >&2; exit 1; }
echo "running $(readlink -f /run/current-system)"
echo "newest $(readlink -f /nix/var/nix/profiles/system)"
echo "kernel $(readlink -f /run/current-system/kernel)"
echo "booted $(readlink -f /run/booted-system/kernel)"
for link in /nix/var/nix/profiles/system-*-link; do
  [ -L "$link" ] || continue
  if [ -e "$link" ]; then state=there; else state=gone; fi
  echo "$state ${link##*/} $(readlink "$link")"
done
"""


def questions(_visit: Visit) -> Iterator[Question]:
    """Ask for the links."""
    yield Question("generations", _SCRIPT)


def judge(visit: Visit) -> Iterator[Verdict]:
    """Compare what runs with the newest, and look for links that lead nowhere."""
    answer = answer_to(visit.answers, "generations")
    if answer.code:
        yield visit.not_asked("generations", answer.why)
        return
    rows = [line.split(" ", 1) for line in answer.text.splitlines() if " " in line]
    said = {kind: value.strip() for kind, value in rows}
    links = [(kind, *value.split(" ", 1)) for kind, value in rows if kind in {"there", "gone"}]
    yield visit.compared(
        codes.GENERATION_OLD, "running generation", said.get("newest", ""), said.get("running", "")
    )
    kernel, booted = said.get("kernel", ""), said.get("booted", "")
    if kernel and booted and kernel != booted:
        yield visit.differs(codes.REBOOT, "kernel", kernel, booted)
    for kind, link, *target in links:
        if kind == "gone":
            where = target[0] if target else ""
            yield codes.GENERATION_GONE.verdict(
                visit.subject(f"generation {link}"), f"{link} points to {where}, which is gone",
                {"declared": where, "operational": None},
            )  # fmt: skip
    if links and all(kind == "there" for kind, *_ in links):
        yield visit.same("paths of generations", f"{len(links)} there")
