"""Where a storage server lives, as a user names it: `PATH`, `ssh:HOST:PATH`, `kube:NAMESPACE/KIND/NAME:PATH`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kingpost.base.errors import UsageError
from kingpost.observe.executors.interface import Executor
from kingpost.observe.executors.local import Here
from kingpost.observe.executors.ssh import Ssh

if TYPE_CHECKING:
    from collections.abc import Sequence

_SSH: Final = re.compile(r"ssh:(?:([A-Za-z0-9._-]+)@)?([A-Za-z0-9][A-Za-z0-9._-]*):([^\n]+)")
_KUBE: Final = re.compile(r"kube:([a-z0-9-]+)/([a-z]+)/([a-z0-9.-]+)(?:/([a-z0-9-]+))?(?::([^\n]+))?")


@dataclass(frozen=True, slots=True)
class Workload(Executor):
    """A pod of a workload (`deployment/NAME`, `statefulset/NAME`, `pod/NAME`), whichever kubectl picks.

    Attributes:
        namespace: Its namespace.
        workload: Kind and name, as kubectl takes them.
        container: Which container; empty for the default one.
        context: kubectl's context; empty for the current one.

    """

    namespace: str
    workload: str
    container: str = ""
    context: str = ""

    def argv(self, command: Sequence[str]) -> list[str]:
        """Run a command in the pod."""
        container = ["--container", self.container] if self.container else []
        return [*self.kubectl("exec", self.workload), *container, "--", *command]

    def kubectl(self, *words: str) -> list[str]:
        """Give any kubectl command in the workload's namespace."""
        context = ["--context", self.context] if self.context else []
        return ["kubectl", *context, "--namespace", self.namespace, *words]

    def describe(self) -> str:
        """Name the workload."""
        return f"{self.workload} in namespace {self.namespace}"


def parse(text: str, *, what: str, context: str = "") -> tuple[Executor, str]:
    """Read where something is.

    Args:
        text: What the user wrote.
        what: What the last part is, for the error: a directory, a unit.
        context: kubectl's context.

    Returns:
        The way there, and the last part; empty for a workload that names none.

    """
    if match := _SSH.fullmatch(text):
        return Ssh(match[2], match[1]), match[3]
    if match := _KUBE.fullmatch(text):
        namespace, kind, name, container, rest = match.groups()
        return Workload(namespace, f"{kind}/{name}", container or "", context), rest or ""
    if text.startswith(("ssh:", "kube:")) or not text:
        raise UsageError(
            f"{text!r} names no {what}",
            fix="write it as it is called here, or ssh:HOST:NAME, or kube:NAMESPACE/deployment/NAME:PATH",
        )
    return Here(), text
