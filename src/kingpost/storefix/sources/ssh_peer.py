"""Another machine as a source, over ssh and the protocol of `nix-store --serve`.

The protocol is what `ssh://` stores of Nix speak (source: NixOS/nix src/libstore/serve-protocol.hh,
serve-protocol-connection.cc, nix-store.cc opServe): integers of 8 bytes, padded strings, a request and its
answer in turn. Without `--write` the other side only reads. One session serves a whole run, and a session that
broke is begun again for the next path.
"""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import parse_qs, unquote, urlsplit

from ..errors import ContentError, SourceError, UnreachableError, UsageError
from ..interface import PathInfo
from . import hashes
from .breaker import Breaker
from .trust import check, check_content
from .unpack import unpack

if TYPE_CHECKING:
    from pathlib import Path

    from ..interface import Advance, Answer, Wanted

_HELLO, _WELCOME = 0x390C9DEB, 0x5452EECB
_VERSION = 2 << 8 | 5
_OLDEST = 2 << 8 | 4
"""Since 2.4 (Nix 2.0, 2018) an answer says hash, content address and signatures."""
_QUERY_PATH_INFOS, _DUMP_STORE_PATH = 2, 3

PATIENCE = 60.0
"""Seconds that the other side may be silent."""
_AT_THE_CONSOLE = 300.0
"""The same for the greeting when a person may have to type a password."""
_BATCH = 256
_ENOUGH_FAILURES = 3
"""Sessions in a row that could not be opened, after which the machine is left alone for a while."""
_LONGEST = 1 << 20

_FIND = (
    'PATH="$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/bin:/bin" '
    "exec nix-store --serve"
)


def command(url: str, connect_timeout: int = 15) -> List[str]:
    """Give the argument list that opens a session with `ssh://[user@]host[:port][?remote-program=…]`.

    `remote-program`, `remote-store` and `ssh-key` mean what they mean to Nix; NIX_SSHOPTS is honoured.

    Raises:
        UsageError: The URL names no host.

    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{url} is no address of a machine: {error}") from None
    user = unquote(parts.username) if parts.username else ""
    if not host or host.startswith("-") or user.startswith("-"):
        raise UsageError(f"{url} names no machine", fix="write ssh://[user@]host[:port]")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    argv = ["ssh", "-x", "-T", *shlex.split(os.environ.get("NIX_SSHOPTS", ""))]
    argv += ["-oServerAliveInterval=10", "-oServerAliveCountMax=3"]
    argv += [f"-oConnectTimeout={connect_timeout or 60}"]
    argv += [] if sys.stdin.isatty() else ["-oBatchMode=yes"]
    argv += ["-i", query["ssh-key"]] if "ssh-key" in query else []
    argv += ["-p", str(port)] if port else []
    argv += ["--", f"{user}@{host}" if user else host]
    program = query.get("remote-program")
    remote = f"exec {shlex.quote(program)} --serve" if program else _FIND
    if "remote-store" in query:
        remote += f" --store {shlex.quote(query['remote-store'])}"
    # The user's login shell may be fish; whatever it is, it hands one quoted word to sh.
    return [*argv, f"/bin/sh -c {shlex.quote(remote)}"]


class SshPeer:
    """A machine with Nix as a `Source`.

    Args:
        name: What to call it: `ssh://host`.
        argv: What opens a session; see `command`.
        keys: Trusted public keys by name.
        require_sigs: Whether an answer that nothing speaks for is refused.

    """

    def __init__(
        self, name: str, argv: Sequence[str], keys: Mapping[str, str], *, require_sigs: bool = True
    ) -> None:
        self._name = name
        self._argv = list(argv)
        self._keys = keys
        self._require_sigs = require_sigs
        self._session: Optional[_Session] = None
        self._lock = Lock()
        self._breaker = Breaker(name, _ENOUGH_FAILURES)

    def describe(self) -> str:
        """Give the address of the machine."""
        return self._name

    def close(self) -> None:
        """End the session."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _open(self) -> _Session:
        if self._session is None:
            self._breaker.check()
            try:
                self._session = _Session(self._name, self._argv)
            except UnreachableError:
                self._breaker.failed()
                raise
            self._breaker.worked()
        return self._session

    def query(self, wanted: Sequence[Wanted]) -> Dict[str, Answer]:
        """Ask for many paths in a few requests. See `Source.query`."""
        answers: Dict[str, Answer] = {}
        by_path = {one.path: one for one in wanted}
        paths = sorted(by_path)
        with self._lock, self._or_end():
            for begin in range(0, len(paths), _BATCH):
                for info in self._open().path_infos(paths[begin : begin + _BATCH]):
                    answers[info.path] = self._judge(info, by_path.get(info.path))
        return answers

    @contextmanager
    def _or_end(self) -> Iterator[None]:
        """End the session after any error: the rest of an answer may still be on its way."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _judge(self, info: PathInfo, wanted: Optional[Wanted]) -> Answer:
        if wanted is None:
            return ContentError(f"{info.path} was not asked for", where=self._name)
        try:
            check(info, wanted, self._keys, require_sigs=self._require_sigs, where=self._name)
        except SourceError as error:
            return error
        return info

    def fetch(self, info: PathInfo, into: Path, advance: Advance) -> None:
        """Let the machine send a path, unpack and check it. See `Source.fetch`."""
        try:
            with self._lock, self._or_end():
                session = self._open()
                session.send(_number(_DUMP_STORE_PATH) + _text(info.path))
                unpack(
                    session.some,
                    into,
                    nar_hash=info.nar_hash,
                    nar_size=info.nar_size,
                    advance=advance,
                    endless=True,
                )
            check_content(info, into)
        except SourceError as error:
            error.where = self._name
            if info.path not in error.what:
                error.what = f"{info.path}: {error.what}"
            raise


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _text(text: str) -> bytes:
    raw = os.fsencode(text)
    return _number(len(raw)) + raw + bytes(-len(raw) % 8)


class _Session:
    """A running `nix-store --serve` and the two ends of its pipe."""

    def __init__(self, name: str, argv: List[str]) -> None:
        self._name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
            )
        except OSError as error:
            self._errors.close()
            raise UnreachableError(
                f"`{argv[0]}` cannot be run: {error.strerror}", where=name, fix=f"put `{argv[0]}` on PATH"
            ) from None
        try:
            self._patience = _AT_THE_CONSOLE if sys.stdin.isatty() else PATIENCE
            self._greet()
        except BaseException:
            self.close()
            raise
        self._patience = PATIENCE

    def _greet(self) -> None:
        self.send(_number(_HELLO) + _number(_VERSION))
        if self._int() != _WELCOME:
            raise UnreachableError(
                "it does not answer as `nix-store --serve` does",
                where=self._name,
                why="usually a login shell there prints something first",
            )
        version = self._int()
        if version >> 8 != _VERSION >> 8 or version < _OLDEST:
            raise UnreachableError(
                f"its Nix speaks version {version >> 8}.{version & 255} of the protocol",
                where=self._name,
                fix="Nix 2.0 or later is needed there",
            )

    def path_infos(self, paths: Sequence[str]) -> List[PathInfo]:
        """Ask for what the machine knows of paths; those that it lacks are left out."""
        self.send(_number(_QUERY_PATH_INFOS) + _number(len(paths)) + b"".join(map(_text, paths)))
        infos: List[PathInfo] = []
        while True:
            path = self._string()
            if not path:
                return infos
            deriver = self._string()
            references = self._strings()
            self._int()  # the download size, which is the NAR size again
            nar_size = self._int()
            nar_hash, ca = self._string(), self._string()
            sigs = self._strings()
            try:
                hashed = hashes.nar_hash(nar_hash)
            except ValueError as error:
                raise ContentError(f"{path}: the hash cannot be read: {error}", where=self._name) from None
            infos.append(
                PathInfo(path, hashed, nar_size, tuple(sorted(references)), deriver, tuple(sigs), ca)
            )

    def send(self, data: bytes) -> None:
        """Send a request."""
        stdin = self._process.stdin
        if stdin is None:
            raise AssertionError("it was asked for")
        view = memoryview(data)
        try:
            while view:
                _, ready, _ = select.select([], [stdin], [], self._patience)
                if not ready:
                    raise self._silent()
                view = view[os.write(stdin.fileno(), view[: select.PIPE_BUF]) :]
        except OSError:
            raise self._ended() from None

    def some(self, size: int) -> bytes:
        """Give what has come, at least one byte.

        Raises:
            UnreachableError: The session ended or is silent.

        """
        stdout = self._process.stdout
        if stdout is None:
            raise AssertionError("it was asked for")
        ready, _, _ = select.select([stdout], [], [], self._patience)
        if not ready:
            raise self._silent()
        block = os.read(stdout.fileno(), size)
        if not block:
            raise self._ended()
        return block

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.some(size - len(data))
        return data

    def _int(self) -> int:
        return int.from_bytes(self._exactly(8), "little")

    def _string(self) -> str:
        size = self._int()
        if size > _LONGEST:
            raise ContentError(f"it sends a string of {size} bytes", where=self._name)
        return os.fsdecode(self._exactly(size + -size % 8)[:size])

    def _strings(self) -> List[str]:
        count = self._int()
        if count > _LONGEST:
            raise ContentError(f"it sends a list of {count} entries", where=self._name)
        return [self._string() for _ in range(count)]

    def _silent(self) -> UnreachableError:
        return UnreachableError(f"it has been silent for {self._patience:.0f} s", where=self._name)

    def _ended(self) -> UnreachableError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._errors.seek(0)
        said = self._errors.read(1 << 16).decode("utf-8", "replace").strip()
        last, fix = _explain(said, self._process.poll())
        return UnreachableError("the session ended", where=self._name, why=last, fix=fix)

    def close(self) -> None:
        """End the session: the end of its input first, which is how it is told to go."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def _explain(said: str, code: Optional[int]) -> Tuple[str, str]:
    last = said.splitlines()[-1].strip() if said else f"it said nothing, exit code {code}"
    if code == 127:
        return last, "name the program: ssh://host?remote-program=/path/to/nix-store"
    if code == 255:
        return last, "check that `ssh` to it works for this user (a key, NIX_SSHOPTS)"
    return last, ""
