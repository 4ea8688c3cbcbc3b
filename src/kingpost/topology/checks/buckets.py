"""Buckets: what must not share one fate, and endpoints that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kingpost.topology.checks.registry import Example, Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.caches import Bucket
    from kingpost.topology.checks.scene import Scene


@check(
    "KP-BUCKET-SHARED",
    title="Infrastructure state does not live where a cache does",
    why="when the store fails, the cache and the means to repair it fail together: `tofu apply` finds NoSuchBucket",
    fix="move the state to a store of its own, or say why not, and until when, in a waiver for KP-BUCKET-SHARED",
    example=Example(
        bad='[buckets.store]\nholds = ["cache", "iac-state"]',
        good='[buckets.store]\nholds = ["cache"]',
        at=("buckets", "store", "holds"),
    ),
    waivable=True,
)
def shared_fate(scene: Scene) -> Iterator[Finding]:
    """Find buckets, and self-hosted stores of several buckets, that hold both a cache and state."""
    stores: dict[tuple[object, ...], list[tuple[str, Bucket]]] = {}
    used = {getattr(attic.storage, "bucket", None) for attic in scene.topology.attic.values()}
    for name, bucket in scene.topology.buckets.items():
        if "iac-state" in bucket.holds and ("cache" in bucket.holds or name in used):
            yield Finding(
                ("buckets", name, "holds"), f"the bucket {name} holds both a cache and infrastructure state"
            )
        elif server := _self_hosted(bucket):
            stores.setdefault(server, []).append((name, bucket))
    for members in stores.values():
        caches = [name for name, bucket in members if "cache" in bucket.holds or name in used]
        for name, bucket in members:
            if caches and "iac-state" in bucket.holds:
                yield Finding(
                    ("buckets", name, "holds"),
                    f"the bucket {name} holds infrastructure state in the same {bucket.provider} as the cache in"
                    f" {caches[0]}",
                )


def _self_hosted(bucket: Bucket) -> tuple[object, ...] | None:
    """Give what tells one self-hosted store from another; None for storage that somebody else runs."""
    if bucket.listener:
        at = bucket.listener
        return (at.host, at.cluster, at.namespace, at.service, at.port)
    if bucket.endpoint and bucket.provider in {"rustfs", "minio", "garage"}:
        return (bucket.endpoint.rstrip("/"),)
    return None


@check(
    "KP-BUCKET-CHECK",
    title="A bucket is checked where its disk is, with what the check needs",
    why="a comparison of two views that sees one of them finds no lost bucket, and calls that good",
    fix="let the host check it that has its disk; for one in a cluster run `kingpost bucket rca --disk kube:…`",
    example=Example(
        bad='[buckets.own]\nprovider = "rustfs"\ndata_dir = "/var/lib/rustfs"\ncredentials = "attic"\n'
        'listener = { host = "node1", port = 9000 }\ncheck = { host = "laptop" }',
        good='[buckets.own]\nprovider = "rustfs"\ndata_dir = "/var/lib/rustfs"\ncredentials = "attic"\n'
        'listener = { host = "node1", port = 9000 }\ncheck = { host = "node1" }',
        at=("buckets", "own", "check", "host"),
    ),
)
def blind_check(scene: Scene) -> Iterator[Finding]:
    """Find checks of buckets away from the disk, and scratch buckets that nobody could sign for."""
    for name, bucket in scene.topology.buckets.items():
        if bucket.check is None:
            continue
        if bucket.listener and bucket.listener.host != bucket.check.host:
            place = bucket.listener.host or f"the cluster {bucket.listener.cluster}"
            yield Finding(
                ("buckets", name, "check", "host"),
                f"the bucket {name} is on {place}, and {bucket.check.host} checks it",
            )
        elif bucket.listener and bucket.data_dir is None:
            yield Finding(
                ("buckets", name, "check"),
                f"the check of the bucket {name} does not know where its disk is",
                fix="give the bucket's `data_dir`",
            )
        if bucket.check.scratch_probe and bucket.credentials is None:
            yield Finding(
                ("buckets", name, "check", "scratch_probe"),
                f"the check of the bucket {name} makes a bucket of its own, and has no credentials",
                why="who signs nothing may make no bucket: every run would fail",
                fix="give the bucket its `credentials`, or leave `scratch_probe` out",
            )


@check(
    "KP-BUCKET-SERVICE",
    title="An S3 server that NixOS runs is one that NixOS has, once, with its keys",
    why="nothing would listen where Attic and its readers dial",
    fix="take Garage; or run the server yourself and leave `managed` out: its address and the firewall are rendered"
    " all the same",
    example=Example(
        bad='[buckets.own]\nprovider = "rustfs"\ncredentials = "attic"\n'
        'listener = { host = "node1", port = 9000, managed = true }',
        good='[buckets.own]\nprovider = "rustfs"\ncredentials = "attic"\nlistener = { host = "node1", port = 9000 }',
        at=("buckets", "own", "listener", "managed"),
    ),
)
def unmanageable(scene: Scene) -> Iterator[Finding]:
    """Find S3 servers that no NixOS module can run as they are declared."""
    first: dict[tuple[str, str], tuple[str, Bucket]] = {}
    for name, bucket in scene.topology.buckets.items():
        listener = bucket.listener
        if listener is None or not listener.managed:
            continue
        path = ("buckets", name, "listener", "managed")
        if listener.host is None:
            fix = "leave `managed` out: the server's manifests are rendered for the cluster"
            yield Finding(path, f"the bucket {name} is in a cluster, where NixOS runs nothing", fix=fix)
        elif bucket.provider not in {"garage", "minio"}:
            yield Finding(path, f"NixOS {scene.topology.site.nixos} has no service for {bucket.provider}")
        elif bucket.credentials is None:
            fix = "name the secret with its keys in `credentials`"
            yield Finding(path, f"the S3 server of the bucket {name} has no keys", fix=fix)
        else:
            other, one = first.setdefault((listener.host, bucket.provider), (name, bucket))
            if _server(one) != _server(bucket):
                yield Finding(
                    path,
                    f"{listener.host} runs one {bucket.provider}, and {other} and {name} want different ones",
                    fix="give both the same port, data_dir, region and credentials: one server holds many buckets",
                )


def _server(bucket: Bucket) -> tuple[object, ...]:
    """Give what two buckets in one server have in common."""
    port = bucket.listener.port if bucket.listener else None
    return (port, bucket.data_dir, bucket.signing_region, bucket.credentials)


@check(
    "KP-BUCKET-ENDPOINT",
    title="An S3 endpoint does not name the bucket",
    why="the bucket's name is added to it: requests would go to a bucket inside the bucket, and fail with NoSuchKey",
    fix="leave the bucket's name out of `endpoint`",
    example=Example(
        bad='[buckets.store]\nendpoint = "https://0123abcd.r2.cloudflarestorage.com/store"',
        good='[buckets.store]\nendpoint = "https://0123abcd.r2.cloudflarestorage.com"',
        at=("buckets", "store", "endpoint"),
    ),
)
def bucket_in_endpoint(scene: Scene) -> Iterator[Finding]:
    """Find endpoints whose path ends in the bucket's own name."""
    for name, bucket in scene.topology.buckets.items():
        last = urlsplit(bucket.endpoint or "").path.rstrip("/").rpartition("/")[2]
        if last and last == (bucket.bucket or name):
            yield Finding(
                ("buckets", name, "endpoint"), f"the endpoint of the bucket {name} ends in the bucket's name"
            )
