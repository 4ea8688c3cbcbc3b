"""Another host, by ssh, without a prompt: what needs a password is skipped."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kingpost.base.errors import KingpostError
from kingpost.observe.executors.interface import Executor, Over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kingpost.base.process import Completed

_FAILED: Final = 255
#: What ssh says of a connection that was there and broke (OpenSSH clientloop.c, packet.c). A refusal or a time-out
#: while it connects, and a connection that the server closes before it let us in, are something else.
_BROKE: Final = re.compile(
    r"closed by remote host|Connection reset|Broken pipe|client_loop: send disconnect"
    r"|Timeout, server .* not responding",
    re.IGNORECASE,
)
_NEVER_THERE: Final = re.compile(r"kex_exchange_identification|ssh: connect to host|banner exchange")


class DroppedError(KingpostError):
    """A connection that was there broke."""


def raise_if_dropped(way: Executor, done: Completed) -> None:
    """Raise if the ssh connection that a way goes by broke under its command.

    Raises:
        DroppedError: It did.

    """
    outer = way.outer if isinstance(way, Over) else way
    if not isinstance(outer, Ssh) or done.returncode != _FAILED or _NEVER_THERE.search(done.stderr):
        return
    said = [line.strip() for line in done.stderr.splitlines() if _BROKE.search(line)]
    if said:
        raise DroppedError("the connection dropped", where=way.describe(), why=said[-1][:500])


@dataclass(frozen=True, slots=True)
class Ssh(Executor):
    """A host by ssh. `user` None lets ssh's own configuration decide; `become` changes the user there."""

    host: str
    user: str | None = None
    become: str | None = None

    def argv(self, command: Sequence[str]) -> list[str]:
        """Quote the command for the remote shell, once."""
        inner = ["sudo", "-n", "-H", "-u", self.become, "--", *command] if self.become else list(command)
        target = f"{self.user}@{self.host}" if self.user else self.host
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-T"]
        return ["ssh", *options, target, "--", shlex.join(inner)]

    def describe(self) -> str:
        """Name the host."""
        return f"{self.host} by ssh" + (f" as {self.become}" if self.become else "")
