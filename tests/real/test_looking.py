"""Questions reach another host through a real sshd unharmed, and answers come back one by one."""

from __future__ import annotations

from tests.real.conftest import require, require_root
from tests.real.sshd import running

from kingpost.observe.executors.ssh import Ssh
from kingpost.observe.looking import Question, look


def test_questions_through_a_real_sshd(tmp_path):
    require_root()
    with running(tmp_path / "sshd", require("sshd"), {"A_VARIABLE": "kept"}) as server:

        class Through(Ssh):
            def argv(self, command):
                ssh, *words = super().argv(command)
                return [ssh, *server.options, *words]

        answers = look(
            Through("127.0.0.1", "root"),
            [
                Question("quotes", "printf '%s' \"it's $(printf 'a b')\"; printf '%s' \\$HOME"),
                Question("stdin", 'cat; echo "$A_VARIABLE"'),
                Question("fails", "echo before; echo reason >&2; exit 3"),
                Question("as nobody", "id -un", "nobody"),
                Question("large", "seq 1 200000"),
            ],
        )
    assert answers["quotes"].text == "it's a b$HOME"
    assert answers["stdin"].text == "kept\n"
    assert (answers["fails"].code, answers["fails"].text, answers["fails"].why) == (3, "before\n", "reason")
    assert answers["as nobody"].text == "nobody\n"
    assert answers["large"].text.splitlines()[-1] == "200000"
