"""The command line: `store-fix scan | plan | apply | undo | repair`.

Exit codes: 0 healthy, 1 problems found or left, 2 wrong usage, 3 could not look (docs/store-fix.md).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sqlite3
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import EXIT_CANNOT_LOOK, EXIT_HEALTHY, EXIT_PROBLEMS, EXIT_USAGE, StoreFixError, UsageError
from .progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .apply import Outcome
    from .interface import Rebuilder, Settings, Source, StoreRoot
    from .plan import Plan
    from .present import Paper
    from .scan import Scan

PROGRAM = "store-fix"
_ROUNDS = 4  # of scan, plan and apply in one repair: salvage first, then what the new database shows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code.

    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = parser().parse_args(words)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else EXIT_USAGE
    try:
        return _run(options, words)
    except BrokenPipeError:
        sys.stdout = None  # the reader has gone; Python would complain at exit
        return EXIT_PROBLEMS
    except StoreFixError as error:
        said, code = str(error), error.exit_code
    except sqlite3.DatabaseError as error:
        said = f"the database cannot be read: {error}\n  fix: {PROGRAM} scan --contents"
        code = EXIT_PROBLEMS
    except OSError as error:
        said = f"{error.filename or 'the disk'}: {error.strerror or error}\n"
        said += "  fix: read the kernel's log (dmesg), for the disk may be failing or full"
        code = EXIT_CANNOT_LOOK
    except KeyboardInterrupt:
        print(file=sys.stderr)  # behind the ^C of a terminal
        said, code = "interrupted; what was done stays done, the rest is untouched", 130
    print(f"{PROGRAM}: {said}", file=sys.stderr)
    return code


def _run(options: argparse.Namespace, words: list[str]) -> int:
    if options.host:
        from . import remote

        return remote.run(options.host, _without_host(words), sudo=options.sudo)
    if threading.current_thread() is not threading.main_thread():
        return _Program(options).run()
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        return _Program(options).run()
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: what follows is the way out
    raise KeyboardInterrupt


def _without_host(words: list[str]) -> list[str]:
    """Give the arguments for the other machine."""
    kept = []
    rest = iter(words)
    for word in rest:
        if word == "--host":
            next(rest, None)
        elif word != "--sudo" and not word.startswith("--host="):
            kept.append(word)
    return kept


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    where = argparse.ArgumentParser(add_help=False)
    group = where.add_argument_group("which store")
    group.add_argument("--root", metavar="DIR", help="the store below DIR: a mounted disk, a chroot store")
    group.add_argument("--store-dir", metavar="DIR", help="logical store directory (default /nix/store)")
    group.add_argument("--state-dir", metavar="DIR", help="logical state directory (default /nix/var/nix)")
    group.add_argument("--host", metavar="HOST", help="run on another machine, over ssh")
    group.add_argument("--sudo", action="store_true", help="with --host: become root there through sudo")
    show = where.add_argument_group("output")
    show.add_argument("--json", action="store_true", help="one JSON document on standard output")
    show.add_argument("--full", action="store_true", help="show everything, not the first of many")
    show.add_argument("--quiet", action="store_true", help="no progress")

    deciding = argparse.ArgumentParser(add_help=False)
    group = deciding.add_argument_group("decisions")
    group.add_argument("--contents", action="store_true", help="hash every path too")
    group.add_argument(
        "--from", dest="sources", metavar="URL", action="append", default=[],
        help="ask this first: ssh://HOST, https://…, file://…, a directory; may be repeated",
    )  # fmt: skip
    group.add_argument("--offline", action="store_true", help="do not ask the substituters of nix.conf")
    group.add_argument(
        "--no-check-sigs", action="store_true", help="take paths that no trusted key has signed"
    )
    group.add_argument("--no-rebuild", action="store_true", help="do not ask Nix to build anything")
    group.add_argument(
        "--drop-dead", action="store_true", help="do not fetch or rebuild what nothing needs: deregister it"
    )
    group.add_argument(
        "--allow-cut", metavar="PATH", action="append", default=[],
        help="give this path up although something needs it; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--adopt", action="store_true", help="register needed paths on disk for which nobody can vouch"
    )

    writing = argparse.ArgumentParser(add_help=False)
    writing.add_argument(
        "--wait", metavar="SECONDS", type=float, default=0, help="wait so long for Nix to end (default 0)"
    )

    top = argparse.ArgumentParser(prog=PROGRAM, description="Bring a broken Nix store back, without loss.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    scan = commands.add_parser("scan", parents=[where], help="what is wrong; reads only")
    scan.add_argument("--contents", action="store_true", help="hash every path too")
    plan = commands.add_parser("plan", parents=[where, deciding], help="what would be done, and why")
    plan.add_argument("-o", "--output", metavar="FILE", help="write the plan to this file")
    apply = commands.add_parser("apply", parents=[where, writing], help="execute exactly this plan")
    apply.add_argument("plan", metavar="PLAN", help="the file that `plan -o` wrote")
    apply.add_argument(
        "--from", dest="sources", metavar="URL", action="append", default=[], help="as it was given to `plan`"
    )
    apply.add_argument("--offline", action="store_true", help="as it was given to `plan`")
    apply.add_argument("--no-check-sigs", action="store_true", help="as it was given to `plan`")
    undo = commands.add_parser("undo", parents=[where, writing], help="back to before the last apply")
    undo.add_argument("--force", action="store_true", help="even if paths were registered since")
    repair = commands.add_parser(
        "repair", parents=[where, deciding, writing], help="scan, plan, show, ask, apply, verify"
    )
    repair.add_argument("--yes", action="store_true", help="do not ask")
    return top


class _Program:
    """One run of the program on one store."""

    def __init__(self, options: argparse.Namespace) -> None:
        from . import settings
        from .locate import locate
        from .present import Paper

        self._options = options
        self._progress = Progress(quiet=options.quiet)
        self._paper: Paper = Paper(sys.stderr if options.json else sys.stdout, full=options.full)
        self._store: StoreRoot = locate(options.root, options.store_dir, options.state_dir, os.environ)
        config = os.environ.get("NIX_CONFIG", "") if self._store.is_live_system else ""
        if getattr(options, "no_check_sigs", False):
            config += "\nrequire-sigs = false\n"
        if getattr(options, "offline", False):
            config += "\nsubstituters =\n"
        self._settings: Settings = settings.read(self._store, config)

    def run(self) -> int:
        """Run the command and give the exit code."""
        return int(getattr(self, f"_{self._options.command}")())

    def _next(self, rest: str) -> str:
        """Give the command line of a next step on this store."""
        words = [PROGRAM, rest]
        for name in ("root", "store_dir", "state_dir"):
            if getattr(self._options, name):
                words += ["--" + name.replace("_", "-"), shlex.quote(getattr(self._options, name))]
        return " ".join(words)

    def _look(self, *, hashed: bool) -> Scan:
        from .scan import scan

        return scan(self._store, self._settings, self._progress, hashed=hashed)

    def _scan(self) -> int:
        from .present import show_scan

        scan = self._look(hashed=self._options.contents)
        if self._options.json:
            self._print(_scan_json(scan))
        else:
            show_scan(self._paper, scan, self._next)
        return EXIT_HEALTHY if scan.healthy else EXIT_PROBLEMS

    def _sources(self) -> list[Source]:
        from .sources import open_sources

        return open_sources(self._store, self._settings, self._options.sources)

    def _rebuilder(self) -> Rebuilder | None:
        from .sources import open_rebuilder

        return open_rebuilder(self._store, self._settings)

    def _decide(self, scan: Scan) -> Plan:
        from .decide import decide
        from .weigh import Choices

        options = self._options
        choices = Choices(
            allow_cut=frozenset(options.allow_cut),
            adopt=options.adopt,
            drop_dead=options.drop_dead,
            no_rebuild=options.no_rebuild,
        )
        sources = self._sources()
        try:
            rebuilder = None if options.no_rebuild else self._rebuilder()
            return decide(scan, sources, rebuilder, choices, self._progress)
        finally:
            for source in sources:
                source.close()

    def _plan(self) -> int:
        from . import plan as plans
        from .present import show_plan

        plan = self._decide(self._look(hashed=self._options.contents))
        text = plans.to_json(plan)
        if self._options.output:
            try:
                Path(self._options.output).write_text(text, encoding="utf-8")
            except OSError as error:
                raise UsageError(
                    "the plan cannot be written", where=self._options.output, why=str(error)
                ) from error
        if self._options.json:
            sys.stdout.write(text)
        else:
            show_plan(self._paper, plan)
            if plan.actions:
                output = self._options.output
                self._paper.line()
                again = f"apply {shlex.quote(output)}" if output else "plan -o plan.json"
                self._paper.line(f"Next: {self._next(again)}")
        return EXIT_PROBLEMS if plan.actions or plan.left else EXIT_HEALTHY

    def _execute(self, plan: Plan) -> Outcome:
        from . import plan as plans
        from .apply import apply
        from .writable import is_read_only, make_writable

        if is_read_only(self._store.real_store):
            make_writable(self._store.real_store)
        sources = self._sources() if plan.of(plans.FETCH) else []
        rebuilder = self._rebuilder() if plan.of(plans.REBUILD) else None
        try:
            return apply(self._store, plan, sources, rebuilder, self._progress, wait=self._options.wait)
        finally:
            for source in sources:
                source.close()

    def _apply(self) -> int:
        from . import plan as plans

        outcome = self._execute(plans.read(Path(self._options.plan)))
        return self._verified(outcome)

    def _verified(self, outcome: Outcome, *, shown: bool = False) -> int:
        """Look again after a plan, show that and what was done unless it was, and give the exit code."""
        from .present import show_outcome, show_scan

        scan = self._look(hashed=False)
        if self._options.json:
            self._print({
                "run": str(outcome.run.directory),
                "done": len(outcome.done),
                "failed": [{"subject": action.subject, "kind": action.kind, "reason": reason}
                           for action, reason in outcome.failed],
                "after": _scan_json(scan),
            })  # fmt: skip
        else:
            if not shown:
                show_outcome(self._paper, outcome)
            self._paper.line()
            show_scan(self._paper, scan, self._next)
            self._paper.line(f"Back to before: {self._next('undo')}")
        return EXIT_HEALTHY if scan.healthy and not outcome.failed else EXIT_PROBLEMS

    def _undo(self) -> int:
        from .present import show_undone
        from .undo import undo
        from .writable import is_read_only, make_writable

        if is_read_only(self._store.real_store):
            make_writable(self._store.real_store)
        undone = undo(self._store, self._options.wait, self._progress.say, force=self._options.force)
        if self._options.json:
            self._print(
                {"run": str(undone.run.directory), "moved": undone.moved, "missing": list(undone.missing)}
            )
        else:
            show_undone(self._paper, undone, self._next)
        return EXIT_HEALTHY

    def _repair(self) -> int:
        from . import plan as plans
        from .present import show_outcome, show_plan, show_scan

        outcome: Outcome | None = None
        for _ in range(_ROUNDS):
            scan = self._look(hashed=self._options.contents)
            if scan.healthy and outcome is None:
                show_scan(self._paper, scan, self._next)
                break
            plan = self._decide(scan)
            if not plan.actions or (outcome and all(action in outcome.done for action in plan.actions)):
                show_plan(self._paper, plan)
                break
            show_scan(self._paper, scan, self._next)
            self._paper.line()
            show_plan(self._paper, plan)
            if not self._agreed(plan):
                return EXIT_PROBLEMS
            outcome = self._execute(plan)
            show_outcome(self._paper, outcome)
            if outcome.failed or not plan.of(plans.SALVAGE):
                break
        if outcome is not None:
            return self._verified(outcome, shown=True)
        if self._options.json:
            self._print(_scan_json(scan))
        return EXIT_HEALTHY if scan.healthy else EXIT_PROBLEMS

    def _agreed(self, plan: Plan) -> bool:
        """Ask whether to go on."""
        if self._options.yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError(
                "repair asks before it changes anything, and nobody is here to answer", fix="add --yes"
            )
        self._paper.line()
        answer = input(f"Execute these {len(plan.actions):,} actions? A backup is made first. [y/N] ")
        return answer.strip().lower() in ("y", "yes")

    @staticmethod
    def _print(document: object) -> None:
        json.dump(document, sys.stdout, indent=1)
        print()


def _scan_json(scan: Scan) -> dict[str, object]:
    """Give the JSON form of a scan, as docs/store-fix.md describes it."""
    return {
        "schema": "kingpost.store-fix.scan/1",
        "store_dir": scan.store.store_dir,
        "state_dir": str(scan.store.state_dir),
        "healthy": scan.healthy,
        "registered_paths": scan.rows,
        "names_on_disk": scan.names,
        "contents_hashed": scan.hashed,
        "seconds": round(scan.seconds, 3),
        "findings": [finding.as_dict() for finding in scan.findings],
    }
