import base64
import json
import string
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.topology.redaction import is_key_material, is_secret_name, redacted, secret_shape

from .checking import codes, found

# Made up, and put together so that no scanner takes this file for a leak.
JWT = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiJleGFtcGxlIn0.c2lnbmF0dXJlLW9mLW5vdGhpbmc"
SECRETS = {
    "a JSON Web Token": JWT,
    "a GitLab token": "glrt-" + "t1_Ab3dEf6hIj9kLmN0pQ",
    "an AWS access key": "AKIA" + "IOSFODNN7EXAMPLE",
    "a password in a URL": "postgres://attic:" + "hunter2@db.example.org/attic",
    "a secret Nix signing key": "main:" + base64.b64encode(bytes(range(64))).decode(),
    "an age secret key": "AGE-SECRET-KEY-1" + "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
    "a private key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    "the value of a secret variable": "ATTIC_TOKEN=" + "abcdefgh12345",
    "a GitHub token": "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2",
    "a Tailscale key": "tskey-auth-" + "kAbCdEf1CNTRL",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_every_shape_is_found_and_never_repeated(kind):
    text = SECRETS[kind]
    assert secret_shape(text) == kind
    assert secret_shape(f"nix build {text} .#x") == kind
    assert text not in redacted(f"before {text} after")
    assert redacted(f"before {text} after").startswith("before <")


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize(
    "place",
    [
        "[pipelines.blog]\nbuild = [{}]",
        "[secrets.attic]\nsource = {}",
        "[attic.home]\nallowed_hosts = [{}]",
        "[attic.home.settings]\nsubstituter-endpoint = {}",
        '[waivers.w]\ncode = "KP-MEM-JOBS"\non = "runners.blog"\nowner = "o"\nexpires = 2999-01-01\nreason = {}',
        "[site]\nsubstituters = [{}]",
        "[pipelines.blog]\nrunner = {}",
    ],
    ids=["build", "source", "allowed", "settings", "reason", "cache", "runner"],
)
def test_no_message_holds_a_secret(kind, place):
    text = SECRETS[kind]
    try:
        problems = found(place.format(json.dumps(text)))
    except ValueError:  # a name's own type refuses it; the loader words that
        return
    assert "KP-SECRET-VALUE" in {problem.code for problem in problems}
    assert text not in repr(problems)
    assert all(word not in repr(problems) for word in ("hunter2", "abcdefgh12345"))


@pytest.mark.parametrize(
    "text",
    [
        "TOKEN=$ATTIC_TOKEN nix build .#x",
        'ATTIC_TOKEN="$TOKEN"',
        "ATTIC_TOKEN_FILE=/run/agenix/attic-token",
        "TOKEN=/run/secrets/token",
        "https://cache.example.org/path",
        "sha256-ugpsyk3NM2s87vXfUiIIiibbJ4Pp0JPS5p/3mfs+q+c=",
        "main:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        "/nix/store/8iv5j0f2difw6wg9vwj9r2raacb08fkv-runner-dashboard-0.1.0",
        ".#nixosConfigurations.node1.config.system.build.toplevel",
        "nixos/nix@sha256:0ba1e3a7f1e4a1c1c1c0a7f1b1a2c3d4e5f60718293a4b5c6d7e8f9001122334",
        "the token of the push expires with the project; password rotation is monthly",
        "git+ssh://git@gitlab.com/me/flake",
        "AKIA is how their names begin",
        "glrt tokens",
    ],
)
def test_what_is_no_secret_is_left_alone(text):
    assert secret_shape(text) is None
    assert not is_key_material(text)
    assert redacted(text) == text


@given(st.text(string.ascii_lowercase + string.digits + "-./:#@ ", max_size=80))
def test_small_letters_are_no_key_material(text):
    assert not is_key_material(text)


@given(
    st.lists(st.sampled_from(["Secrets", "hosts", "Laptop1", "Attic", "environment", "Server"]), min_size=6)
)
def test_words_are_no_key_material(words):
    assert not is_key_material("/".join(words))
    assert not is_key_material("".join(words))


def test_keys_are_key_material():
    random = Random(20261121)
    for size in (32, 36, 48, 64):
        texts = [base64.b64encode(random.randbytes(size)).decode() for _ in range(500)]
        missed = [text for text in texts if not is_key_material(text) and not text.startswith("/")]
        # A short key may look like words by chance: the rule would rather miss one in twenty than cry wolf.
        assert len(missed) <= 25


@pytest.mark.parametrize(
    "key", ["token-hs256-secret-base64", "db_password", "secret", "aws-secret-access-key", "token"]
)
def test_names_of_secrets(key):
    assert is_secret_name(key)


@pytest.mark.parametrize("key", ["soft-delete-caches", "tokenizer", "secretary", "substituter-endpoint"])
def test_names_of_others(key):
    assert not is_secret_name(key)


def test_a_declared_name_that_looks_like_a_token_is_a_name():
    name = "glrt-thinkpad-host-ci"
    text = f'[secrets.{name}]\nprovider = "agenix"\nformat = "raw"\n\n[runners.host]\ntoken = "{name}"'
    assert codes(text) == []


def test_a_token_in_the_place_of_a_secrets_name():
    problems = found(f'[runners.host]\ntoken = "{SECRETS["a GitLab token"]}"')
    assert {problem.code for problem in problems} == {"KP-SECRET-VALUE", "KP-REF-UNKNOWN"}
    assert {problem.path for problem in problems} == {("runners", "host", "token")}


@pytest.mark.parametrize(
    ("algorithm", "variable"),
    [
        ("hs256", "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"),
        ("rs256", "ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64"),
    ],
)
def test_the_variable_follows_the_algorithm(algorithm, variable):
    base = f'[attic.home]\nalgorithm = "{algorithm}"\n\n[secrets.attic]\nvariables = '
    with_keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    assert codes(base + json.dumps([variable, *with_keys])) == []
    (problem,) = found(base + json.dumps(with_keys))
    assert problem.path == ("secrets", "attic", "variables")
    assert variable in problem.message


def test_storage_on_disk_needs_no_credentials():
    text = """
[attic.second]
host = "laptop"
port = 8090
secret = "second"

[secrets.second]
provider = "agenix"
variables = ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"]
"""
    assert codes(text) == []
    assert codes(text + '\n[attic.second.storage]\nkind = "bucket"\nbucket = "store"') == [
        "KP-SECRET-VARIABLES"
    ]


def test_credentials_of_their_own():
    text = """
[buckets.store]
credentials = "s3"

[secrets.s3]
provider = "agenix"
variables = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]

[secrets.attic]
variables = ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"]
"""
    assert codes(text) == []
    assert codes(text.replace(', "AWS_SECRET_ACCESS_KEY"', "")) == ["KP-SECRET-VARIABLES"]


def test_an_ec2_role_gives_credentials_for_awss_own_s3():
    text = """
[hosts.node1]
ec2 = true

[buckets.store]
provider = "aws"

[secrets.attic]
variables = ["ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64"]
"""
    assert codes(text) == []
    assert codes(text.replace("ec2 = true", "ec2 = false")) == ["KP-SECRET-VARIABLES"]


@pytest.mark.parametrize(
    "database", ['kind = "postgres", local = false', 'kind = "postgres", url_in_secret = true']
)
def test_a_databases_url_is_in_the_secret(database):
    (problem,) = found(f"[attic.home]\ndatabase = {{ {database} }}")
    assert problem.code == "KP-SECRET-VARIABLES"
    assert "ATTIC_SERVER_DATABASE_URL" in problem.message


@pytest.mark.parametrize(
    ("owner", "group", "mode", "readable"),
    [
        ("gitlab-runner", "root", "0400", True),
        ("root", "gitlab-runner", "0440", True),
        ("root", "gitlab-runner", "0400", False),
        ("ann", "users", "0440", False),
        ("gitlab-runner", "root", "0000", False),
    ],
)
def test_who_reads_a_pushs_token(owner, group, mode, readable):
    text = f"""
[pipelines.host]
push = [{{ cache = "attic:home/main", policy = "required", token = {{ secret = "push" }} }}]

[secrets.push]
owner = "{owner}"
group = "{group}"
mode = "{mode}"
"""
    assert codes(text) == ([] if readable else ["KP-SECRET-READER"])


def test_a_disabled_push_needs_nothing():
    text = """
[pipelines.host]
push = [{ cache = "attic:home/main", policy = "off", token = { secret = "push", login = "ann" } }]

[secrets.push]
owner = "root"
"""
    assert codes(text) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('[secrets.runner]\nformat = "env"', ("secrets", "runner")),
        (
            '[attic.home.tokens.t]\npull = ["*"]\nsecret = "push"\n[secrets.push]\nformat = "env"',
            ("secrets", "push"),
        ),
    ],
)
def test_a_token_in_a_file_of_lines_names_its_line(text, path):
    assert [(problem.code, problem.path) for problem in found(text)] == [("KP-SECRET-VARIABLES", path)]
    named = text.replace('format = "env"', 'format = "env"\nvariables = ["CI_SERVER_TOKEN"]')
    assert codes(named) == []
