"""What Nix's messages say of substituters. Each text was printed by the version named beside it."""

from __future__ import annotations

import pytest

from kingpost.observe.nixlog import Reason, complaint, parse

MESSAGES = [
    # 2.8, then 2.34
    ("unable to download 'http://b/nix-cache-info': Couldn't connect to server (7)", Reason.REFUSED),
    ("unable to download 'http://b/nix-cache-info': Could not connect to server (7) Failed to connect", Reason.REFUSED),
    ("unable to download 'http://b/nix-cache-info': Timeout was reached (28)", Reason.TIMEOUT),
    ("unable to download 'http://b/x.narinfo': Could not resolve hostname (6) x", Reason.UNRESOLVED),
    ("unable to download 'https://b/x.narinfo': SSL peer certificate was not OK (60)", Reason.TLS),
    ("unable to download 'http://b/x.narinfo': HTTP error 500 ('Internal Server Error')", Reason.HTTP_ERROR),
    ("unable to download 'http://b/nix-cache-info': HTTP error 401", Reason.DENIED),
    ("unable to download 'http://b/x.narinfo': HTTP error 429", Reason.LIMITED),
    ("unable to download 'http://b/nar/1.nar.zst': HTTP error 200 ('OK') (curl error: Transferred a partial file)",
     Reason.NAR_CUT),
    ("unable to download 'http://b/nar/1.nar': HTTP error 200 (curl error: Timeout was reached)", Reason.NAR_STALLED),
    ("'http://b' does not appear to be a binary cache", Reason.NO_CACHE),
    ("binary cache 'http://b' is for Nix stores with prefix '/other/store', not '/nix/store'", Reason.OTHER_STORE),
    ("NAR for '/nix/store/x-y' fetched from 'http://b' is incomplete", Reason.NAR_INCOMPLETE),
    ("Failed to open archive (Truncated zstd input)", Reason.NAR_CORRUPT),
    ("Restored data doesn't match checksum", Reason.NAR_CORRUPT),
    ("hash mismatch importing path '/nix/store/x-y';\n  specified: sha256:a\n  got: sha256:b", Reason.NAR_MISMATCH),
    ("file 'nar/1.nar.zst' does not exist in binary cache 'http://b'", Reason.NAR_MISSING),
    ("the substitute for '/nix/store/x-y' from 'http://b' is not signed by any of the keys in 'trusted-public-keys'",
     Reason.UNTRUSTED),
    ("ignoring substitute for '/nix/store/x-y' from 'http://b', as it's not signed by any of the keys in 'x'",
     Reason.UNTRUSTED),
    ("disabling binary cache 'http://b' for 60 seconds", Reason.DISABLED),
    ("NAR info file '3lp8p9hc8bgxfcfidg5cl52k17fnhkgg.narinfo' is corrupt: expecting ':' at line 1",
     Reason.NARINFO_CORRUPT),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), MESSAGES)
def test_a_message_and_what_it_means(text, reason):
    found = complaint(f"\x1b[31;1merror:\x1b[0m {text}")
    assert found is not None
    assert found.reason is reason
    assert not found.url or found.url.startswith("http")


@pytest.mark.parametrize(
    "text", ["these 3 paths will be fetched", "evaluating file '/x.nix'", "", "error: builder for 'x' failed"]
)
def test_other_messages_say_nothing_of_substituters(text):
    assert complaint(text) is None


def test_a_retry_is_no_failure_yet():
    assert complaint(
        "unable to download 'http://b/x': HTTP error 503; retrying in 260 ms (attempt 1/2)"
    ).retries


@pytest.mark.parametrize(
    "line", ["", "building...", "@nix", "@nix {", '@nix {"action":"st', "@nix []", "@nix 7"]
)
def test_what_is_no_event(line):
    assert parse(line) is None
