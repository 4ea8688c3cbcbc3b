"""Ask a host many read-only questions in one visit, as one shell text on stdin.

Nothing is installed or left behind there, and only what a question prints comes back: a question about a secret
prints facts about it, never the secret.
"""

from __future__ import annotations

import re
import secrets
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kingpost.base.errors import KingpostError
from kingpost.base.process import run
from kingpost.observe.executors.ssh import raise_if_dropped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kingpost.observe.executors.interface import Executor

#: Become root where that needs no password; otherwise look as whoever we are.
_AS_ROOT: Final = (
    'if [ "$(id -u)" = 0 ]; then exec sh -s; '
    "elif sudo -n true 2>/dev/null; then exec sudo -n sh -s; else exec sh -s; fi"
)
_PRELUDE: Final = r"""
LC_ALL=C
PATH=$PATH:/run/current-system/sw/bin:/usr/sbin:/sbin
export LC_ALL PATH
as() {
  if [ -z "$1" ] || [ "$1" = "$(id -un)" ]; then
    sh -c "$2"
  elif [ "$(id -u)" = 0 ]; then
    home=$(getent passwd "$1" | cut -d: -f6)
    [ -n "$home" ] || { echo "there is no user $1" >&2; return 1; }
    env -u XDG_CONFIG_HOME HOME="$home" USER="$1" runuser -u "$1" -- sh -c "$2"
  else
    echo "only root can look as $1" >&2
    return 1
  fi
}
ask() {
  printf '%s begin %s\n' "$mark" "$1"
  { problem=$(as "$2" "$3" 2>&1 >&3 3>&- </dev/null); code=$?; } 3>&1
  printf '\n%s end %s %s\n' "$mark" "$code" "$(printf '%s\n' "$problem" | tail -n 1)"
}
"""

#: kubectl's configuration where k3s and kubeadm put it, unless whoever looks has one of their own.
KUBECONFIG: Final = (
    "for file in /etc/rancher/k3s/k3s.yaml /etc/kubernetes/admin.conf; do "
    '[ -n "${KUBECONFIG:-}" ] || [ -e "$HOME/.kube/config" ] || [ ! -r "$file" ] || export KUBECONFIG="$file"; done'
)
"""What a script that calls kubectl begins with."""


@dataclass(frozen=True, slots=True)
class Question:
    """Something to ask a host.

    Attributes:
        id: Its name among the answers.
        script: POSIX shell; what it prints on stdout is the answer.
        user: Who asks; empty is root, where the way in allows that.

    """

    id: str
    script: str
    user: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host said.

    Attributes:
        code: The script's exit code; 127 when it, or a program in it, is not there.
        text: Its stdout.
        problem: The last line of its stderr.

    """

    code: int
    text: str
    problem: str = ""

    @property
    def why(self) -> str:
        """Say why there is no answer."""
        return self.problem or f"exit code {self.code}"


NOTHING: Final = Answer(127, "", "it was not asked")


def words(argv: Sequence[str]) -> str:
    """Give a command as shell text."""
    return shlex.join(argv)


def look(way: Executor, questions: Iterable[Question], *, timeout: float = 120) -> dict[str, Answer]:
    """Ask everything in one visit; gives the answers by the questions' ids.

    Raises:
        DroppedError: The connection broke before all was answered.
        KingpostError: The host could not be entered, or stopped answering.

    """
    mark = f"kingpost-{secrets.token_hex(8)}"
    asked = [f"ask {words((q.id, q.user, q.script))}" for q in questions]
    done = run(
        way.argv(["sh", "-c", _AS_ROOT]),
        stdin="\n".join([f"mark={mark}", _PRELUDE, *asked, ""]),
        timeout=timeout,
        check=False,
    )
    answers = parse(done.stdout, mark)
    if len(answers) < len(asked):
        raise_if_dropped(way, done)
    if asked and not answers:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise KingpostError(f"the host gave no answer: {last[:200]}", where=way.describe(), why=last[:500])
    return answers


def parse(output: str, mark: str) -> dict[str, Answer]:
    """Take answers apart; one that was cut off is left out."""
    block = re.compile(
        rf"^{mark} begin (?P<id>[^\n]*)\n(?P<text>.*?)\n{mark} end (?P<code>\d+) ?(?P<problem>[^\n]*)$",
        re.MULTILINE | re.DOTALL,
    )
    return {
        found["id"]: Answer(int(found["code"]), found["text"], found["problem"].strip())
        for found in block.finditer(output)
    }


def answer_to(answers: Mapping[str, Answer], question: str) -> Answer:
    """Give an answer, or that there is none."""
    return answers.get(question, NOTHING)
