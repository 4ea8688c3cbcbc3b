"""The commands about a topology, as a user types them."""

import json
import os
import tomllib
from pathlib import Path

import jsonschema
import pytest
from benchmarks._fleet import fleet

from kingpost.base import beside
from kingpost.cli.main import main
from kingpost.topology.checks import run_checks
from kingpost.topology.loader import load
from kingpost.topology.platform import Platform

ROOT = Path(__file__).parents[2]
MINIMAL = ROOT / "examples" / "minimal" / "topology.toml"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Stand in an empty directory with the minimal example."""
    (tmp_path / "topology.toml").write_text(MINIMAL.read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(here: Path, old: str, new: str) -> None:
    path = here / "topology.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_fleet_that_is_refused_leaves_no_process_and_no_file(tmp_path, capsys, monkeypatch):
    """It is rendered by a second process while it is checked."""
    monkeypatch.setattr(beside, "_processors", lambda: 2)
    topology = tmp_path / "topology.toml"
    topology.write_text(fleet(50).replace('memory_max = "8GiB"', 'memory_max = "64GiB"', 1))
    assert main(["generate", str(topology), "-o", str(tmp_path / "out")]) == 2
    assert "KP-MEM-HOST" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_generates_into_generated_and_says_what(here, capsys):
    assert main(["generate"]) == 0
    out = capsys.readouterr().out
    assert "created  generated/hosts/box/default.nix" in out
    assert "0 unchanged" in out
    assert (here / "generated" / "manifest.json").exists()
    assert main(["generate", "topology.toml", "-o", "generated"]) == 0
    assert "0 files changed" in capsys.readouterr().out


def test_check_lists_what_is_stale_and_writes_nothing(here, capsys):
    assert main(["generate", "--check"]) == 1
    assert "missing  generated/hosts/box/default.nix" in capsys.readouterr().out
    assert not (here / "generated").exists()
    main(["generate"])
    assert main(["generate", "--check"]) == 0
    change(here, "port = 8080", "port = 8081")
    capsys.readouterr()
    assert main(["generate", "--check"]) == 1
    out = capsys.readouterr().out
    assert "stale    generated/hosts/box/atticd-home.toml" in out
    assert "8081" not in (here / "generated/hosts/box/atticd-home.toml").read_text()


def test_check_sees_an_edit(here, capsys):
    main(["generate"])
    (here / "generated/hosts/box/atticd-home.toml").write_text("# mine\n")
    assert main(["generate", "--check"]) == 1
    assert "(edited by hand)" in capsys.readouterr().out
    assert main(["generate"]) == 1
    assert "not as kingpost left it: hosts/box/atticd-home.toml" in capsys.readouterr().err
    assert main(["generate", "--force"]) == 0
    assert main(["generate", "--check"]) == 0


def test_diff_shows_and_writes_nothing(here, capsys):
    main(["generate"])
    change(here, "port = 8080", "port = 8081")
    capsys.readouterr()
    assert main(["generate", "--diff"]) == 0
    out = capsys.readouterr().out
    assert "--- a/hosts/box/atticd-home.toml\n+++ b/hosts/box/atticd-home.toml\n" in out
    assert '+listen = "172.17.0.1:8081"' in out or '+listen = "0.0.0.0:8081"' in out
    assert main(["generate", "--diff", "--check"]) == 1


def test_a_topology_with_problems_is_refused_with_places(here, capsys):
    change(here, 'secret = "atticd"', 'secret = "atticdd"')
    assert main(["generate"]) == 2
    error = capsys.readouterr().err
    assert "topology.toml:" in error
    assert "fix:" in error
    assert not (here / "generated").exists()


OTHER = '[hosts.other]\nmemory = "4GiB"\ndocker = { bip = "172.30.0.1/16" }\nsubstituters = []\n\n[hosts.box]'


def test_only_one_host_leaves_the_folders_of_others_and_brings_the_rest_up_to_date(here, capsys):
    change(here, "[hosts.box]", OTHER)
    assert main(["generate"]) == 0
    change(here, "port = 8080", "port = 8081")
    change(here, "172.30.0.1", "172.31.0.1")
    assert main(["generate", "--only", "box"]) == 0
    assert "8081" in (here / "generated/hosts/box/atticd-home.toml").read_text()
    assert "172.30.0.1" in (here / "generated/hosts/other/docker.nix").read_text()
    assert ":8081" in (here / "generated/matrix.md").read_text()
    assert main(["generate", "--only", "box", "--check"]) == 0
    assert main(["generate", "--only", "other", "--check"]) == 1
    assert main(["generate", "--check"]) == 1
    assert main(["generate", "--only", "other"]) == 0
    assert main(["generate", "--check"]) == 0, "all hosts are as they should be, one by one"
    capsys.readouterr()
    assert main(["generate", "--only", "bx"]) == 2
    assert "did you mean 'box'" in capsys.readouterr().err


def test_only_leaves_the_folder_of_a_host_that_was_removed(here):
    change(here, "[hosts.box]", OTHER)
    assert main(["generate"]) == 0
    change(here, OTHER, "[hosts.box]")
    assert main(["generate", "--only", "box"]) == 0
    assert (here / "generated/hosts/other/docker.nix").exists()
    assert "hosts/other" not in (here / "generated/default.nix").read_text()
    assert main(["generate"]) == 0
    assert not (here / "generated/hosts/other").exists()


def test_after_only_one_host_the_others_are_still_to_be_written(here):
    change(here, "[hosts.box]", OTHER)
    assert main(["generate", "--only", "box"]) == 0
    assert not (here / "generated/hosts/other").exists()
    assert main(["generate", "--check"]) == 1
    assert main(["generate"]) == 0
    assert (here / "generated/hosts/other/docker.nix").exists()


def test_json_says_the_same(here, capsys):
    main(["generate", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "kingpost.generate/1"
    assert found["written"] is True
    assert {"path": "hosts/box/default.nix", "change": "create", "edited": False} in found["changes"]
    main(["generate", "--json", "--check"])
    found = json.loads(capsys.readouterr().out)
    assert (found["stale"], found["changes"]) == (False, [])


def test_an_output_that_cannot_be_made_is_explained(here, capsys):
    (here / "file").write_text("")
    assert main(["generate", "-o", "file/generated"]) == 1
    error = capsys.readouterr().err
    assert "cannot be used" in error
    assert "Traceback" not in error


def test_init_writes_what_passes_check_and_overwrites_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    loaded = load(tmp_path / "topology.toml")
    assert run_checks(loaded.topology, Platform(loaded.topology)) == []
    assert main(["init"]) == 2
    assert "there is a file already" in capsys.readouterr().err
    assert main(["init", "no/such/dir.toml"]) == 1
    assert main(["init", "other.toml"]) == 0
    assert main(["generate", "other.toml"]) == 0


def test_matrix_has_both_dialers_of_every_context(here, capsys):
    assert main(["matrix", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    found = {(row["context"], row["dialer"], row["service"]): row["url"] for row in rows}
    assert found["docker:box/builds", "client", "attic:home"] == "http://172.17.0.1:8080"
    assert found["host:box", "daemon", "attic:home"] == "http://127.0.0.1:8080"


def test_matrix_filters(here, capsys):
    assert main(["matrix", "--json", "--context", "builds", "--service", "attic"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {(row["context"], row["service"]) for row in rows} == {("docker:box/builds", "attic:home")}
    assert main(["matrix", "--needed", "--json"]) == 0
    assert all(row["needs"] for row in json.loads(capsys.readouterr().out)["rows"])
    assert main(["matrix", "--markdown"]) == 0
    assert "| attic:home | client | `http://172.17.0.1:8080` |" in capsys.readouterr().out
    assert main(["matrix"]) == 0
    assert " * attic:home" in capsys.readouterr().out


def test_explain_says_the_address_and_why(here, capsys):
    assert main(["explain", "topology.toml", "docker:box/builds", "attic"]) == 0
    out = capsys.readouterr().out
    assert "http://172.17.0.1:8080" in out
    assert "the bridge's gateway" in out
    assert main(["explain", "topology.toml", "builds", "attic:home", "--json"]) == 0
    hops = json.loads(capsys.readouterr().out)["hops"]
    assert {hop["dialer"] for hop in hops} == {"client", "daemon"}


def test_explain_says_why_not_and_the_fix(here, capsys):
    change(here, "[hosts.box]", '[hosts.far]\nmemory = "4GiB"\n\n[hosts.box]')
    assert main(["explain", "topology.toml", "host:far", "attic"]) == 1
    out = capsys.readouterr().out
    assert "unreachable" in out
    assert "fix: " in out


@pytest.mark.parametrize(
    ("words", "hint"),
    [(["docker:box/bilds", "attic"], "docker:box/builds"), (["builds", "atic:home"], "attic:home")],
)
def test_explain_guesses_what_was_meant(here, capsys, words, hint):
    assert main(["explain", "topology.toml", *words]) == 2
    assert f"did you mean '{hint}'" in capsys.readouterr().err


def test_the_schema_accepts_what_kingpost_accepts_and_refuses_unknown_keys(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for example in sorted((ROOT / "examples").glob("*/topology.toml")):
        document = json.loads(json.dumps(tomllib.loads(example.read_text()), default=str))
        assert not list(validator.iter_errors(document)), example
    document["hosts"]["box"] = {"memory": "1GiB", "memmory": "2GiB"}
    assert list(validator.iter_errors(document))
