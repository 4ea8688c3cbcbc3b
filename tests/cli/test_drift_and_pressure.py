"""The two commands as a user calls them: exit codes, outputs, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kingpost.cli.main import main

ROOT = Path(__file__).parents[2]
HOMELAB = str(ROOT / "examples" / "homelab" / "topology.toml")
JOURNAL = str(ROOT / "tests" / "observe" / "journals" / "unit.json")
# A namespace that nobody made.
AWAY = ["--enter", "node1=netns:kingpost-is-not-there", "--host", "node1"]


def test_a_saved_journal_in_every_form_of_output(tmp_path, capsys):
    junit, metrics = tmp_path / "j.xml", tmp_path / "m.prom"
    code = main(["pressure", "--topology", HOMELAB, "--journal", JOURNAL, "--json", "--junit", str(junit),
                 "--prometheus", str(metrics), "--ledger", str(tmp_path / "l.sqlite")])  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert code == 1
    assert (document["command"], document["summary"]["failed"]) == ("pressure", 1)
    assert document["verdicts"][0]["code"] == "KP-OOM-LIMIT"
    assert "KP-OOM-LIMIT" in junit.read_text()
    assert "KP-OOM-LIMIT" in metrics.read_text()
    assert main(["history", "--ledger", str(tmp_path / "l.sqlite")]) == 0


@pytest.mark.parametrize("command", ["drift", "pressure"])
def test_a_host_that_cannot_be_entered_is_skipped_with_the_reason(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([command, "--topology", HOMELAB, *AWAY, "--no-ledger"]) == 3
    output = capsys.readouterr().out
    assert "KP-CONTEXT-NOT-ENTERED" in output
    assert "network namespace kingpost-is-not-there" in output
    assert "failed" not in output.splitlines()[-1]


REFUSED = {
    "unknown host": (["drift", "--host", "node9"], 2, "there is no host 'node9'"),
    "unknown runner": (["drift", "--runner", "x=1"], 2, "there is no runner 'x'"),
    "no id": (["drift", "--runner", "blog=x"], 2, "'x' is no id"),
    "no pair": (["drift", "--gitlab-token", "com"], 2, "write NAME=VALUE"),
    "unknown instance": (["drift", "--gitlab-token", "x=/dev/null"], 2, "there is no GitLab 'x'"),
    "no such way": (["pressure", "--enter", "node1=rsh:x"], 2, "is no way into a context"),
    "no token file": (["drift", "--token-file", "dev-cache=/nonexistent"], 2, "cannot be read"),
    "no duration": (["pressure", "--since", "soon"], 2, "is no duration"),
    "no journal": (["pressure", "--journal", "/nonexistent"], 3, "cannot be read"),
    "two hosts": (
        ["pressure", "--journal", JOURNAL, "--host", "node1", "--host", "thinkpad"],
        2,
        "from one host",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name, capsys):
    arguments, code, words = REFUSED[name]
    assert main([*arguments, "--topology", HOMELAB, "--no-ledger"]) == code
    assert words in capsys.readouterr().err


def test_a_stale_tree_is_told_before_any_host(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", HOMELAB, "-o", "generated"]) == 0
    capsys.readouterr()
    assert main(["drift", "--topology", HOMELAB, *AWAY, "--no-ledger"]) == 0
    assert "files, as declared" in capsys.readouterr().out
    (tmp_path / "generated" / "matrix.md").write_text("mine")
    assert main(["drift", "--topology", HOMELAB, *AWAY, "--no-ledger"]) == 1
    assert "matrix.md: edited by hand" in capsys.readouterr().out
