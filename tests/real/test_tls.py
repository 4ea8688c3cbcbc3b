"""Real TLS servers, wrong in one way each, walked by doctor's probes and by an audit: each is named for what it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib

import pytest
from tests.real.tls_servers import KINDS, Authority, tls_server

from kingpost.observe.doctor import Walk, examine
from kingpost.observe.entering import Entrance
from kingpost.observe.executors.local import Here
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform

EXPECTED = {
    "good": "KP-ROUTE-OK",
    "self-signed": "KP-TLS-UNTRUSTED",
    "unknown-authority": "KP-TLS-UNTRUSTED",
    "expired": "KP-TLS-EXPIRED",
    "not-yet": "KP-TLS-EXPIRED",
    "other-name": "KP-TLS-NAME",
    "refused": "KP-ROUTE-TLS",
    "plain": "KP-ROUTE-SCHEME",
}
#: Directories of a PATH on which there is only this to ask with.
TOOLS = {"python": (), "curl": ("curl",), "wget": ("wget",)}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def tools(directory, names):
    """Make a PATH without Python."""
    directory.mkdir()
    for name in ("sh", "sed", "tail", "tr", "grep", *names):
        program = shutil.which(name)
        if program is None:
            pytest.skip(f"{name} is not here")
        (directory / name).symlink_to(program)
    return str(directory)


def doctor(url):
    text = f"""
site = {{ name = "s", substituters = ["substituter:own"] }}
[hosts.a]
memory = "8GiB"
[substituters.own]
url = "{url}"
public_key = "main:MOjxCMhKFSIS5JGtq5dJYyhVKlCr9vkVuPXBgq6XIWs="
"""
    platform = Platform(Topology.model_validate(tomllib.loads(text)))
    walk = Walk(frozenset({"host:a"}), frozenset({"substituter:own"}), timeout=3.0)
    verdicts = examine(platform, Entrance(platform, None, {"host:a": Here()}), walk)
    assert len({verdict.code for verdict in verdicts}) == 1, verdicts
    return verdicts[0]


@pytest.mark.parametrize("tool", TOOLS)
def test_each_fault_has_its_name(authority, tool, tmp_path, monkeypatch):
    monkeypatch.setenv("NIX_SSL_CERT_FILE", str(authority.bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(authority.bundle))
    (tmp_path / "wgetrc").write_text(f"ca_certificate = {authority.bundle}\n")
    monkeypatch.setenv("WGETRC", str(tmp_path / "wgetrc"))
    if TOOLS[tool]:
        monkeypatch.setenv("PATH", tools(tmp_path / "bin", TOOLS[tool]))
    seen = {}
    for kind in KINDS:
        with tls_server(authority, kind) as port:
            seen[kind] = doctor(f"https://127.0.0.1:{port}")
    assert {kind: verdict.code for kind, verdict in seen.items()} == EXPECTED, seen
    for kind, verdict in seen.items():
        if kind != "good":
            assert "TLS" in verdict.summary


@pytest.mark.parametrize("tool", ["python", "curl"])
def test_http_where_the_port_speaks_tls(authority, tool, tmp_path, monkeypatch):
    if TOOLS[tool]:
        monkeypatch.setenv("PATH", tools(tmp_path / "bin", TOOLS[tool]))
    with tls_server(authority, "good") as port:
        assert doctor(f"http://127.0.0.1:{port}").code == "KP-ROUTE-SCHEME"


#: What the audit's own evidence says of each.
REASONS = {
    "good": "",
    "self-signed": "self-signed",
    "unknown-authority": "local issuer",
    "expired": "expired",
    "not-yet": "not yet valid",
    "other-name": "IP address mismatch",
    "refused": "handshake failure",
    "plain": "wrong version number",
}


def test_an_audit_names_them_too(authority, tmp_path, monkeypatch):
    monkeypatch.setenv("NIX_SSL_CERT_FILE", str(authority.bundle))
    path = "/nix/store/8iv5j0f2difw6wg9vwj9r2raacb08fkv-x"
    for kind, reason in REASONS.items():
        with tls_server(authority, kind) as port:
            done = subprocess.run(
                [sys.executable, "-m", "kingpost", "cache", "audit", "--json", "--no-ledger",
                 f"https://127.0.0.1:{port}", path],
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
        report = json.loads(done.stdout)
        codes = {verdict["code"] for verdict in report["verdicts"]}
        if kind == "good":
            assert "KP-CACHE-TLS" not in codes
        else:
            assert codes == {"KP-CACHE-TLS"}, (kind, report)
            assert reason in json.dumps(report["verdicts"]), (kind, report)
