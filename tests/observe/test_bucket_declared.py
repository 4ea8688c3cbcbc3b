"""The disk of a declared bucket is looked at where it is, and nobody has to say so again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kingpost.cli.main import main
from kingpost.observe import bucket, entering
from kingpost.observe.bucket_declared import declared_disk
from kingpost.observe.bucket_place import Workload
from kingpost.observe.executors.local import Here
from kingpost.observe.executors.ssh import Ssh
from kingpost.topology.checks.example import laid_over
from kingpost.topology.loader import load
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = """
[buckets.own]
provider = "PROVIDER"
data_dir = "/srv/s3/"
credentials = "attic"
listener = { host = "node1", port = 9000 }
"""


def declared(provider="rustfs", text=OWN):
    return Platform(Topology.model_validate(laid_over(text.replace("PROVIDER", provider))))


def test_the_disk_of_this_machine_and_of_another(monkeypatch):
    monkeypatch.setattr(entering.socket, "gethostname", lambda: "node1.example")
    found = declared_disk(declared(), "own")
    assert (found.place, found.path, found.provider) == (Here(), "/srv/s3", "rustfs")
    monkeypatch.setattr(entering.socket, "gethostname", lambda: "elsewhere")
    assert isinstance(declared_disk(declared("minio"), "own").place, Ssh)


def test_the_disk_of_a_pod():
    flywheel = Platform(load(EXAMPLES / "flywheel" / "topology.toml").topology)
    found = declared_disk(flywheel, "attic", "admin@honey")
    assert found.place == Workload("nix-cache", "deployment/attic-rustfs", "", "admin@honey")
    assert found.path == "/data"


def test_a_bucket_that_somebody_else_runs_has_no_disk_here():
    homelab = Platform(load(EXAMPLES / "homelab" / "topology.toml").topology)
    assert declared_disk(homelab, "attic-cache") is None


def test_garage_shows_no_bucket_on_its_disk(capsys):
    assert declared_disk(declared("garage"), "own") is None
    argv = [
        "bucket",
        "rca",
        "own",
        "--endpoint",
        "http://127.0.0.1:1",
        "--disk",
        "/srv",
        "--provider",
        "garage",
    ]
    assert main([*argv, "--no-ledger", "--anonymous"]) == 2
    assert "no bucket can be seen on the disk of garage" in capsys.readouterr().err


def test_rca_looks_at_the_declared_disk_by_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(entering.socket, "gethostname", lambda: "node1")
    data = tmp_path / "data"
    (data / "own").mkdir(parents=True)
    (data / ".rustfs.sys/buckets/own").mkdir(parents=True)
    text = (EXAMPLES / "homelab" / "topology.toml").read_text() + OWN.replace("/srv/s3/", str(data))
    text = text.replace("PROVIDER", "rustfs").replace('credentials = "attic"', 'credentials = "atticd"')
    (tmp_path / "topology.toml").write_text(text)
    monkeypatch.setattr(bucket, "look", lambda *_: bucket.ApiView(False, "404", None, "NoSuchBucket"))
    argv = ["bucket", "rca", "own", "--topology", str(tmp_path / "topology.toml"), "--no-ledger", "--json"]
    assert main([*argv, "--anonymous"]) == 1
    (verdict,) = json.loads(capsys.readouterr().out)["verdicts"]
    assert verdict["code"] == "KP-BUCKET-INDEX-DIVERGENCE"
    assert list(verdict["evidence"]["disk"].values()) == [{"data": True, "entries": 0, "metadata": True}]


@pytest.mark.parametrize("provider", ["rustfs", "minio", "other"])
def test_whoever_keeps_a_folder_for_each_bucket_is_looked_at(provider):
    assert declared_disk(declared(provider), "own") is not None
