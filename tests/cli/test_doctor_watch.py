"""`doctor --watch`: the first round whole, then what changed, with what it was; `--only` knows its codes."""

from __future__ import annotations

import re

import pytest

from kingpost.cli import doctor
from kingpost.cli.main import main
from kingpost.observe import doctor as observed
from kingpost.observe import doctor_codes as codes

TOPOLOGY = """
site = { name = "s", substituters = [] }
[hosts.a]
memory = "8GiB"
"""
ROUTE = "host:a client -> attic:home/main"
GOOD = [codes.ROUTE_OK.verdict(ROUTE, "it works"), codes.AUTH_NONE.verdict(ROUTE, "private")]
BAD = [codes.ROUTE_REFUSED.verdict(ROUTE, "refused")]


class Enough(Exception):  # noqa: N818 - ends the endless
    """The rounds are over."""


@pytest.fixture
def rounds(tmp_path, monkeypatch, capsys):
    """Give what is printed in each round, whose verdicts are given."""
    (tmp_path / "topology.toml").write_text(TOPOLOGY)
    monkeypatch.chdir(tmp_path)

    def watch(*results, options=()):
        left, printed = list(results), []

        def sleep(_seconds):
            printed.append(capsys.readouterr().out)
            if not left:
                raise Enough

        monkeypatch.setattr(doctor.time, "sleep", sleep)
        monkeypatch.setattr(observed, "examine", lambda *_: left.pop(0))
        with pytest.raises(Enough):
            main(["doctor", "--watch", "60", "--no-ledger", "--here", "a", *options])
        return printed

    return watch


def test_only_what_changed_is_shown_again_with_what_it_was(rounds):
    first, second, third, fourth = rounds(GOOD, GOOD, BAD, GOOD)
    assert ": as it is" in first
    assert "KP-ROUTE-OK" in first
    assert "nothing changed" in second
    assert "KP-ROUTE-OK" not in second
    assert f"changed  {ROUTE}: KP-ROUTE-OK -> KP-ROUTE-REFUSED" in third
    assert f"changed  {ROUTE}: KP-AUTH-NO-TOKEN -> nothing" in third
    assert f"changed  {ROUTE}: KP-ROUTE-REFUSED -> KP-ROUTE-OK" in fourth


def test_files_always_hold_all_of_it(rounds, tmp_path):
    other = codes.ROUTE_OK.verdict("host:a daemon -> attic:home/main", "it works")
    rounds([*GOOD, other], [*BAD, other], options=["--prometheus", str(tmp_path / "metrics")])
    text = (tmp_path / "metrics").read_text()
    assert "KP-ROUTE-REFUSED" in text
    assert re.search(r"kingpost_verdicts{[^}]*ok[^}]*} 1", text), text


@pytest.mark.parametrize("command", ["doctor", "drift", "pressure"])
def test_a_verdict_that_there_is_not(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "topology.toml").write_text(TOPOLOGY)
    monkeypatch.chdir(tmp_path)
    assert main([command, "--only", "KP-ROUTE-REFUSD"]) == 2
    assert "did you mean KP-ROUTE-REFUSED?" in capsys.readouterr().err
