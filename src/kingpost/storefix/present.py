"""What a person reads: a summary in plain words first, details after, the next command at the end."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Callable, TextIO

from . import findings
from . import plan as plans
from .progress import amount, duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .apply import Outcome
    from .findings import Finding
    from .plan import Action, Plan
    from .scan import Scan
    from .undo import Undone

Command = Callable[[str], str]
"""Gives the whole command line of a next step."""

_SHOWN = 20  # of each kind, unless all are asked for

_DOES = {
    plans.SALVAGE: "save what can be read of the database into a new one",
    plans.CLEAN: "remove what was left behind",
    plans.FETCH: "bring the bytes back from a source",
    plans.FORGET: "delete rows that belong to nothing",
    plans.REGISTER: "register what is on disk and proven",
    plans.ADOPT: "register what is on disk, unproven, as you asked",
    plans.RESTATE: "set references or size right",
    plans.DROP: "deregister what is lost and needed by nothing",
    plans.CUT: "give up, as you allowed",
    plans.UNROOT: "move a dead link out of the way",
    plans.REBUILD: "have Nix build it again",
}


class Paper:
    """Where text goes, in colour if that is a terminal and NO_COLOR is not set.

    Args:
        stream: Where to.
        full: Show everything, not the first of many.

    """

    def __init__(self, stream: TextIO, *, full: bool = False) -> None:
        self._stream = stream
        self._colours = stream.isatty() and "NO_COLOR" not in os.environ
        self.full = full

    def line(self, text: str = "") -> None:
        """Print a line; what no terminal should get is shown as an escape."""
        print(printable(text), file=self._stream)

    def head(self, text: str, colour: str = "1") -> None:
        """Print a line that stands out."""
        text = printable(text)
        print(f"\033[{colour}m{text}\033[0m" if self._colours else text, file=self._stream)

    def some(self, lines: list[str], indent: str = "  ") -> None:
        """Print lines, the first of many unless all are wanted."""
        shown = lines if self.full else lines[:_SHOWN]
        for text in shown:
            self.line(indent + text)
        if len(lines) > len(shown):
            self.line(f"{indent}… and {len(lines) - len(shown):,} more (--full shows all)")


def printable(text: str) -> str:
    """Give a text that a terminal can show whatever a file was named: controls and odd bytes as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _needed(labels: Iterable[str]) -> str:
    names = list(labels)
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"  [needed by: {', '.join(names[:3])}{more}]"


def show_scan(paper: Paper, scan: Scan, command: Command) -> None:
    """Show what a scan found."""
    problems = [finding for finding in scan.findings if finding.severity == findings.PROBLEM]
    notes = [finding for finding in scan.findings if finding.severity == findings.NOTE]
    looked = f"{scan.rows:,} registered paths, {scan.names:,} names on disk"
    looked += ", contents hashed" if scan.hashed else ""
    if problems:
        paper.head(f"This store is damaged: {_summary(problems)}.", "1;31")
    else:
        paper.head("This store is healthy.", "1;32")
    paper.line(f"{scan.store.store_dir} at {scan.store.real_store}: {looked}, {duration(scan.seconds)}.")
    _show_groups(paper, problems)
    if notes:
        paper.line()
        paper.head("Worth knowing, but no damage:")
        _show_groups(paper, notes)
    paper.line()
    if problems:
        paper.line(f"Next: {command('plan -o plan.json')}   (what would be done; nothing is changed by it)")
    elif not scan.hashed:
        few = f"Contents were looked at only of the {scan.recent} paths that were registered last."
        paper.line(f"{few} Next, if you want all: {command('scan --contents')}")


def _summary(problems: list[Finding]) -> str:
    counts = Counter(finding.code for finding in problems)
    return "; ".join(f"{count:,} {findings.EXPLAINED[code]}" for code, count in counts.items())


def _show_groups(paper: Paper, some: list[Finding]) -> None:
    for code in dict.fromkeys(finding.code for finding in some):
        group = [finding for finding in some if finding.code == code]
        paper.line()
        paper.line(f"{findings.EXPLAINED[code]} ({len(group):,}, {code}):")
        paper.some([f"{item.subject}: {item.summary}{_needed(item.needed_by)}" for item in group])


def show_plan(paper: Paper, plan: Plan) -> None:
    """Show what a plan does, what is lost by it and what it leaves."""
    counts = Counter(action.kind for action in plan.actions)
    if not plan.actions and not plan.left:
        paper.head("There is nothing to do.", "1;32")
        return
    size = sum(action.info.nar_size for action in plan.of(plans.FETCH) if action.info)
    paper.head(f"Plan {plan.id}: {len(plan.actions):,} actions, {len(plan.left):,} problems left.")
    for kind in plans.ORDER:
        if counts[kind]:
            extra = f", {amount(size, 'bytes')}" if kind == plans.FETCH else ""
            paper.line(f"  {counts[kind]:>7,}  {kind}: {_DOES[kind]}{extra}")
    losses = [action for action in plan.actions if action.loses]
    paper.line()
    if losses:
        paper.head("What is lost by it:", "1;33")
        paper.some([f"{action.subject}: {action.loses}{_needed(action.needed_by)}" for action in losses])
    else:
        paper.line("Nothing is lost by it.")
    for kind in plans.ORDER:
        actions = plan.of(kind)
        if actions:
            paper.line()
            paper.line(f"{kind} ({_DOES[kind]}):")
            paper.some([_action(action) for action in actions])
    if plan.left:
        _show_left(paper, plan)
    for source, reason in plan.unreached.items():
        paper.line(f"{source} did not answer: {reason}")


def _show_left(paper: Paper, plan: Plan) -> None:
    paper.line()
    paper.head("Left as it is:", "1;33")
    for left in plan.left if paper.full else plan.left[:_SHOWN]:
        paper.line(f"  {left.subject}: {left.reason}{_needed(left.needed_by)}")
        paper.line(f"    fix: {left.fix}")
    if len(plan.left) > _SHOWN and not paper.full:
        paper.line(f"  … and {len(plan.left) - _SHOWN:,} more (--full shows all)")


def _action(action: Action) -> str:
    return f"{action.subject}: {action.reason}{_needed(action.needed_by)}"


def show_outcome(paper: Paper, outcome: Outcome) -> None:
    """Show what came of a plan."""
    counts = Counter(action.kind for action in outcome.done)
    done = ", ".join(f"{counts[kind]:,} {kind}" for kind in plans.ORDER if counts[kind]) or "nothing"
    colour = "1;33" if outcome.failed else "1;32"
    paper.head(f"Done: {done}." + (f" Not done: {len(outcome.failed):,}." if outcome.failed else ""), colour)
    paper.some([f"{action.kind} {action.subject}: {reason}" for action, reason in outcome.failed])
    paper.line(f"Backup of the database before it: {outcome.run.directory}")
    if outcome.aside:
        paper.line(f"Damaged copies were moved to {outcome.aside}; the next garbage collection removes them.")


def show_undone(paper: Paper, undone: Undone, command: Command) -> None:
    """Show what undo did."""
    paper.head(f"The database is as it was before {undone.run.directory.name}.", "1;32")
    paper.line(f"{undone.moved:,} copies were moved back to their place.")
    paper.some([f"{place} is gone: a garbage collection removed it" for place in undone.missing])
    paper.line()
    paper.line(f"Next: {command('scan')}")
