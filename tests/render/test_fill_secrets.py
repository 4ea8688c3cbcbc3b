"""The script that puts tokens into configuration files: what it takes, what it refuses, what it never says."""

from __future__ import annotations

import subprocess

import pytest

from kingpost.render.sources import templates

SCRIPT = templates() / "modules" / "fill-secrets.sh"
TOKEN = "glrt-t1_AbC.def-123=="


@pytest.fixture
def fill(tmp_path):
    """Run the script on a template `a @T@ b` with one secret; gives (exit code, result or None, what it said)."""
    template, target, secret = tmp_path / "template", tmp_path / "made" / "target", tmp_path / "my secret"

    def run(content: bytes | None, format_="raw", text='a = "@T@"\n\n', arguments=("@T@",)):
        template.write_text(text)
        if content is not None:
            secret.write_bytes(content)
        words = [word for placeholder in arguments for word in (placeholder, format_, secret)]
        done = subprocess.run(
            ["bash", SCRIPT, template, target, "0600", tmp_path, *words],
            capture_output=True,
            check=False,
            timeout=30,
        )
        said = (done.stdout + done.stderr).decode()
        result = target.read_text() if target.exists() else None
        if target.parent.is_dir():
            assert [path.name for path in target.parent.iterdir()] in ([], ["target"])
        return done.returncode, result, said

    return run


@pytest.mark.parametrize(
    ("content", "format_"),
    [
        (TOKEN.encode(), "raw"),
        (TOKEN.encode() + b"\n", "raw"),
        (f"NAME={TOKEN}".encode(), "env:NAME"),
        (f"# a\nNAME_TOO=1\nexport NAME={TOKEN}\n".encode(), "env:NAME"),
        (f"NAME='{TOKEN}'\n".encode(), "env:NAME"),
        (f'NAME="{TOKEN}"\n'.encode(), "env:NAME"),
        (f"NAME=old\nNAME={TOKEN}\n".encode(), "env:NAME"),
    ],
)
def test_takes_a_token(fill, content, format_):
    code, result, said = fill(content, format_)
    assert (code, result, said) == (0, f'a = "{TOKEN}"\n\n', "")


@pytest.mark.parametrize(
    ("content", "format_", "message"),
    [
        (None, "raw", "is not there"),
        (b"", "raw", "is empty"),
        (b"\n", "raw", "is empty"),
        (b"NAME=\n", "env:NAME", "is empty"),
        (b"secret\r\n", "raw", "carriage returns"),
        (b"NAME=secret\r\n", "env:NAME", "carriage returns"),
        (b"CI_SERVER_TOKEN=secret\n", "raw", "NAME=value"),
        (b"secret\n\n", "raw", "more than one line"),
        (b"sec\nret", "raw", "more than one line"),
        (b"sec ret", "raw", "a character that no token has"),
        (b'secret"', "raw", "a character that no token has"),
        (b"NAME=$secret", "env:NAME", "a character that no token has"),
        ("sécret".encode(), "raw", "a character that no token has"),
        (b"OTHER=secret\n", "env:NAME", "there is no line NAME="),
    ],
)
def test_refuses_what_is_no_token_without_saying_it(fill, content, format_, message):
    code, result, said = fill(content, format_)
    assert (code, result) == (1, None)
    assert message in said
    assert "my secret" in said
    assert "fix: " in said
    assert "secret" not in said.replace("my secret", "").replace("the secret", "").replace("its secret", "")


def test_a_replacement_is_taken_literally(fill):
    # In bash an unquoted & in a replacement stands for what was matched.
    assert fill(b"a~b", text="@T@ @T@ & \\1\n")[1] == "a~b a~b & \\1\n"


def test_a_placeholder_that_is_not_there_is_an_error(fill):
    code, result, said = fill(TOKEN.encode(), text="nothing\n")
    assert (code, result) == (1, None)
    assert "has no @T@" in said


def test_a_runner_without_a_declared_token_is_an_error(fill):
    code, result, said = fill(TOKEN.encode(), text="@T@ @TOKEN:blog@")
    assert (code, result) == (1, None)
    assert "no secret is declared for @TOKEN:blog@" in said


def test_a_failure_keeps_the_old_file(fill):
    assert fill(TOKEN.encode())[0] == 0
    code, result, _ = fill(b"two words")
    assert (code, result) == (1, f'a = "{TOKEN}"\n\n')


def test_the_file_is_for_its_owner_alone(fill, tmp_path):
    fill(TOKEN.encode())
    assert (tmp_path / "made" / "target").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
