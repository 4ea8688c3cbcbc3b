"""What an atticd is told: its settings as a value, and its environment. Every format is written from these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kingpost.base.units import format_duration
from kingpost.topology.caches import BucketStorage, LocalStorage, Postgres
from kingpost.topology.paths import ANY
from kingpost.topology.places import Dialer

if TYPE_CHECKING:
    from kingpost.topology.caches import Attic, Bucket
    from kingpost.topology.platform import Platform

CLUSTER_LISTEN = str(ANY)
"""In a pod only the pod's network decides who reaches a port."""


def attic_settings(platform: Platform, name: str) -> dict[str, Any]:
    """Give the `atticd.toml` of a server as a value, in the order in which it is written.

    Every key of `chunking` and `storage` is there, for the stock NixOS module replaces those tables whole.
    No credential is: they come from the environment. A table comes after every plain key, for TOML would
    otherwise swallow the keys behind it.
    """
    attic = platform.topology.attic[name]
    settings: dict[str, Any] = {
        "listen": _listen(platform, name, attic),
        "allowed-hosts": list(platform.allowed_hosts(name)),
    }
    if attic.api_endpoint:
        settings["api-endpoint"] = attic.api_endpoint
    settings["max-nar-info-size"] = attic.max_nar_info_size
    settings.update({key: value for key, value in attic.settings.items() if key not in settings})
    settings["database"] = _database(attic)
    settings["storage"] = _storage(platform, name, attic)
    settings["chunking"] = {
        "nar-size-threshold": attic.chunking.nar_size_threshold,
        "min-size": attic.chunking.min_size,
        "avg-size": attic.chunking.avg_size,
        "max-size": attic.chunking.max_size,
    }
    settings["compression"] = {"type": attic.compression.type, "level": attic.compression.level}
    settings["garbage-collection"] = {
        "interval": format_duration(attic.gc_interval),
        "default-retention-period": format_duration(attic.default_retention),
    }
    return settings


def attic_environment(platform: Platform, name: str) -> dict[str, str]:
    """Give the variables of atticd that are no secret.

    The AWS SDK asks EC2's metadata service for credentials and a region before it uses those in the
    environment (aws-config's default chain); elsewhere than on EC2 each such question waits for seconds.
    Storage other than AWS's own often refuses the CRC checksums that the SDK adds when it may.
    """
    attic = platform.topology.attic[name]
    if not isinstance(attic.storage, BucketStorage):
        return {}
    bucket = platform.topology.buckets[attic.storage.bucket]
    environment = {"AWS_REGION": bucket.signing_region}
    if not _on_ec2(platform, attic):
        environment["AWS_EC2_METADATA_DISABLED"] = "true"
    if bucket.provider != "aws":
        environment["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
        environment["AWS_RESPONSE_CHECKSUM_VALIDATION"] = "when_required"
    return environment


def storage_endpoint(platform: Platform, name: str) -> str | None:
    """Give the S3 endpoint of a server's bucket: what it dials, and what readers are redirected to.

    None for AWS's own, which the SDK finds by region, and for a bucket that cannot be reached.
    """
    attic = platform.topology.attic[name]
    if not isinstance(attic.storage, BucketStorage):
        return None
    bucket = platform.topology.buckets[attic.storage.bucket]
    if bucket.provider == "aws" and bucket.endpoint is None:
        return None
    context = f"service:{attic.cluster or attic.host}/{name}"
    found = platform.route(context, Dialer.CLIENT, f"bucket:{attic.storage.bucket}")
    return found.url or found.candidate


def database_in_secret(attic: Attic) -> bool:
    """Tell whether the database's URL comes from ATTIC_SERVER_DATABASE_URL in the server's secret."""
    return isinstance(attic.database, Postgres) and (attic.database.url_in_secret or not attic.database.local)


def _listen(platform: Platform, name: str, attic: Attic) -> str:
    listener = platform.listeners.get(f"attic:{name}")
    return f"{listener.bind if listener else attic.bind or CLUSTER_LISTEN}:{attic.port}"


def _database(attic: Attic) -> dict[str, str]:
    if database_in_secret(attic):
        return {}
    if isinstance(attic.database, Postgres):
        # The role is named: what sqlx takes for the user otherwise depends on a lookup of the unit's dynamic one.
        name = quote(attic.database.name, safe="")
        return {"url": f"postgresql:///{name}?host=/run/postgresql&user={name}"}
    # sqlx percent-decodes the path; without mode=rwc SQLite would not make the file.
    return {"url": f"sqlite://{quote(attic.database.path)}?mode=rwc"}


def _storage(platform: Platform, name: str, attic: Attic) -> dict[str, str]:
    if isinstance(attic.storage, LocalStorage):
        return {"type": "local", "path": attic.storage.path}
    bucket: Bucket = platform.topology.buckets[attic.storage.bucket]
    table = {
        "type": "s3",
        "region": bucket.signing_region,
        "bucket": bucket.bucket or attic.storage.bucket,
    }
    endpoint = storage_endpoint(platform, name)
    return {**table, "endpoint": endpoint} if endpoint else table


def _on_ec2(platform: Platform, attic: Attic) -> bool:
    cluster = platform.topology.clusters.get(attic.cluster or "")
    host = platform.topology.hosts.get((cluster.host if cluster else attic.host) or "")
    return bool(host and host.ec2)
