"""Whatever is wrong with the words: an explanation and exit code 2 or 3, never a traceback."""

import pytest

from kingpost.cli.main import main

TOKEN = ["--token-file", "t", "--cache", "main", "--no-ledger"]
BUCKET = ["--anonymous", "--no-ledger"]
URLS = ["http://[::1", "http://", "http://a b", "https://127.0.0.1:99999", "nonsense"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").write_text("eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2ln")


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    "argv",
    [
        ["token", "check", *TOKEN, "--server"],
        ["token", "inspect", *TOKEN, "--server"],
        ["bucket", "rca", "attic", *BUCKET, "--endpoint"],
    ],
)
def test_bad_urls(argv, url, capsys):
    assert main([*argv, url]) == 2
    assert "is no URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["token", "check", *TOKEN], 2, "which server is not said"),
        (
            ["token", "check", *TOKEN, "--server", "http://127.0.0.1:9", "--permission", "fly"],
            2,
            "unknown permission",
        ),
        (
            ["token", "check", "--token-file", "t", "--cache", "a/b", "--server", "http://127.0.0.1:9"],
            2,
            "no name of a",
        ),
        (["token", "check", *TOKEN, "--server", "http://127.0.0.1:9"], 3, "does not answer"),
        (["token", "inspect", "--token-file", "absent"], 3, "cannot be read"),
        (["token", "lint", "--kind", "x", "t"], 2, "take raw or env"),
        (["bucket", "rca", "attic", *BUCKET], 2, "is not known"),
        (["bucket", "rca", "a/b", *BUCKET, "--endpoint", "http://127.0.0.1:9"], 2, "no name of a bucket"),
        (["bucket", "rca", "attic", *BUCKET, "--endpoint", "http://h", "--region", "a b"], 2, "is no region"),
        (
            ["bucket", "rca", "attic", *BUCKET, "--endpoint", "http://h", "--disk", "rel"],
            2,
            "no absolute directory",
        ),
        (
            ["bucket", "rca", "attic", *BUCKET, "--endpoint", "http://h", "--expect-interim", "x"],
            2,
            "add --topology",
        ),
        (
            ["bucket", "restart", "attic", *BUCKET, "--endpoint", "http://h", "--server", ""],
            2,
            "nothing to restart",
        ),
        (["cache", "probe", "nonsense"], 2, "no address of a binary cache"),
        (["cache", "probe", "file:///c", "--client", "scp"], 2, "take nix, attic or cachix"),
        (["cache", "probe", "file:///c", "--threshold", "much"], 2, "is no size"),
        (["cache", "probe", "file:///c", "--settle", "long"], 2, "is no duration"),
        (["cache", "probe", "file:///c", "--payload", "x"], 2, "payload of its own"),
    ],
)
def test_bad_words(argv, code, said, capsys, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert main(argv) == code
    assert said in capsys.readouterr().err
