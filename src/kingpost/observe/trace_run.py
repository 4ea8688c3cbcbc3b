"""Run a Nix command with its internal-json log, and let its human output through while it runs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from kingpost.base.errors import CannotLookError, UsageError
from kingpost.base.process import run
from kingpost.observe.nixlog import Result, lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kingpost.observe.trace import Trace

#: Programs that take `--log-format internal-json -v`; nixos-rebuild-ng passes both on to Nix.
PROGRAMS: Final = (
    "nix",
    "nix-build",
    "nix-shell",
    "nix-store",
    "nix-env",
    "nixos-rebuild",
    "nixos-rebuild-ng",
)
INFO: Final = 3
OPTIONS: Final = ("--log-format", "internal-json", "-v")


def with_log_options(command: Sequence[str]) -> list[str]:
    """Give a command with the options that make Nix write its log, before any `--`.

    Raises:
        UsageError: It is no command of Nix.

    """
    if not command:
        raise UsageError("there is nothing to trace", fix="write `kingpost trace -- nix build …`")
    if Path(command[0]).name not in PROGRAMS:
        raise UsageError(
            f"`{command[0]}` is no command of Nix",
            fix=f"one of {', '.join(PROGRAMS)}; for another, write its log with `--log-format internal-json -v` "
            "and read that with --log",
        )
    words = list(command)
    at = words.index("--") if "--" in words else len(words)
    return [*words[:at], *OPTIONS, *words[at:]]


def follow(
    command: Sequence[str],
    trace: Trace,
    shown: TextIO | None,
    log: TextIO | None = None,
    *,
    own_stdout: bool = False,
) -> int:
    """Run a command, feed its log to a trace and show what a person would have seen; gives its exit code.

    Args:
        command: As the user wrote it.
        trace: Takes the events.
        shown: Where the human output goes; None for nowhere.
        log: Where the raw log goes as well.
        own_stdout: Whether stdout is the caller's alone: what the command prints there goes where `shown` does.

    Raises:
        UsageError: It is no command of Nix.
        CannotLookError: It cannot be started.

    """
    stdout = subprocess.DEVNULL if shown is None else shown if own_stdout else None
    try:
        process = subprocess.Popen(  # the only process whose output is read while it runs
            with_log_options(command),
            stdout=stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise CannotLookError(
            f"`{command[0]}` cannot be run: {error.strerror}", fix=f"install `{command[0]}`, or give its path"
        ) from error
    if process.stderr is None:  # pragma: no cover - it was asked for
        raise CannotLookError("the command has no stderr")
    # Leaving waits for the command: the terminal's Ctrl-C reaches Nix as well, which then cleans up.
    with process:
        for line in lines(process.stderr):
            if log is not None:
                log.write(line)
            event = trace.feed(line)
            if shown is not None and (text := human(line, event)):
                shown.write(text)
                shown.flush()
    return process.returncode


def human(line: str, event: dict[str, Any] | None) -> str:
    """Give what Nix's own plain log would show for a line; empty for what it would not."""
    if event is None:
        return line
    match event.get("action"):
        case "msg" if event["level"] <= INFO:
            return f"{event.get('msg', '')}\n"
        case "start" if event["level"] <= INFO and event.get("text"):
            return f"{event['text']}...\n"
        case "result" if event["type"] in {Result.BUILD_LOG_LINE, Result.POST_BUILD_LOG_LINE}:
            fields = event.get("fields")
            return f"{fields[0]}\n" if isinstance(fields, list) and fields else ""
    return ""


def closure(nix: str, paths: Sequence[str]) -> list[str]:
    """Give the valid paths of a closure, for what was already there; empty when Nix does not say."""
    done = run([nix, "-qR", *paths], timeout=120, check=False) if paths else None
    return done.stdout.split() if done and done.returncode == 0 else []
