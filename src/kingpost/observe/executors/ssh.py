"""Another host, by ssh, without a prompt: what needs a password is skipped."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kingpost.observe.executors.interface import Executor

if TYPE_CHECKING:
    from collections.abc import Sequence


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
