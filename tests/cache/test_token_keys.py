import base64
import json
import os
import stat
from pathlib import Path

import pytest

from kingpost.base.errors import CannotLookError, InvalidInputError, KingpostError, UsageError
from kingpost.cache import token_keys
from kingpost.cache.token_keys import Algorithm

KEYS = json.loads((Path(__file__).parent / "token-vectors" / "keys.json").read_text())
HS256 = base64.b64decode(KEYS["hs256"])
PEM = KEYS["rs256_pkcs1"]
PEM64 = base64.b64encode(PEM.encode()).decode()


def modulus(key):
    return key.verification_material().public_numbers().n


@pytest.mark.parametrize(
    "text",
    [
        KEYS["hs256"],
        KEYS["hs256"] + "\n",
        f"ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64={KEYS['hs256']}\nAWS_REGION=auto\n",
        f'export ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64="{KEYS["hs256"]}"\r\n',
    ],
)
def test_the_forms_of_an_hs256_key(text):
    key = token_keys.parse(text, origin="x")
    assert (key.algorithm, key.material, key.can_sign, key.weaknesses) == (Algorithm.HS256, HS256, True, ())


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        (PEM, True),
        (KEYS["rs256_pkcs8"], True),
        (PEM64, True),
        (f"ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64={PEM64}", True),
        (KEYS["rs256_public"], False),
        (f"ATTIC_SERVER_TOKEN_RS256_PUBKEY_BASE64={base64.b64encode(KEYS['rs256_public'].encode()).decode()}", False),
    ],
)  # fmt: skip
def test_the_forms_of_an_rs256_key(text, signs):
    key = token_keys.parse(text, origin="x")
    assert (key.algorithm, key.can_sign) == (Algorithm.RS256, signs)
    assert modulus(key) == modulus(token_keys.parse(PEM, origin="y"))


EC = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("geheim!", "not padded standard base64"),
        ("YWJj ZGVm", "not padded standard base64"),
        ("YWJjZA", "not padded standard base64"),
        ("", "empty key"),
        ("ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64=\n", "empty key"),
        (f"ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64={PEM64}", "PEM under the name of an HS256"),
        ("ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64=/////w==", "not base64 of PEM"),
        ("ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64=YWJjZA==", "no PEM key"),
        ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----", "no PEM key"),
        (EC, "not RSA"),
        ("ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64=YQ==\nATTIC_SERVER_TOKEN_RS256_SECRET_BASE64=YQ==", "more than one"),
    ],
)  # fmt: skip
def test_what_is_no_key_is_named_without_being_shown(text, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        token_keys.parse(text, origin="/run/secret")
    assert "/run/secret" in str(caught.value)
    value = text.split("=", 1)[-1].strip()
    assert not value or value not in str(caught.value)


def test_a_key_never_shows_itself():
    key = token_keys.parse(KEYS["hs256"], origin="x")
    assert KEYS["hs256"] not in repr(key)
    assert repr(HS256)[2:12] not in repr(key)


def test_files_that_are_no_secrets(tmp_path):
    with pytest.raises(CannotLookError, match="No such file"):
        token_keys.read_secret(tmp_path / "absent")
    with pytest.raises(CannotLookError, match="is no file"):
        token_keys.read_secret(tmp_path)
    (tmp_path / "big").write_bytes(b"a" * (1 << 20))
    with pytest.raises(InvalidInputError, match="1 MiB"):
        token_keys.read_secret(tmp_path / "big")
    (tmp_path / "binary").write_bytes(b"age\xff\xfe")
    with pytest.raises(InvalidInputError, match="byte 3 is not UTF-8"):
        token_keys.read_secret(tmp_path / "binary")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a program on PATH that records its argv, prints `out` and ends with `code`."""

    def put(name, out="", code=0, err=""):
        (tmp_path / "out").write_text(out)
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/argv\ncat {tmp_path}/out\necho '{err}' >&2\nexit {code}\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")

    put.argv = lambda: (tmp_path / "argv").read_text().splitlines()
    return put


def test_agenix_is_read_through_age(program):
    program("age", out=KEYS["hs256"] + "\n")
    key = token_keys.from_age(Path("atticd.age"), Path("/id"))
    assert key.material == HS256
    assert program.argv() == ["--decrypt", "--identity", "/id", "atticd.age"]
    program("age", code=1, err="no identity matched any of the recipients")
    with pytest.raises(CannotLookError, match="no identity matched"):
        token_keys.from_age(Path("atticd.age"), Path("/id"))


def secret(**data):
    return json.dumps({"data": {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}})


def test_the_clusters_secret_is_read_through_kubectl(program):
    program("kubectl", out=secret(**{"hs256-secret-base64": KEYS["hs256"], "other": "x"}))
    key = token_keys.from_cluster("nix-cache/attic-jwt:hs256-secret-base64", "honey")
    assert key.material == HS256
    assert program.argv() == [
        *("--context", "honey", "get", "secret", "attic-jwt"),
        *("--namespace", "nix-cache", "--output", "json"),
    ]
    program("kubectl", out=secret(only=KEYS["hs256"]))
    assert token_keys.from_cluster("nix-cache/attic-jwt").material == HS256


@pytest.mark.parametrize(
    ("out", "code", "reference", "error", "message"),
    [
        ("", 1, "a/b:c", CannotLookError, "kubectl could not read it"),
        ("no json", 0, "a/b:c", CannotLookError, "no JSON"),
        ("[]", 0, "a/b:c", CannotLookError, "no JSON"),
        (secret(x="1", y="2"), 0, "a/b", UsageError, "more or fewer"),
        (secret(x="1"), 0, "a/b:c", UsageError, "no entry c"),
        ('{"data": {"c": "!"}}', 0, "a/b:c", InvalidInputError, "not base64"),
        ("{}", 0, "a/b", UsageError, "more or fewer"),
        ("{}", 0, "nonsense", UsageError, "names no Kubernetes secret"),
    ],
)
def test_what_can_be_wrong_with_the_clusters_secret(program, out, code, reference, error, message):
    program("kubectl", out=out, code=code, err="Forbidden")
    with pytest.raises(error, match=message):
        token_keys.from_cluster(reference)


def test_a_pipe_is_read_like_a_file(tmp_path):
    read, write = os.pipe()
    os.write(write, KEYS["hs256"].encode())
    os.close(write)
    assert stat.S_ISFIFO(os.fstat(read).st_mode)
    assert token_keys.from_file(f"/dev/fd/{read}").material == HS256
    os.close(read)
    assert issubclass(CannotLookError, KingpostError)
