"""Whom the HTTP client trusts."""

from __future__ import annotations

import pytest

from kingpost.base.errors import InvalidInputError
from kingpost.base.http import client


def test_a_file_of_no_certificates_is_named(tmp_path, monkeypatch):
    (tmp_path / "authorities").write_text("these are no certificates\n")
    monkeypatch.setenv("NIX_SSL_CERT_FILE", str(tmp_path / "authorities"))
    with pytest.raises(InvalidInputError, match="authorities cannot be read") as caught:
        client()
    assert caught.value.where == str(tmp_path / "authorities")


def test_a_file_that_is_set_and_not_there_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv("NIX_SSL_CERT_FILE", str(tmp_path / "absent"))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    client().close()
