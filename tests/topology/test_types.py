from __future__ import annotations

import base64

import pytest
from pydantic import TypeAdapter, ValidationError

from kingpost.topology import types

GOOD = {
    types.Size: {"8GiB": 8 * 1024**3, "512M": 512 * 1024**2, "1.5 GB": 1_500_000_000, 4096: 4096},
    types.Duration: {"90d": 7_776_000, "1h30m": 5400, "250ms": 0.25, "1 week 2 days": 777_600},
    types.Port: {1: 1, 65535: 65535},
    types.Name: {"node1": "node1", "b.c_d-e": "b.c_d-e"},
    types.HostName: {"node1.example.org": "node1.example.org"},
    types.Url: {"https://cache.example.org/x": "https://cache.example.org/x"},
    types.StoreHash: {"8iv5j0f2difw6wg9vwj9r2raacb08fkv": "8iv5j0f2difw6wg9vwj9r2raacb08fkv"},
    types.Mode: {"400": "0400", "0644": "0644"},
    types.CacheName: {"blog-cache": "blog-cache", "a+b": "a+b"},
    types.BucketName: {"attic-cache": "attic-cache"},
    types.PlainPath: {"/var/lib/node-exporter": "/var/lib/node-exporter"},
    types.Calendar: {
        "daily": "daily",
        "Mon..Fri *-*-* 04:00": "Mon..Fri *-*-* 04:00",
        "*:0/15": "*:0/15",
        "Sat,Sun 20:00 UTC": "Sat,Sun 20:00 UTC",
    },
    types.Unit: {"user@1000.service": "user@1000.service", "nix-daemon.service": "nix-daemon.service"},
}

BAD = {
    types.Size: ["8 gibs", "", "-1GiB", True, 1.5, "GiB"],
    types.Duration: ["soon", 90, "3 fortnights", "", "1h and 3m"],
    types.Port: [0, 65536, "80", True, 80.5],
    types.Name: ["", "-a", "a b", "a/b", "ä", "x" * 64, 'a"b', "a\n"],
    types.HostName: ["-a.example", "a..b", "x" * 64, "a_b", 'a"', "a\n"],
    types.Url: ["ftp://x", "x", "http://", "http://a b/", "http://x/$(id)", "https://x/?q", "https://x/?",
                "https://x/#", "https://x:99999/", "http://ä/"],
    types.StoreHash: ["8iv5j0f2difw6wg9vwj9r2raacb08fk", "e" * 32, ""],
    types.Mode: [400, "9999", "rwx"],
    types.CacheName: ["", "*", "a.b", "x" * 51],
    types.BucketName: ["A", "a", "a..b", "-ab"],
    types.Unit: ["atticd", "a b.service", "x.service\n"],
    types.PlainPath: ["var", "", "/a b", "/a\n", "/a%n", '/a"', "/ä"],
    types.Calendar: ["", " ", "daily\n", 'a"', "${x}", "daily;reboot", 4, "every night", "at 5", "Mon 4", "tomorrow"],
    types.System: ["linux", "x86_64"],
    types.Endpoint: ["8083", "localhost:8083", "127.0.0.1:0", "127.0.0.1:99999"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "cases"), GOOD.items(), ids=lambda value: "")
def test_values_become_canonical(kind, cases):
    for written, value in cases.items():
        assert TypeAdapter(kind).validate_python(written) == value


@pytest.mark.parametrize(("kind", "cases"), BAD.items(), ids=lambda value: "")
def test_wrong_values_are_refused(kind, cases):
    for written in cases:
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(written)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("main", "name:base64"),
        ("main:notbase64!", "no base64"),
        ("main:" + base64.b64encode(b"x" * 31).decode(), "31 bytes, not 32"),
        ("main:" + base64.b64encode(b"x" * 64).decode(), "*secret* key"),
        ("a b:" + base64.b64encode(b"x" * 32).decode(), "no key name"),
    ],
)
def test_a_wrong_public_key_says_what_is_wrong(written, says):
    with pytest.raises(ValidationError) as error:
        TypeAdapter(types.PublicKey).validate_python(written)
    assert says in str(error.value)


def test_a_url_with_a_password_does_not_repeat_it():
    with pytest.raises(ValidationError) as error:
        TypeAdapter(types.Url).validate_python("https://ann:hunter2@cache.example.org/")
    message = error.value.errors(include_input=False)[0]["msg"]
    assert "hunter2" not in message
    assert "cache.example.org" in message
