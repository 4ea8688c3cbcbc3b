"""A declared cache is audited at the address, with the key and the token, that its context has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.observe import faults
from tests.observe.many_paths import caches, hash_of

from kingpost.base.errors import UsageError
from kingpost.cli.main import main
from kingpost.observe.audit_declared import declared_cache
from kingpost.render.audits import audit_jobs
from kingpost.topology.loader import load
from kingpost.topology.platform import Platform

HOMELAB = Path(__file__).parents[2] / "examples" / "homelab" / "topology.toml"


@pytest.fixture(scope="module")
def platform():
    return Platform(load(HOMELAB).topology)


def test_the_same_cache_has_another_address_in_another_context():
    flywheel = Platform(load(HOMELAB.parents[1] / "flywheel" / "topology.toml").topology)
    assert declared_cache(flywheel, "main", "host:sting").url == "http://100.90.1.10:30080/main"
    inside = declared_cache(flywheel, "main", "pod:honey/nix").url
    assert inside == "http://attic.nix-cache.svc.cluster.local:8080/main"


def test_key_upstreams_and_token_come_along(platform):
    found = declared_cache(platform, "home/dev-cache", "host:node1")
    assert [key.partition(":")[0] for key in found.keys] == ["dev-cache"]
    assert found.upstreams == ("https://cache.nixos.org",)
    assert found.token_files == (Path("/run/agenix/attic-readers"),)
    other = declared_cache(platform, "cachix:homelab", "host:node1")
    assert (other.url, other.upstreams, other.token_files) == ("https://homelab.cachix.org", (), ())


def test_what_is_not_declared(platform):
    with pytest.raises(UsageError, match="there is no"):
        declared_cache(platform, "no-such-cache", "host:node1")
    with pytest.raises(UsageError):
        declared_cache(platform, "blog-cache", "host:nowhere")


def test_command_line(tmp_path, capsys):
    with faults.serve(caches({1: []})) as server:
        topology = tmp_path / "topology.toml"
        text = HOMELAB.read_text()
        topology.write_text(
            text.replace("[attic.home]\n", f'[substituters.near]\nurl = "{server.url}"\n\n[attic.home]\n', 1)
        )
        words = ["cache", "audit", "near", hash_of(1), "--topology", str(topology), "--no-ledger"]
        code = main([*words, "--context", "host:thinkpad", "--json"])
        out = capsys.readouterr()
        assert (code, out.err) == (0, "")
        assert json.loads(out.out)["cache"] == server.url
        assert main(words) == 2
        assert "--context" in capsys.readouterr().err
    assert main(["cache", "audit", "near", "--topology", str(tmp_path / "absent")]) == 2
    assert "no topology" in capsys.readouterr().err


def test_the_rendered_indexed_job_audits_each_path_once_and_its_reports_merge(tmp_path, capsys, monkeypatch):
    """Play the Job as Kubernetes does: the same command for each index, with the environment that it renders."""
    flywheel = Platform(load(HOMELAB.parents[1] / "flywheel" / "topology.toml").topology)
    (sheet,) = audit_jobs(flywheel).values()
    (job,) = sheet.objects
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 4, 4)
    assert spec["backoffLimitPerIndex"] == 0
    (container,) = spec["template"]["spec"]["containers"]
    for variable in container["env"]:
        if variable["name"] != "HOME":
            monkeypatch.setenv(variable["name"], variable["value"])
    files = caches({number: [] for number in range(1, 21)})
    files[f"nar/{hash_of(7)}.nar.zst"] = b""
    (tmp_path / "paths").write_text("".join(f"{hash_of(number)}\n" for number in range(1, 21)))
    parts, codes = [], []
    with faults.serve(files) as server:
        own = {
            "http://attic.nix-cache.svc.cluster.local:8080/main": server.url,
            "/audit/paths": tmp_path / "paths",
        }
        words = [str(own.get(word, word)) for word in container["command"]]
        assert words[0] == "kingpost"
        assert len(set(words) & set(map(str, own.values()))) == 2
        words = [word for at, word in enumerate(words) if word != "--key" and words[at - 1] != "--key"]
        for index in range(4):
            monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
            codes.append(main(words[1:]))
            parts.append(tmp_path / f"part-{index}.json")
            parts[-1].write_text(capsys.readouterr().out)
    assert sorted(codes) == [0, 0, 0, 1]
    assert main(["cache", "merge", *map(str, parts), "--json", "--no-ledger"]) == 1
    merged = json.loads(capsys.readouterr().out)
    assert merged["summary"] == {"ok": 19, "expected": 0, "failed": 1, "skipped": 0}
