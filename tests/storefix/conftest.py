"""A store of nothing, and a binary cache on loopback, for the tests of where paths come from."""

import os

import pytest
from tests.storefix.caches import NAR, OTHER, PATH, SIGNER, Server, make_cache, make_nar

from kingpost.storefix.interface import StoreRoot
from kingpost.storefix.sources import transport


@pytest.fixture
def server():
    server = Server(make_cache({PATH: (NAR, [PATH, OTHER]), OTHER: (make_nar("other"), [])}, SIGNER))
    yield server
    server.close()


@pytest.fixture
def hurry(monkeypatch):
    """Stall for half a second instead of thirty."""
    monkeypatch.setattr(transport, "STALLED", 0.5)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path):
    root = tmp_path / "root"
    (root / "nix/store").mkdir(parents=True)
    (root / "nix/var/nix").mkdir(parents=True)
    return StoreRoot(root, "/nix/store", root / "nix/store", root / "nix/var/nix", root / "log", root / "etc")
