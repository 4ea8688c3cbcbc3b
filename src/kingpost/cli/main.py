"""The entry point: finds the command, imports only what it needs, turns errors into text and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from kingpost import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer


INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended, as shells write it: 128 and the signal's number."""


def console() -> NoReturn:
    """Be the program `kingpost`.

    It leaves without taking apart what is in memory, which would cost a large fleet a tenth of its time, and any
    command as much as to import its libraries. Files are closed and durable by then.
    """
    if sys.stdout is None:  # closed by the caller
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - contextlib is slow to import for `--version`
            stream.flush()
        except (OSError, AttributeError):
            pass  # nobody reads it; main has said so if it matters
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run kingpost and give its exit code (see docs/exit-codes in README)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words in (["--version"], ["-V"]):
            print(f"kingpost {__version__}")
            code = 0
        else:
            code = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # The reader of our pipe has gone (`| head`): not an error of ours. Python would complain at exit.
        sys.stdout = None
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG) or error.filename:
            raise
        sys.stdout = None  # it holds what it could not write, and would try again
        print(f"kingpost: the output cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    return code


def _interrupted() -> int:
    print("kingpost: interrupted; nothing was left half-done", file=sys.stderr)
    return INTERRUPTED


def _run(words: list[str]) -> int:
    from kingpost.base.errors import EXIT_USAGE, KingpostError
    from kingpost.cli.registry import COMMANDS

    name = next((word for word in words if not word.startswith("-")), "")
    if name and name not in COMMANDS:
        from difflib import get_close_matches

        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean `kingpost {close[0]}`?" if close else "`kingpost --help` lists the commands"
        print(f"kingpost: there is no command `{name}`; {hint}", file=sys.stderr)
        return EXIT_USAGE
    try:
        return _call(name, words)
    except KingpostError as error:
        print(f"kingpost: {error}", file=sys.stderr)
        return error.exit_code
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # click's own answer to it is 1
            raise leaving.__context__ from None
        return leaving.code if isinstance(leaving.code, int) else 1
    except Exception as error:
        # typer's own exceptions: click's until typer 0.24, a vendored copy of click since. The names agree.
        if type(error).__name__ == "Abort":
            raise KeyboardInterrupt from error
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            return int(error.exit_code)
        raise


def _call(name: str, words: list[str]) -> int:
    from kingpost.cli.registry import COMMANDS

    if name and COMMANDS[name].passthrough:
        from importlib import import_module

        return int(import_module(COMMANDS[name].module).main(words[words.index(name) + 1 :]))
    app = build([name] if name else list(COMMANDS))
    result = app(args=words or ["--help"], prog_name="kingpost", standalone_mode=False)
    if result == INTERRUPTED:  # typer's answer to Ctrl-C, given without a word
        return _interrupted()
    return result if isinstance(result, int) else 0


def build(names: Sequence[str]) -> typer.Typer:
    """Give the typer application with the commands named, their modules imported."""
    from importlib import import_module

    import typer

    from kingpost.cli.registry import COMMANDS

    app = typer.Typer(
        name="kingpost",
        help="One typed topology for a self-hosted Nix platform: render it, observe it, repair it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def options() -> None:
        """One typed topology for a self-hosted Nix platform: render it, observe it, repair it."""

    for name in names:
        entry = COMMANDS[name]
        if entry.passthrough:
            app.command(name, help=entry.help)(lambda: None)
            continue
        module = import_module(entry.module)
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, help=entry.help)
        else:
            app.command(name, short_help=entry.help)(module.command)
    return app
