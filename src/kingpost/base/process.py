"""Every subprocess goes through here: argument lists only, no shell, no secret in argv, bounded in time."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kingpost.base.errors import CannotLookError, KingpostError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished process. `returncode` is negative when a signal ended it, as in `subprocess`."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class CommandError(KingpostError):
    """A program ended with a non-zero code; `completed` holds what it printed."""

    def __init__(self, completed: Completed, *, fix: str = "") -> None:
        last = completed.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        super().__init__(
            f"`{' '.join(completed.argv)}` ended with exit code {completed.returncode}",
            why=last[0],
            fix=fix,
        )
        self.completed = completed


def find_program(name: str, *, fix: str) -> str:
    """Give a program's absolute path.

    Raises:
        CannotLookError: It is not on PATH; `fix` says how to get it.

    """
    path = shutil.which(name)
    if path is None:
        raise CannotLookError(f"the program `{name}` is not on PATH", fix=fix)
    return path


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and collect what it prints as UTF-8 (undecodable bytes are replaced).

    Args:
        argv: The program and its arguments. Never put a secret here; use `stdin` or a file of mode 0600.
        stdin: Text for standard input; None gives it an empty one.
        env: Variables laid over the current environment.
        cwd: Directory to run in.
        timeout: Seconds; the process is killed and `CannotLookError` raised when it takes longer.
        check: Raise on a non-zero exit code.

    Raises:
        CommandError: With `check`, the program failed.
        CannotLookError: It is not installed, may not be run, or took too long.

    """
    words = tuple(str(word) for word in argv)
    try:
        done = subprocess.run(
            words,
            input=stdin if stdin is not None else "",
            env={**os.environ, **env} if env is not None else None,
            cwd=cwd,
            timeout=timeout,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise CannotLookError(
            f"the program `{words[0]}` is not on PATH", fix=f"install `{words[0]}`, then run this again"
        ) from error
    except PermissionError as error:
        raise CannotLookError(f"`{words[0]}` may not be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise CannotLookError(f"`{' '.join(words)}` did not end within {timeout:g} s") from error
    completed = Completed(words, done.returncode, done.stdout, done.stderr)
    if check and completed.returncode:
        raise CommandError(completed)
    return completed
