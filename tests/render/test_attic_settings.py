from __future__ import annotations

import pytest

from kingpost.render.attic_settings import attic_environment, attic_settings, storage_endpoint
from kingpost.topology.model import Topology
from kingpost.topology.platform import Platform


def platform(attic=None, bucket=None, host=None):
    server = {"host": "box", "port": 8080, "caches": {"main": {}}, **(attic or {})}
    if bucket:
        server["storage"] = {"kind": "bucket", "bucket": "store"}
    return Platform(
        Topology.model_validate(
            {
                "site": {"name": "x", "substituters": ["attic:home/main"]},
                "hosts": {"box": {"memory": "8GiB", **(host or {})}},
                "buckets": {"store": bucket} if bucket else {},
                "attic": {"home": server},
            }
        )
    )


R2 = {"provider": "r2", "endpoint": "https://1.r2.cloudflarestorage.com"}
AWS = {"provider": "aws", "region": "eu-central-1", "bucket": "my-cache"}
CHECKSUMS = {
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}


@pytest.mark.parametrize(
    ("bucket", "ec2", "expected"),
    [
        (None, False, {}),
        (R2, False, {"AWS_REGION": "auto", "AWS_EC2_METADATA_DISABLED": "true", **CHECKSUMS}),
        (R2, True, {"AWS_REGION": "auto", **CHECKSUMS}),
        (AWS, True, {"AWS_REGION": "eu-central-1"}),
        (AWS, False, {"AWS_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true"}),
    ],
)
def test_environment(bucket, ec2, expected):
    assert attic_environment(platform(bucket=bucket, host={"ec2": ec2}), "home") == expected


def test_plain_keys_come_before_tables():
    found = attic_settings(
        platform({"settings": {"soft-delete-caches": True}, "api_endpoint": "https://a.example.org/"}), "home"
    )
    tables = [isinstance(value, dict) for value in found.values()]
    assert tables == sorted(tables)
    assert found["soft-delete-caches"] is True
    assert found["api-endpoint"] == "https://a.example.org/"


def test_settings_cannot_replace_what_is_derived():
    found = attic_settings(platform({"settings": {"listen": "[::]:1", "storage": 1}}), "home")
    assert found["listen"] == "127.0.0.1:8080"
    assert found["storage"] == {"type": "local", "path": "/var/lib/atticd/storage"}


def test_a_path_cannot_break_out_of_the_database_url():
    found = attic_settings(platform({"database": {"kind": "sqlite", "path": "/a b/x?mode=ro&#%.db"}}), "home")
    assert found["database"] == {"url": "sqlite:///a%20b/x%3Fmode%3Dro%26%23%25.db?mode=rwc"}


def test_aws_finds_its_own_endpoint_and_others_get_theirs():
    assert storage_endpoint(platform(bucket=AWS), "home") is None
    assert storage_endpoint(platform(bucket=R2), "home") == R2["endpoint"]
    own = {"provider": "garage", "listener": {"host": "box", "port": 3900}}
    assert storage_endpoint(platform(bucket=own), "home") == "http://127.0.0.1:3900"
    assert storage_endpoint(platform(), "home") is None
