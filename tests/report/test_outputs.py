"""What a command's user gets: text, JSON, JUnit, metrics, the ledger and the exit code, all from one list."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.base.errors import CannotLookError, KingpostError
from kingpost.base.ledger import opened
from kingpost.base.verdict import Status, Verdict
from kingpost.cli.outputs import Outputs, Recorder, finish
from kingpost.report import junit, prometheus, terminal

OK = Verdict(Status.OK, "KP-T-OK", "/nix/store/a", "it is there")
EXPECTED = Verdict(Status.EXPECTED, "KP-T-EXPECTED", "/nix/store/b", "private, and no token was given")
FAILED = Verdict(
    Status.FAILED, "KP-T-EMPTY", "/nix/store/c", "nothing came", {"body_bytes": 0, "s": ""}, "look at S3"
)
SKIPPED = Verdict(Status.SKIPPED, "KP-T-SKIPPED", "/nix/store/d", "not asked for")
ALL = [OK, EXPECTED, FAILED, SKIPPED]

texts = st.text(max_size=40)
verdicts = st.lists(
    st.builds(
        Verdict,
        st.sampled_from(Status),
        st.just("KP-T-ANY"),
        texts,
        texts,
        st.dictionaries(texts, st.one_of(texts, st.integers(), st.booleans(), st.none()), max_size=3),
        texts,
    ),
    max_size=6,
)


def shown(found, note=""):
    stream = io.StringIO()
    terminal.show(found, stream, note=note)
    return stream.getvalue()


def test_terminal_shows_what_failed_last_with_evidence_and_remedy():
    text = shown(ALL, "4 paths")
    lines = text.splitlines()
    assert lines[-1] == "1 failed, 1 skipped, 1 expected, 1 ok; 4 paths"
    at = lines.index("failed   /nix/store/c")
    assert lines[at + 1 : at + 4] == [
        "         nothing came [KP-T-EMPTY]",
        "         seen: body_bytes=0",
        "         do:   look at S3",
    ]
    assert at + 4 == len(lines) - 1
    assert "\x1b" not in text


def test_many_good_ones_are_only_counted():
    many = [Verdict(Status.OK, "KP-T-OK", f"/nix/store/{n}", "fine") for n in range(500)]
    assert shown([*many, FAILED]).count("\n") == 5
    assert shown(many) == "500 ok\n"


def test_one_cause_does_not_fill_the_screen():
    many = [Verdict(Status.FAILED, "KP-T-X", f"/nix/store/{n}", "gone", {}, "do this") for n in range(500)]
    lines = shown(many).splitlines()
    assert lines[-2] == "failed   and 480 more [KP-T-X]; --json lists all"
    assert len(lines) == 20 * 3 + 2


def test_nothing_checked_says_so():
    assert shown([]) == "nothing was checked\n"


def test_a_servers_text_cannot_drive_the_terminal():
    nasty = Verdict(Status.FAILED, "KP-T-X", "a\x1b[2Jb\rc", "[bold]x[/bold] :smile:", {"body": "\x07\u202e"})
    text = shown([nasty])
    assert "a\\x1b[2Jb\\x0dc" in text
    assert "[bold]x[/bold] :smile:" in text
    assert not any(c in text for c in "\x1b\x07\r\u202e")


@given(verdicts)
def test_junit_is_always_parseable_and_complete(found):
    root = ET.fromstring(junit.render("cache audit", found).encode())
    assert len(list(root.iter("testcase"))) == len(found)
    assert len(list(root.iter("failure"))) == sum(v.status is Status.FAILED for v in found)
    assert root.get("failures") == str(sum(v.status is Status.FAILED for v in found))


def test_junit_tells_the_four_apart():
    root = ET.fromstring(junit.render("cache audit", ALL).encode())
    children = [[child.tag for child in case] for case in root.iter("testcase")]
    assert children == [[], ["system-out"], ["failure"], ["skipped"]]
    failure = next(root.iter("failure"))
    assert failure.get("type") == "KP-T-EMPTY"
    assert "do: look at S3" in failure.text


def test_prometheus_text():
    lines = prometheus.render("cache audit", ALL, now=1.5e9).splitlines()
    assert 'kingpost_verdicts{command="cache audit",status="failed"} 1' in lines
    assert 'kingpost_verdict_codes{command="cache audit",code="KP-T-EMPTY"} 1' in lines
    assert 'kingpost_failed{command="cache audit",code="KP-T-EMPTY",subject="/nix/store/c"} 1' in lines
    assert 'kingpost_exit_code{command="cache audit"} 1' in lines
    assert 'kingpost_finished_seconds{command="cache audit"} 1500000000' in lines


@given(verdicts)
def test_prometheus_lines_are_samples_without_duplicates(found):
    samples = [
        line
        for line in prometheus.render("c", found, now=1.0).split("\n")
        if line and not line.startswith("#")
    ]
    names = [line.rpartition(" ")[0] for line in samples]
    assert len(names) == len(set(names))
    for line in samples:
        float(line.rpartition(" ")[2])


def test_prometheus_does_not_drown_in_subjects():
    many = [Verdict(Status.FAILED, "KP-T-X", f"/nix/store/{n}", "gone") for n in range(1000)]
    text = prometheus.render("cache audit", many)
    assert text.count("kingpost_failed{") == prometheus.MOST_SUBJECTS
    assert 'code="KP-T-X"} 1000' in text


def test_finish_writes_everything(tmp_path, capsys):
    outputs = Outputs(True, tmp_path / "j.xml", tmp_path / "p.prom", tmp_path / "l.sqlite")
    assert finish("cache audit", ALL, outputs, paths=4) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "kingpost.report/1"
    assert document["summary"] == {"ok": 1, "expected": 1, "failed": 1, "skipped": 1}
    assert document["paths"] == 4
    assert (tmp_path / "p.prom").stat().st_mode & 0o777 == 0o644
    assert ET.parse(tmp_path / "j.xml").getroot().get("tests") == "4"
    with opened(tmp_path / "l.sqlite") as ledger:
        assert [row["code"] for row in ledger.history()] == [v.code for v in reversed(ALL)]
        assert next(ledger.db.query("select * from runs"))["exit_code"] == 1
    assert sorted(p.name for p in tmp_path.iterdir() if "sqlite-" not in p.name) == [
        "j.xml",
        "l.sqlite",
        "p.prom",
    ]


@pytest.mark.parametrize(
    ("found", "code"), [([], 3), ([SKIPPED], 3), ([OK, SKIPPED], 0), ([EXPECTED], 0), ([OK, FAILED], 1)]
)
def test_exit_codes(found, code, capsys):
    assert finish("x", found, Outputs(no_ledger=True)) == code
    assert capsys.readouterr().out


def test_a_run_recorded_as_it_goes_survives_a_kill(tmp_path):
    outputs = Outputs(ledger=tmp_path / "l.sqlite")
    with Recorder("cache audit", outputs) as recorder:
        recorder.add([OK])
    with opened(outputs.ledger) as ledger:
        run = next(ledger.db.query("select * from runs"))
        assert (run["finished"], run["exit_code"]) == (None, None)
        assert [row["code"] for row in ledger.history()] == ["KP-T-OK"]


def test_the_default_ledger_may_fail_but_a_named_one_may_not(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    blocked = tmp_path / "file" / "l.sqlite"
    with pytest.raises(CannotLookError):
        finish("x", [OK], Outputs(ledger=blocked))
    monkeypatch.setenv("KINGPOST_LEDGER", str(blocked))
    assert finish("x", [OK], Outputs()) == 0
    assert "not recorded" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(KingpostError) as caught:
        finish("x", [OK], Outputs(junit=tmp_path / "no" / "j.xml", no_ledger=True))
    assert caught.value.where == str(tmp_path / "no" / "j.xml")
