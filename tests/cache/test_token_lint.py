import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kingpost.base.errors import CannotLookError
from kingpost.cache import token_lint
from kingpost.cache.token_lint import Kind

VALUE = "eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2lnbmF0dXJl"
KEY = base64.b64encode(bytes(range(200, 248))).decode()
ECHOED = base64.b64encode(b"a secret that echo wrote\n").decode()
PEM = "-----BEGIN RSA PRIVATE KEY-----\nQUJD\n-----END RSA PRIVATE KEY-----\n"


def lint(tmp_path, data, name="secret", kind=None, mode=0o600):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(mode)
    return token_lint.lint(path, kind)


CASES = [
    # data, kind, codes, line of the first finding
    (VALUE, Kind.RAW, ["FILE-OK"], None),
    (KEY, None, ["FILE-OK"], None),
    (PEM, None, ["FILE-OK"], None),
    (VALUE + "\n", Kind.RAW, ["NEWLINE"], None),
    (VALUE + "\n", None, ["NEWLINE"], None),
    ("\n" + VALUE, None, ["NEWLINE"], None),
    (VALUE + "\nrest", None, ["NEWLINE"], 1),
    (VALUE + "\r\n", None, ["CRLF", "NEWLINE"], 1),
    (f'"{VALUE}"', None, ["QUOTES"], 1),
    (f"'{VALUE}", None, ["QUOTES"], 1),
    (f" {VALUE}", None, ["BLANK"], 1),
    (f"{VALUE}\t", None, ["BLANK"], 1),
    ("\ufeff" + VALUE, None, ["BLANK"], 1),
    ("Bearer " + VALUE, None, ["PREFIX"], 1),
    ("Authorization: Bearer " + VALUE, None, ["PREFIX"], 1),
    ("", None, ["EMPTY"], None),
    ("\n", None, ["EMPTY"], None),
    (ECHOED, None, ["ENCODED-NEWLINE"], 1),
    (base64.b64encode(PEM.encode()), None, ["FILE-OK"], None),
    (f"ATTIC_TOKEN={VALUE}", Kind.RAW, ["ASSIGNMENT"], 1),
    (f"ATTIC_TOKEN={VALUE}\n", None, ["FILE-OK"], None),
    (f"ATTIC_TOKEN={VALUE}\n# note\n\nB=2\n", None, ["FILE-OK"], None),
    (f"A=1\nATTIC_TOKEN={VALUE}\r\nB=2\r\n", None, ["CRLF"], 2),
    (f"ATTIC_TOKEN='{VALUE}'\n", None, ["QUOTES"], 1),
    (f"export ATTIC_TOKEN={VALUE}\n", None, ["SHELL"], 1),
    (f"A=1\nATTIC_TOKEN = {VALUE}\n", Kind.ENV, ["SHELL", "BLANK"], 2),
    (f"ATTIC_TOKEN={VALUE} \n", None, ["BLANK"], 1),
    ("A=1\nATTIC_TOKEN=\n", Kind.ENV, ["EMPTY"], 2),
    ("ATTIC_TOKEN=''\n", Kind.ENV, ["QUOTES", "EMPTY"], 1),
    (VALUE + "\n", Kind.ENV, ["BARE"], 1),
    (KEY + "\n", Kind.ENV, ["BARE"], 1),
    ("QUJDREVGR0hJSktMTU5PUA==\n", Kind.ENV, ["BARE"], 1),
    (f"A=1\n{VALUE}\n", None, ["BARE"], 2),
    (f"ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64={ECHOED}\n", None, ["ENCODED-NEWLINE"], 1),
]


@pytest.mark.parametrize(("data", "kind", "codes", "line"), CASES)
def test_what_is_wrong_with_a_file(tmp_path, data, kind, codes, line):
    found = lint(tmp_path, data, kind=kind)
    assert [verdict.code.removeprefix("KP-SECRET-") for verdict in found] == codes
    assert found[0].evidence.get("line") == line
    shown = json.dumps([verdict.as_dict() for verdict in found])
    for secret in (VALUE, KEY, ECHOED, "QUJDREVGR0hJSktMTU5PUA"):
        assert secret not in shown


@pytest.mark.parametrize("name", ["attic.env", "runner-env", "environment", "token.env.age"])
def test_a_bare_token_in_an_environment_file_is_known_by_the_files_name(tmp_path, name):
    assert [v.code for v in lint(tmp_path, VALUE, name)] == ["KP-SECRET-BARE"]


def test_others_who_may_read_and_the_store(tmp_path):
    found = lint(tmp_path, VALUE, mode=0o640)
    assert [v.code for v in found] == ["KP-SECRET-READABLE"]
    assert found[0].evidence == {"mode": "0640"}
    (tmp_path / "store").mkdir()
    lint(tmp_path, VALUE, "store/abc-secret", mode=0o444)
    (tmp_path / "link").symlink_to("store/abc-secret")
    found = token_lint.lint(tmp_path / "link", store=tmp_path / "store")
    assert [v.code for v in found] == ["KP-SECRET-IN-STORE"]


def test_files_that_cannot_be_looked_at(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(CannotLookError):
            token_lint.lint(path)


@settings(max_examples=300, deadline=None)
@given(st.text("AB=a'\" \n\r\t#export;\ufeff", max_size=40), st.sampled_from([None, *Kind]))
def test_a_file_passes_only_if_its_reader_gets_the_value_itself(tmp_path_factory, text, kind):
    path = tmp_path_factory.mktemp("lint") / "secret"
    path.write_bytes(text.encode())
    path.chmod(0o600)
    (first, *_) = found = token_lint.lint(path, kind)
    assert found
    if first.code == "KP-SECRET-FILE-OK" and kind is Kind.RAW:
        assert text == text.strip()
        assert "\n" not in text
        assert text[:1] not in "'\""
