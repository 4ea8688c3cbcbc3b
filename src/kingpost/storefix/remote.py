"""Run store-fix on another machine: send the one file over ssh, run it there, bring back what it says.

Nothing but `sh` and some Python >= 3.9 is needed there; a broken Nix store with a Python in it will do. The
file lies in a new directory that only its owner can read and that is removed at the end, also when the
connection is lost: then the program there gets SIGTERM, which it is made to bear.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterator, List, Optional, Sequence
from urllib.parse import unquote, urlsplit

from . import bundle
from .errors import CannotLookError, UsageError

_MARK = "kingpost-store-fix:"
_NO_PYTHON = 97
_SSH_FAILED = 255
_PLAN_FILE = "plan.json"
PLAN = "\0plan"
"""Stands in `Job.argv` for the plan file's name over there."""

# $1 is the program's name. Prints the directory and the Python that will do. A full /tmp is no surprise on a
# machine that needs this.
_PREPARE = f"""\
umask 077
for t in "${{TMPDIR:-/tmp}}" /dev/shm /run /var/tmp "$HOME"; do
  d=$(mktemp -d "$t/kingpost-store-fix.XXXXXXXX" 2>/dev/null) && break
done
[ -d "$d" ] || {{ echo "no directory to write to" >&2; exit 3; }}
trap 'rm -rf "$d"; exit 129' HUP INT TERM
cat > "$d/$1" || {{ rm -rf "$d"; exit 3; }}
for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 \\
  /run/current-system/sw/bin/python3 /nix/var/nix/profiles/default/bin/python3 \\
  /nix/store/*-python3-3.*/bin/python3; do
  if "$p" -I -S -c 'import sys, sqlite3; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1; then
    printf '{_MARK}%s\\n{_MARK}%s\\n' "$d" "$p"
    exit 0
  fi
done
rm -rf "$d"
exit {_NO_PYTHON}
"""
# $1 is the directory, $2 is `keep` if something in it is still wanted, the rest is the command.
_CONSOLE = """\
d=$1 keep=$2; shift 2
trap 'rm -rf "$d"; exit 129' HUP
trap : INT
"$@"; code=$?
{ [ "$keep" = keep ] && chmod 644 "$d/plan.json" 2>/dev/null; } || rm -rf "$d"
exit $code
"""
# Without a terminal the end of standard input is how we learn that the other side is gone. SIGPIPE is ignored,
# for a shell that says "Terminated" to a connection that is gone would die of it before it tidies up.
_UNATTENDED = """\
d=$1 keep=$2; shift 2
trap '' PIPE
exec 3<&0
"$@" </dev/null & p=$!
{ cat <&3 >/dev/null; kill -TERM $p; } >/dev/null 2>&1 & w=$!
exec 3<&-
wait $p; code=$?
{ kill $w 2>/dev/null && [ "$keep" = keep ] && chmod 644 "$d/plan.json" 2>/dev/null; } || rm -rf "$d"
exit $code
"""
_COLLECT = 'cat "$1/$2" 2>/dev/null; rm -rf "$1"'


@dataclass(frozen=True)
class Job:
    """The arguments for the other machine, with the files among them told apart.

    Attributes:
        argv: With `PLAN` where the name of the plan file belongs.
        sends: The plan file that goes there, for `apply`; empty if none.
        receives: Where the plan file goes that comes back, for `plan -o`; empty if none.

    """

    argv: Sequence[str]
    sends: str = ""
    receives: str = ""


def run(host: str, argv: Sequence[str], *, sudo: bool = False) -> int:
    """Run store-fix with these arguments on another machine and give its exit code.

    Args:
        host: `[user@]host`, an alias of ssh's configuration, or `ssh://[user@]host[:port]`. NIX_SSHOPTS counts.
        argv: The arguments; a plan file that they name is one of this machine.
        sudo: Run it as root there through sudo, which may ask for a password at a terminal.

    Raises:
        UsageError: The host is none, or the plan file cannot be read.
        CannotLookError: The machine cannot be reached or has no Python.

    """
    job = _job(argv)
    sent = _read(job.sends) if job.sends else b""
    with _Machine(host) as machine:
        place, python = machine.prepare(bundle.build())
        try:
            if job.sends:
                machine.put(place, sent)
            words = [f"{place}/{_PLAN_FILE}" if word == PLAN else word for word in job.argv]
            command = [python, "-I", "-S", f"{place}/{bundle.NAME}", *words]
            code = machine.call(place, command, sudo=sudo, keep=bool(job.receives))
        except BaseException:
            machine.collect(place)
            raise
        if code == _SSH_FAILED:
            raise CannotLookError(
                "the connection was lost while store-fix ran",
                where=host,
                why="it was told to end there; what it had begun, the next run finishes",
                fix="run the same command again",
            )
        if job.receives:
            plan = machine.collect(place)
            if plan:
                _write(job.receives, plan)
        return code


def _job(argv: Sequence[str]) -> Job:
    """Find the plan file among the arguments of `plan -o FILE` and `apply FILE`."""
    words = list(argv)
    command = next((word for word in words if not word.startswith("-")), "")
    for place, word in enumerate(words):
        if command == "plan" and (word == "-o" or _is_output(word)) and place + 1 < len(words):
            name = words[place + 1]
            words[place + 1] = PLAN
            return Job(words, receives=name)
        if command == "plan" and (_is_output(word.partition("=")[0]) or word.startswith("-o")):
            name = word.partition("=")[2] if word.startswith("--") else word[2:]
            words[place : place + 1] = ["-o", PLAN]
            return Job(words, receives=name)
        if command == "apply" and word != "apply" and not word.startswith("-") and os.path.isfile(word):
            words[place] = PLAN
            return Job(words, sends=word)
    return Job(words)


def _is_output(word: str) -> bool:
    """Tell whether this is `--output`, which may be shortened."""
    return len(word) > len("--o") and "--output".startswith(word)


def _read(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"the plan cannot be read: {error.strerror}", where=name) from None


def _write(name: str, data: bytes) -> None:
    try:
        with open(name, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"the plan cannot be written: {error.strerror}", where=name) from None


class _Machine:
    """Another machine, with one connection for all that is done on it."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._target = _target(host)
        self._sockets = tempfile.TemporaryDirectory(prefix="kp-")
        self._ssh = [
            *("ssh", "-x", *shlex.split(os.environ.get("NIX_SSHOPTS", ""))),
            *("-oControlMaster=auto", f"-oControlPath={self._sockets.name}/s", "-oControlPersist=60"),
            *("-oServerAliveInterval=15", "-oServerAliveCountMax=4", "-oConnectTimeout=30"),
        ]

    def __enter__(self) -> _Machine:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        with _undisturbed():
            argv = [*self._ssh, "-O", "exit", *self._target]
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            self._sockets.cleanup()

    def _argv(self, script: str, *words: str, options: Sequence[str] = ("-T",)) -> List[str]:
        # The login shell there may be fish: it only ever sees quoted words.
        remote = shlex.join(["/bin/sh", "-c", script, "sh", *words])
        return [*self._ssh, *options, *self._target, remote]

    def prepare(self, program: bytes) -> List[str]:
        """Send the program; give the directory it is in and the Python that will run it."""
        try:
            done = subprocess.run(
                self._argv(_PREPARE, bundle.NAME), input=program, stdout=subprocess.PIPE, check=False
            )
        except OSError as error:
            raise CannotLookError(f"`ssh` cannot be run: {error.strerror}", fix="put `ssh` on PATH") from None
        # A login shell may print a greeting before our lines.
        lines = os.fsdecode(done.stdout).splitlines()
        found = [line[len(_MARK) :] for line in lines if line.startswith(_MARK)]
        if done.returncode == 0 and len(found) == 2:
            return found
        if done.returncode == _NO_PYTHON:
            raise CannotLookError(
                "no Python >= 3.9 was found there",
                where=self._host,
                why="looked on PATH, in the system profile and in /nix/store",
                fix="install one (any will do, a copied one too) and put it on PATH",
            )
        raise CannotLookError(
            "store-fix could not be sent there",
            where=self._host,
            why=f"ssh ended with {done.returncode}; see its message above",
            fix=f"check `ssh {self._host} true`",
        )

    def put(self, place: str, plan: bytes) -> None:
        """Write the plan file."""
        argv = self._argv('umask 077; cat > "$1"', f"{place}/{_PLAN_FILE}")
        done = subprocess.run(argv, input=plan, check=False)
        if done.returncode:
            raise CannotLookError("the plan could not be sent", where=self._host)

    def call(self, place: str, command: Sequence[str], *, sudo: bool, keep: bool) -> int:
        """Run a command to its end, at a terminal if this is one, and give its exit code."""
        console = all(os.isatty(stream) for stream in (0, 1))
        script = _CONSOLE if console else _UNATTENDED
        words = [place, "keep" if keep else "drop", *command]
        argv = self._argv(script, *words, options=["-t"] if console else ["-T"])
        if sudo:
            argv[-1] = f"sudo {'' if console else '-n '}{argv[-1]}"
        process = subprocess.Popen(argv, stdin=None if console else subprocess.PIPE)
        try:
            return process.wait()
        finally:
            if process.stdin is not None:
                process.stdin.close()  # which ends the program there if it still runs
            process.wait()

    def collect(self, place: str) -> bytes:
        """Give the plan file, if there is one, and remove the directory."""
        with _undisturbed():
            argv = self._argv(_COLLECT, place, _PLAN_FILE)
            return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False).stdout


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a second Ctrl-C wait until what was begun is tidied up."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread, which gets no Ctrl-C
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _target(host: str) -> List[str]:
    """Give the words that name the machine to ssh."""
    port: Optional[int] = None
    name = host
    if "://" in host:
        parts = urlsplit(host)
        try:
            port = parts.port
        except ValueError:
            parts = urlsplit("")
        name = (
            ""
            if parts.scheme not in ("ssh", "ssh-ng")
            else parts.netloc.rpartition(":")[0]
            if port
            else parts.netloc
        )
        name = unquote(name)
    if not name or name.startswith("-") or name.rpartition("@")[2].startswith("-"):
        raise UsageError(f"{host!r} names no machine", where="--host", fix="write [user@]host")
    return [*(["-p", str(port)] if port else []), "--", name]
