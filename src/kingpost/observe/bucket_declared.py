"""Where the disk of a declared bucket is, seen from this machine: its host's, or that of its pod."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kingpost.base.errors import UsageError
from kingpost.observe.bucket_disk import Directory
from kingpost.observe.bucket_place import Workload
from kingpost.observe.entering import Entrance, this_host
from kingpost.observe.executors.interface import NoWay
from kingpost.render.kubernetes_objects import name_of

if TYPE_CHECKING:
    from kingpost.topology.platform import Platform

#: Servers whose disk shows no bucket: Garage keeps blocks by their hash, and buckets in its database.
OPAQUE: Final = frozenset({"garage"})
#: Where a rendered server in a cluster keeps its data (render/kubernetes_servers.py).
_IN_A_POD: Final = "/data"


def declared_disk(platform: Platform, name: str, kube_context: str = "") -> Directory | None:
    """Give the data directory of a declared bucket's server; None for one that no disk of ours is known for.

    Args:
        platform: What is declared.
        name: The bucket's key.
        kube_context: kubectl's context; empty for the current one.

    Raises:
        UsageError: Its host cannot be entered from here.

    """
    bucket = platform.topology.buckets[name]
    at = bucket.listener
    if at is None or bucket.provider in OPAQUE:
        return None
    if at.host is None:
        pod = Workload(at.namespace, f"deployment/{name_of(at.service or name)}", context=kube_context)
        return Directory(pod, (bucket.data_dir or _IN_A_POD).rstrip("/"), bucket.provider)
    if bucket.data_dir is None:
        return None
    context = platform.find_context(f"host:{at.host}")
    way = Entrance(platform, this_host(platform)).way(context, context.client)
    if isinstance(way, NoWay):
        raise UsageError(
            f"the disk of {name} is on {at.host}, which cannot be entered from here: {way.reason}",
            fix="give --disk WHERE, or run this there",
        )
    return Directory(way, bucket.data_dir.rstrip("/"), bucket.provider)
