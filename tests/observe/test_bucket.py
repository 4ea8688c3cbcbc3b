import itertools
import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kingpost.base.errors import CannotLookError, UsageError
from kingpost.cache.s3 import Credentials, Endpoint, Object, S3Error
from kingpost.observe import bucket, bucket_codes, bucket_evidence
from kingpost.observe.bucket import State, classify
from kingpost.observe.bucket_disk import DiskView, Found
from kingpost.observe.bucket_interim import Interim, judged
from kingpost.observe.bucket_place import Workload, parse
from kingpost.observe.executors.local import Here
from kingpost.observe.executors.ssh import Ssh


@pytest.mark.parametrize(
    ("known", "data", "metadata", "state"),
    [
        (True, True, True, State.COHERENT),
        (True, True, None, State.COHERENT),
        (False, True, True, State.INDEX_DIVERGENCE),
        (False, True, None, State.INDEX_DIVERGENCE),
        (False, False, False, State.ABSENT),
        (False, False, None, State.ABSENT),
        (False, True, False, State.METADATA_LOSS),
        (True, True, False, State.METADATA_LOSS),
        (True, False, True, State.PHANTOM),
        (True, False, False, State.PHANTOM),
        (True, False, None, State.PHANTOM),
        (False, False, True, State.ORPHAN_METADATA),
    ],
)
def test_the_table(known, data, metadata, state):
    assert classify(known=known, data=data, metadata=metadata) is state


def test_the_table_is_complete():
    for known, data, metadata in itertools.product([True, False], [True, False], [True, False, None]):
        assert classify(known=known, data=data, metadata=metadata) in State


OBJECTS = (Object("k", 3),)


class Fake:
    """An S3 server in memory; `errors` maps operations to (code, status)."""

    def __init__(self, buckets=("attic",), objects=OBJECTS, body=b"abc", **errors):
        self.endpoint = Endpoint("http://s3")
        self._answers = {"ListBuckets": list(buckets), "ListObjectsV2": list(objects), "GetObject": body}
        self._errors = errors

    def _answer(self, operation):
        if operation in self._errors:
            code, status = self._errors[operation]
            raise S3Error(operation, "http://s3", code, status, "")
        return self._answers.get(operation)

    def buckets(self):
        return self._answer("ListBuckets")

    def head(self, bucket):
        return self._answer("HeadBucket")

    def objects(self, bucket, limit=10):
        return self._answer("ListObjectsV2")

    def get(self, bucket, key, limit=0):
        return self._answer("GetObject")


NO_BUCKET = {"HeadBucket": ("404", 404), "ListObjectsV2": ("NoSuchBucket", 404)}
WHOLE = DiskView((Found("/data", 5, True),))
NOTHING = DiskView((Found("/data", None, False),))


@pytest.mark.parametrize(
    ("fake", "disk", "code"),
    [
        (Fake(), WHOLE, "COHERENT"),
        (Fake(), None, "READABLE"),
        (Fake(objects=()), WHOLE, "COHERENT"),
        (Fake(buckets=(), **NO_BUCKET), WHOLE, "INDEX-DIVERGENCE"),
        (Fake(**NO_BUCKET), WHOLE, "INDEX-DIVERGENCE"),
        (Fake(buckets=()), WHOLE, "INDEX-DIVERGENCE"),
        (Fake(ListObjectsV2=("NoSuchBucket", 404)), WHOLE, "INDEX-DIVERGENCE"),
        (Fake(buckets=(), **NO_BUCKET), NOTHING, "ABSENT"),
        (Fake(buckets=(), **NO_BUCKET), None, "NOT-LISTED"),
        (Fake(), NOTHING, "PHANTOM"),
        (Fake(GetObject=("InternalError", 500)), WHOLE, "UNREADABLE"),
        (Fake(GetObject=("NoSuchKey", 404)), WHOLE, "UNREADABLE"),
        (Fake(ListObjectsV2=("InternalError", 500)), WHOLE, "UNREADABLE"),
        (Fake(body=b"ab"), WHOLE, "UNREADABLE"),
        (Fake(body=b""), WHOLE, "UNREADABLE"),
        # Credentials of one bucket may not list all: that is no divergence.
        (Fake(ListBuckets=("AccessDenied", 403)), WHOLE, "COHERENT"),
        (Fake(ListBuckets=("AccessDenied", 403), **NO_BUCKET), WHOLE, "INDEX-DIVERGENCE"),
        (
            Fake(
                ListBuckets=("InvalidAccessKeyId", 403),
                HeadBucket=("403", 403),
                ListObjectsV2=("InvalidAccessKeyId", 403),
            ),
            WHOLE,
            "DENIED",
        ),
    ],
)
def test_a_verdict_on_both_views(fake, disk, code):
    verdict = bucket.judge("attic", "http://s3", bucket.look(fake, "attic"), disk)
    assert verdict.code == f"KP-BUCKET-{code}"
    assert json.dumps(verdict.as_dict())


def test_several_disks():
    view = DiskView((Found("/a", None, None), Found("/b", 3, False), Found("/c", None, True)))
    assert (view.data, view.metadata) == (True, True)
    assert DiskView((Found("/a", 1, None),)).metadata is None
    assert DiskView((Found("/a", 1001, True),)).as_dict()["/a"]["entries"] == "1000+"


TODAY = date(2026, 11, 21)


@pytest.mark.parametrize(
    ("code", "waived", "expires", "result"),
    [
        ("INDEX_DIVERGENCE", "KP-BUCKET-INDEX-DIVERGENCE", date(2026, 11, 21), "KP-BUCKET-INTERIM"),
        ("INDEX_DIVERGENCE", "KP-BUCKET-INDEX-DIVERGENCE", date(2026, 11, 20), "KP-BUCKET-INTERIM-EXPIRED"),
        ("COHERENT", "KP-BUCKET-INDEX-DIVERGENCE", date(2999, 1, 1), "KP-BUCKET-INTERIM-UNNEEDED"),
        ("METADATA_LOSS", "KP-BUCKET-INDEX-DIVERGENCE", date(2999, 1, 1), "KP-BUCKET-METADATA-LOSS"),
    ],
)
def test_an_interim_state(code, waived, expires, result):
    interim = Interim("w", waived, "buckets.attic", "because", "me", expires)
    verdict = getattr(bucket_codes, code).verdict("bucket attic", "so it is")
    assert judged(verdict, interim, "attic", TODAY).code == result
    with pytest.raises(UsageError, match="not about bucket other"):
        judged(verdict, interim, "other", TODAY)


@pytest.mark.parametrize(
    ("text", "place", "rest", "argv"),
    [
        ("/data", Here(), "/data", ["ls"]),
        ("ssh:me@honey:/data", Ssh("honey", "me"), "/data", None),
        ("ssh:honey:rustfs.service", Ssh("honey"), "rustfs.service", None),
        ("kube:nix-cache/deployment/rustfs:/data", Workload("nix-cache", "deployment/rustfs", "", "c"), "/data",
         ["kubectl", "--context", "c", "--namespace", "nix-cache", "exec", "deployment/rustfs", "--", "ls"]),
        ("kube:n/statefulset/r/main", Workload("n", "statefulset/r", "main", "c"), "",
         ["kubectl", "--context", "c", "--namespace", "n", "exec", "statefulset/r", "--container", "main", "--", "ls"]),
    ],
)  # fmt: skip
def test_where_a_server_lives(text, place, rest, argv):
    assert parse(text, what="directory", context="c") == (place, rest)
    assert argv is None or place.argv(["ls"]) == argv


@pytest.mark.parametrize(
    "text", ["", "ssh:", "ssh:-oProxyCommand=x:/data", "ssh:honey", "kube:a/b", "kube:a/b c/d:/x"]
)
def test_what_names_no_place(text):
    with pytest.raises(UsageError, match="names no directory"):
        parse(text, what="directory")


SECRET = "hunter2hunter2"
LINES = [
    f"AWS_SECRET_ACCESS_KEY={SECRET}",
    f'"secretKey": "{SECRET}"',
    f"Authorization: AWS4-HMAC-SHA256 Credential={SECRET}/20260101, SignedHeaders=host, Signature={SECRET}",
    f"Authorization: Bearer {SECRET}",
    f"GET /attic/x?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}&X-Amz-Date=1",
    f"x-amz-security-token: {SECRET}",
    f"rustfs_root_password={SECRET} started",
]


@pytest.mark.parametrize("line", LINES)
def test_evidence_is_redacted(line):
    cleaned = bucket_evidence.redacted(f"before\n{line}\nNoSuchBucket attic")
    assert SECRET not in cleaned
    assert "NoSuchBucket attic" in cleaned


@given(st.text("0123456789=: \n"), st.text("abcdefgh", min_size=8))
def test_a_known_secret_never_stays(text, secret):
    assert secret not in bucket_evidence.redacted(f"{text}{secret}{text}", [secret])


PODS = {
    "items": [
        {
            "metadata": {"name": "rustfs-1", "labels": {"app": "rustfs", "x": "y"}},
            "spec": {
                "nodeName": "bumble",
                "containers": [{"env": [{"name": "RUSTFS_SECRET_KEY", "value": SECRET}]}],
                "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}, {"emptyDir": {}}],
            },
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {
                        "name": "rustfs",
                        "image": "r:1",
                        "imageID": "r@sha256:abc",
                        "restartCount": 3,
                        "ready": True,
                    }
                ],
            },
        },
        {"metadata": {"name": "other", "labels": {"app": "other"}}, "spec": {}, "status": {}},
    ]
}
WORKLOAD = {
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "rustfs"}}, "template": {"env": SECRET}}
}


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """An imitated kubectl that records its argv and answers by what it is asked."""
    (tmp_path / "pods").write_text(json.dumps(PODS))
    (tmp_path / "workload").write_text(json.dumps(WORKLOAD))
    script = tmp_path / "bin" / "kubectl"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\ncase "$*" in\n'
        f'*"get pods"*) cat {tmp_path}/pods;;\n'
        f'*"get deployment"*) cat {tmp_path}/workload;;\n'
        "*--previous*) echo 'previous terminated container not found' >&2; exit 1;;\n"
        f"*logs*) echo 'token={SECRET} NoSuchBucket';;\n"
        "*--version*) echo 'no such file: rustfs' >&2; exit 127;;\n"
        "*) echo ok;;\nesac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    return lambda: (tmp_path / "calls").read_text().splitlines()


def test_evidence_of_a_workload(kubectl, tmp_path):
    place = Workload("nix-cache", "deployment/rustfs", "rustfs", "honey")
    found = bucket_evidence.collect(bucket_evidence.Server(place), [], 1800)
    assert found.image == "sha256:abc"
    assert set(found.missing) == {"server.previous.log", "version.txt"}
    assert kubectl()[0] == (
        "--context honey --namespace nix-cache logs deployment/rustfs --since=1800s --timestamps --container rustfs"
    )
    kept = bucket_evidence.keep(tmp_path / "out", found, [], [], "rustfs")
    assert [verdict.code for verdict in kept] == ["KP-BUCKET-EVIDENCE", "KP-BUCKET-EVIDENCE-MISSING"]
    assert kept[1].summary == "version.txt: no such file: rustfs"
    pods = json.loads((tmp_path / "out" / "pods.json").read_text())
    assert pods["replicas"] == 1
    assert [pod["name"] for pod in pods["pods"]] == ["rustfs-1"]
    assert pods["pods"][0]["claims"] == ["data"]
    assert pods["pods"][0]["containers"][0]["restartCount"] == 3
    for path in (tmp_path / "out").iterdir():
        assert SECRET not in path.read_text()


def test_evidence_that_nobody_can_give(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nonexistent")
    found = bucket_evidence.collect(bucket_evidence.Server(Here(), "rustfs.service"), [], 60)
    assert set(found.missing) == {"server.log", "unit.txt", "image"}
    assert found.image == ""


def test_credentials_do_not_show_themselves():
    assert "geheim" not in repr(Credentials("geheim", "geheim", "geheim"))
    assert issubclass(CannotLookError, Exception)
