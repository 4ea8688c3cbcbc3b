"""This machine, as the user who runs kingpost or as another one."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kingpost.observe.executors.interface import Executor

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Here(Executor):
    """This machine. `user` None is whoever runs kingpost."""

    user: str | None = None

    def argv(self, command: Sequence[str]) -> list[str]:
        """Change the user only where that is needed: `runuser` as root, else `sudo` without a prompt."""
        if self.user is None or self.user == getpass.getuser():
            return list(command)
        if os.geteuid() == 0:
            return ["runuser", "-u", self.user, "--", *command]
        return ["sudo", "-n", "-H", "-u", self.user, "--", *command]

    def describe(self) -> str:
        """Name the machine and user."""
        return f"this machine as {self.user}" if self.user else "this machine"


@dataclass(frozen=True, slots=True)
class NetworkNamespace(Executor):
    """A named network namespace of this machine (`ip netns`), with this machine's files."""

    name: str

    def argv(self, command: Sequence[str]) -> list[str]:
        """Enter the network only: `ip netns exec` would remount /sys."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--", *command]

    def describe(self) -> str:
        """Name the namespace."""
        return f"network namespace {self.name}"
