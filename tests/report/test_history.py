"""Since when is it broken, what was the last good."""

from __future__ import annotations

import json

import pytest

from kingpost.base.ledger import Ledger
from kingpost.base.verdict import Status, Verdict
from kingpost.cli.main import main
from kingpost.report import history


@pytest.fixture
def book(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    yield ledger
    ledger.close()


def look(ledger, day, *found, command="cache audit"):
    run = ledger.start(command)
    ledger.add(run, [Verdict(status, code, subject, "s") for subject, status, code in found])
    ledger.db.execute("update verdicts set seen = ? where run = ?", [f"2026-05-{day:02}T06:00:00+00:00", run])
    ledger.db.conn.commit()
    ledger.finish(run, 0)


def test_broken_since_is_the_first_failure_after_the_last_good_look(book):
    look(book, 1, ("p", Status.FAILED, "KP-A"))
    look(book, 2, ("p", Status.OK, "KP-OK"))
    look(book, 3, ("p", Status.FAILED, "KP-B"), ("q", Status.OK, "KP-OK"))
    look(book, 4, ("p", Status.SKIPPED, "KP-S"))
    look(book, 5, ("p", Status.FAILED, "KP-C"), ("p", Status.OK, "KP-OK"), ("q", Status.EXPECTED, "KP-E"))
    p, q = history.read(book)
    assert p == history.History(
        "cache audit", "p", 4, "2026-05-05T06:00:00+00:00", "2026-05-03T06:00:00+00:00",
        "2026-05-02T06:00:00+00:00", ("KP-C",), 2,
    )  # fmt: skip
    assert (q.broken_since, q.last_good, q.codes, q.breakages) == ("", "2026-05-05T06:00:00+00:00", (), 0)


def test_never_good(book):
    look(book, 1, ("p", Status.FAILED, "KP-A"))
    (p,) = history.read(book)
    assert p.as_dict()["last_good"] is None
    assert p.broken_since == "2026-05-01T06:00:00+00:00"


def test_commands_do_not_mix_and_filters_work(book):
    look(book, 1, ("host x", Status.FAILED, "KP-A"), command="doctor")
    look(book, 2, ("host x", Status.OK, "KP-OK"), command="cache audit")
    assert [(h.command, bool(h.broken_since)) for h in history.read(book, "x")] == [
        ("doctor", True),
        ("cache audit", False),
    ]
    assert [h.command for h in history.read(book, code="KP-A")] == ["doctor"]
    assert history.read(book, "y") == []


def test_command_line(book, capsys):
    look(book, 1, ("p", Status.OK, "KP-OK"), ("q", Status.OK, "KP-OK"))
    look(book, 2, ("p", Status.FAILED, "KP-B"))
    assert main(["history", "--ledger", str(book.path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("broken since 2026-05-02T06:00:00+00:00: p\n    fails with: KP-B\n")
    assert "last good:  2026-05-01T06:00:00+00:00" in text
    assert text.splitlines()[-1].startswith("1 broken, 1 good")
    assert main(["history", "--json", "--all", "--ledger", str(book.path)]) == 0
    assert [s["subject"] for s in json.loads(capsys.readouterr().out)["subjects"]] == ["p", "q"]


def test_no_ledger_yet(tmp_path, capsys):
    assert main(["history", "--ledger", str(tmp_path / "none.sqlite")]) == 3
    assert "no ledger yet" in capsys.readouterr().err
    assert not (tmp_path / "none.sqlite").exists()
